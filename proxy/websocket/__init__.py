"""WebSockets through the instance proxy."""
