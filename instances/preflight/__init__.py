"""Preflight checks: an instance's options against its program and the files on disk."""
