from __future__ import annotations

import pytest

from proxy.routes.router_api import declines_load, model_in, props_query


@pytest.mark.parametrize(
    ("query", "declines"),
    [
        (b"", False),
        (b"autoload", False),
        (b"autoload=", False),
        (b"autoload=true", False),
        (b"autoload=1", False),
        (b"model=autoload", False),
        (b"api_key=x&autoload=false", True),
        (b"autoload=0", True),
        (b"autoload=False", True),
        (b"autoload=banana", True),
        # It should take the first of several, as cpp-httplib does.
        (b"autoload=false&autoload=true", True),
        (b"%61utoload=false", True),
    ],
)
def test_autoload_is_read_as_llama_cpp_reads_it(query: bytes, declines: bool) -> None:
    assert declines_load(query) is declines


@pytest.mark.parametrize(
    ("query", "model"),
    [
        (b"", ""),
        (b"model=", ""),
        (b"model=a%2Fb%3Ac", "a/b:c"),
        (b"autoload=false&model=a&model=b", "a"),
        (b"remodel=a", ""),
    ],
)
def test_model_is_the_first_of_the_query(query: bytes, model: str) -> None:
    assert model_in(query) == model


def test_backend_that_is_a_router_is_told_to_load_nothing() -> None:
    assert props_query("org/m:Q4 &x") == b"model=org%2Fm%3AQ4+%26x&autoload=false"
    assert props_query(None) == b""
