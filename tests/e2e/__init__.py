"""A whole llamactl, driven by real clients."""
