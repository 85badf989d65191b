"""Base and theme of the admin's pages."""
