"""Options lose nothing on the way into the fields of a form and back."""

from __future__ import annotations

from typing import Any

import pytest
from django.forms import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from instances.admin.form_values import (
    SHORT_OPTIONS,
    parse_lines,
    parse_object,
    suggested_name,
    to_fields,
    to_lines,
    to_value,
)

texts = st.text(st.characters(exclude_categories=()), max_size=30)
values = st.recursive(
    texts | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["model", "hf_repo", "ctx_size", "flash_attn", "port", "x", "extra_args"])


def posted(text: str) -> str:
    """A textarea's text as a browser sends it."""
    return text.replace("\n", "\r\n")


@given(st.sampled_from(sorted(SHORT_OPTIONS)), st.dictionaries(names | texts, values, max_size=6))
def test_backend_options_come_back_the_same(kind: str, options: dict[str, Any]) -> None:
    fields = to_fields(kind, options)
    further = parse_object(posted(fields.pop("further_options")))
    back = {**further, **{name: to_value(name, text.strip()) for name, text in fields.items()}}
    assert back == options
    assert {name: type(value) for name, value in back.items()} == {
        name: type(value) for name, value in options.items()
    }


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True), texts, max_size=5))
def test_environment_comes_back_the_same(environment: dict[str, str]) -> None:
    assert parse_lines(posted(to_lines(environment))) == environment


def test_plain_variables_are_plain_lines() -> None:
    assert to_lines({"HF_HOME": "/data/hf", "A": "x=y z"}) == "HF_HOME=/data/hf\nA=x=y z"
    assert to_lines({"A": "one\ntwo"}) == 'A="one\\ntwo"'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A", "line 1: write NAME=value"),
        ("A=1\n\nA=2", "line 3: A was set before"),
        ('A="x', "line 1: a value that begins"),
    ],
)
def test_malformed_environment_is_refused_with_the_line(text: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        parse_lines(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "must be a JSON object"),
        ('{"a": }', r"line 1, column 7"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ("{" + ",".join(f'"{n}":1' for n in range(20_000)) + ',"0":2}', "'0' is there twice"),
        ('{"a":[' + "{}," * 200_000 + "{}]}", "longer than"),
        ('{"a": NaN}', "NaN is no JSON number"),
        pytest.param('{"a":' * 100_000, "nested too deeply", id="deep"),
        pytest.param('{"a": ' + "9" * 5000 + "}", "no valid JSON", id="long"),
    ],
)
def test_malformed_further_options_are_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        parse_object(text)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"model": "/models/gemma-3-4b-it-Q4_K_M.gguf"}, "gemma-3-4b-it-Q4_K_M"),
        ({"hf_repo": "Qwen/Qwen3-30B-A3B-GGUF:Q5_K_M"}, "Qwen3-30B-A3B-GGUF"),
        ({"model": "../.. /a b;c"}, "a-b-c"),
        ({"model": "..."}, ""),
        ({}, ""),
    ],
)
def test_name_is_suggested_after_the_model(fields: dict[str, str], name: str) -> None:
    assert suggested_name(fields) == name
