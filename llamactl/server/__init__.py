"""Start and supervision of broker, worker and web processes: ``manage.py run``."""
