"""Modules that are imported at their first use.

pytest imports all test modules in each of its workers, whichever tests run there. A large package
(openai and anthropic define thousands of models) is imported where it is used, so::

    if TYPE_CHECKING:
        import openai
    else:
        openai = lazy_import("openai")
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class _LazyModule(ModuleType):
    """Stands for a module until the first of its attributes is read."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def lazy_import(name: str) -> ModuleType:
    """Return the module ``name``, which is imported when an attribute of it is read."""
    return _LazyModule(name)
