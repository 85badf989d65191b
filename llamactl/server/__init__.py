"""What `manage.py run` is made of: one foreground process tree of broker, worker and web."""
