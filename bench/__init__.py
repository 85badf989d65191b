"""The benchmark: one client load, sent straight to a backend and through a proxy."""
