"""Base of the management API: views, JSON parser and error responses."""
