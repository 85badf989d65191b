"""A backend that only tests register: docs/add-a-backend.md, tried."""
