"""The proxy: inference and instance requests, on their way to backends."""
