"""The web process: uvicorn with HTTP and WebSocket protocol classes of our own."""
