"""ASGI layers around the proxy and Django."""
