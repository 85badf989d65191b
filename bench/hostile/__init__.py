"""Requests that must not stop the others: the longest stall of ``/healthz``, and peak memory."""
