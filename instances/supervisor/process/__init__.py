"""Processes of backends: start, identification, limits and containers."""
