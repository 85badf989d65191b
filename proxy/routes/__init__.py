"""Routes of the proxy: paths, their methods, and the model list."""
