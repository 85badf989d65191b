"""Live pages of the admin: a WebSocket that tells open pages of each change, and the banner."""
