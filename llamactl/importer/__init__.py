"""Import of a Go llamactl's instances and keys."""
