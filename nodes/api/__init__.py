"""REST API of the nodes."""
