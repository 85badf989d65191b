"""REST API of the inference keys."""
