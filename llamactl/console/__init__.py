"""Pages and endpoints about llamactl itself: dashboard, users and groups, version, health."""
