"""Keys of the management API, of applications and of backends."""
