"""Backend programs: their flags, their command lines, and their conduct.

A backend is a folder with a subclass of ``base.Backend``, and an entry in ``registry``. See
``docs/add-a-backend.md``.
"""
