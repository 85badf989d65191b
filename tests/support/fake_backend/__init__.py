"""The fake backend: a real process that speaks llama-server's HTTP and misbehaves on demand.

Tests and the benchmark start ``program.py`` by its path. It needs the standard library alone, and
little of it: a test suite starts the program a thousand times.
"""
