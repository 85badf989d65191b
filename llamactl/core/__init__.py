"""Ground of all apps: errors, events, locks, secrets and types."""
