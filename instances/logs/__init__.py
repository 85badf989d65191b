"""Log files of the backends: writing, reading, rotation."""
