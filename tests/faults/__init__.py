"""Faults of every process, the disk and the host, under traffic."""
