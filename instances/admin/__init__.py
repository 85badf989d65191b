"""The admin of the instances.

Django's autodiscovery imports this package; importing the pages registers them.
"""

from instances.admin import pages

__all__ = ["pages"]
