"""What the proxy costs: one client load, sent straight to a backend and through a proxy."""
