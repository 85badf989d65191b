"""Requests that schemathesis generates for one operation of the OpenAPI document.

``schema.parametrize()`` would make the cases of all operations during the collection, which each
worker of pytest-xdist repeats. Here they are made in the test of their operation, and schemathesis
is imported there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.lazy_import import lazy_import

if TYPE_CHECKING:
    import schemathesis
    from schemathesis.schemas import BaseSchema
else:
    schemathesis = lazy_import("schemathesis")


def operations_of(paths: dict[str, Any]) -> list[Any]:
    """List method and path of each operation, as parameters of a test."""
    return [
        pytest.param(method.upper(), path, id=f"{method.upper()} {path}")
        for path, methods in paths.items()
        for method in methods
    ]


def schema_of(document: dict[str, Any], config: dict[str, Any]) -> BaseSchema:
    """Load the document, with the options of ``schemathesis.toml``."""
    options = schemathesis.config.SchemathesisConfig.from_dict(config)
    schema: BaseSchema = schemathesis.openapi.from_dict(document, config=options)
    return schema


def try_cases(
    schema: BaseSchema, method: str, path: str, check: Callable[[schemathesis.Case], None]
) -> None:
    """Call ``check`` with each case of the operation."""

    def test(case: schemathesis.Case) -> None:
        check(case)

    lazy = importlib.import_module("schemathesis.pytest.lazy")
    filters = importlib.import_module("schemathesis.filters").FilterSet()
    # ``schema.include`` would add to the filter of the options, which includes everything.
    chosen = schema.clone(filter_set=filters.with_include(method=method, path=path))
    (made,) = lazy.get_all_tests(schema=chosen, test_func=test, settings=None, given_kwargs=None)
    _, run = made.ok()
    run()
