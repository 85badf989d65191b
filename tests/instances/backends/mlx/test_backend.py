"""mlx_lm.server: arguments and models."""

from __future__ import annotations

import pytest

from instances.backends.registry import backend_for

MLX = backend_for("mlx_lm")


def test_its_options_become_flags() -> None:
    options = {
        "model": "m",
        "temp": 0,
        "trust_remote_code": True,
        "use_default_chat_template": False,
        "chat_template_args": {"enable_thinking": False},
    }

    assert MLX.build_args(options) == [
        *("--model", "m"),
        "--trust-remote-code",
        *("--temp", "0"),
        *("--chat-template-args", '{"enable_thinking":false}'),
    ]


def test_a_value_that_begins_with_a_dash_is_told_from_a_flag() -> None:
    assert MLX.build_args({"chat_template": "- {{ x }}"}) == ["--chat-template=- {{ x }}"]


def test_it_is_given_no_key() -> None:
    assert MLX.key_environment("k") == {}
    assert MLX.operator_key({"model": "m"}) is None


@pytest.mark.parametrize(
    ("options", "served", "summary", "path"),
    [
        ({"model": "o/n"}, "o/n", "o/n", None),
        ({"model": "/m/n"}, "/m/n", "n", "/m/n"),
        # Asked for by name it would be loaded again, without the adapter.
        ({"model": "o/n", "adapter_path": "/a"}, "default_model", "o/n", None),
        ({}, None, "models by name", None),
    ],
)
def test_served_model_path_and_summary(
    options: dict[str, object], served: str | None, summary: str, path: str | None
) -> None:
    assert MLX.served_model(options, "tiny") == served
    assert MLX.summary(options) == summary
    assert MLX.model_path(options) == path
