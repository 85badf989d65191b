"""A pytest plugin that registers the toy before Django loads, as an entry in the registry would.

Loaded by ``-p tests.instances.backends.toy.registered``.
"""

from __future__ import annotations

from instances.backends.registry import BACKENDS
from tests.instances.backends.toy.backend import Toy

BACKENDS[Toy.type] = Toy()
