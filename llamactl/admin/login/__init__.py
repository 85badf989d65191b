"""Login to the admin: limits on attempts, and on the passwords that are hashed at once."""
