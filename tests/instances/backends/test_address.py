"""Options, arguments and variables that move a backend's address."""

from __future__ import annotations

from typing import Any

import pytest

from instances.backends import address
from instances.backends.registry import backend_for
from instances.backends.values import InvalidBackendOptions


def refused(backend_type: str, options: dict[str, Any]) -> str:
    """The refusal of the options of a request; empty if there is none."""
    backend = backend_for(backend_type)
    try:
        address.check_options(backend, backend.normalise({"model": "m", **options}))
    except InvalidBackendOptions as error:
        return error.details
    return ""


@pytest.mark.parametrize(
    ("backend_type", "options", "named"),
    [
        ("llama_cpp", {"api_prefix": "/x"}, "api_prefix puts all paths below a prefix"),
        ("llama_cpp", {"api-prefix": "/x"}, "api_prefix"),
        ("llama_cpp", {"extra_args": {"--api-prefix": "/x"}}, "api_prefix"),
        ("llama_cpp", {"ssl_key_file": "k", "ssl_cert_file": "c"}, "makes the backend serve https"),
        ("llama_cpp", {"ssl_cert_file": "c"}, "ssl_cert_file"),
        ("llama_cpp", {"host": "llama.sock"}, "host makes the backend listen on a socket file"),
        ("vllm", {"headless": True}, "headless makes the backend serve no requests"),
        ("vllm", {"uds": "/tmp/vllm.sock"}, "uds makes the backend listen on a socket file"),
        ("vllm", {"root_path": "/x"}, "root_path"),
        ("vllm", {"ssl_keyfile": "k"}, "ssl_keyfile"),
        ("vllm", {"extra_args": {"ssl-certfile": "c"}}, "ssl_certfile"),
        # argparse takes the beginning of a flag for the flag.
        ("vllm", {"extra_args": {"root-pa": "/x"}}, "extra_args.root_pa would be taken for root_"),
        ("mlx_lm", {"extra_args": {"hos": "0.0.0.0"}}, "extra_args.hos would be taken for host"),
        ("mlx_lm", {"extra_args": {"po": "1"}}, "extra_args.po would be taken for port"),
    ],
)
def test_an_option_that_moves_the_address_is_refused(
    backend_type: str, options: dict[str, Any], named: str
) -> None:
    assert named in refused(backend_type, options)


@pytest.mark.parametrize(
    ("backend_type", "options"),
    [
        ("llama_cpp", {"host": "0.0.0.0", "port": 8003}),
        ("llama_cpp", {"api_prefix": "", "ssl_key_file": None}),
        ("llama_cpp", {"path": "/srv/www", "extra_args": {"new_flag": "1"}}),
        ("vllm", {"host": "::", "extra_args": {"portable": "1"}}),
        ("mlx_lm", {"host": "127.0.0.2"}),
    ],
)
def test_other_options_are_accepted(backend_type: str, options: dict[str, Any]) -> None:
    assert refused(backend_type, options) == ""


@pytest.mark.parametrize(
    ("backend_type", "arguments", "named"),
    [
        ("llama_cpp", ["--api-prefix", "/x"], "--api-prefix in backends.b.args"),
        ("vllm", ["serve", "--root-path=/x"], "--root-path in backends.b.args"),
        ("vllm", ["serve", "--uds", "/tmp/s"], "--uds"),
        ("llama_cpp", ["run", "-e", "LLAMA_ARG_API_PREFIX=/x"], "LLAMA_ARG_API_PREFIX in"),
        ("llama_cpp", ["run", "--env=LLAMA_ARG_SSL_KEY_FILE=/k"], "LLAMA_ARG_SSL_KEY_FILE in"),
    ],
)
def test_arguments_of_the_config_are_checked(
    backend_type: str, arguments: list[str], named: str
) -> None:
    with pytest.raises(InvalidBackendOptions) as caught:
        address.check_arguments(backend_for(backend_type), arguments, "backends.b.args")
    assert named in caught.value.details


def test_arguments_that_the_options_override_are_accepted() -> None:
    words = ["--host", "0.0.0.0", "--port", "1", "-e", "LLAMA_ARG_HOST=x", "-S"]
    address.check_arguments(backend_for("llama_cpp"), words, "backends.llama-cpp.args")


@pytest.mark.parametrize(
    "name", ["LLAMA_ARG_API_PREFIX", "LLAMA_ARG_SSL_KEY_FILE", "LLAMA_ARG_SSL_CERT_FILE"]
)
def test_variables_are_checked(name: str) -> None:
    backend = backend_for("llama_cpp")
    with pytest.raises(InvalidBackendOptions, match=f"{name} in environment"):
        address.check_environment(backend, {name: "/x"}, "environment")
    address.check_environment(backend, {name: "", "LLAMA_ARG_PORT": "1"}, "environment")
