from __future__ import annotations

import pytest

from instances.backends.environment import clean_environment

ADDED = {"GGML_NO_BACKTRACE": "1"}


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "LD_LIBRARY_PATH",
        "CUDA_VISIBLE_DEVICES",
        "HF_TOKEN",
        "HIP_VISIBLE_DEVICES",
        "GGML_CUDA_FORCE_MMQ",
        "VLLM_LOGGING_LEVEL",
        "LLAMA_CACHE",
    ],
)
def test_a_backend_sees_the_variables_it_needs(name: str) -> None:
    assert clean_environment({name: "1"}) == ADDED | {name: "1"}


@pytest.mark.parametrize(
    "name",
    [
        "LLAMA_ARG_CTX_SIZE",
        "LLAMA_ARG_API_PREFIX",
        "LLAMA_ARG_HOST",
        "LLAMA_API_KEY",
        "LLAMA_OFFLINE",
        "LLAMA_LOG_FILE",
        "LLAMA_CHAT_TEMPLATE_KWARGS",
        "VLLM_API_KEY",
        "VLLM_PORT",
        "VLLM_HOST_IP",
    ],
)
def test_a_flag_in_disguise_is_not_inherited(name: str) -> None:
    assert clean_environment({name: "1"}) == ADDED


@pytest.mark.parametrize(
    "name",
    [
        "LLAMACTL_MANAGEMENT_KEYS",
        "LLAMACTL_NODE",
        "DJANGO_SETTINGS_MODULE",
        "DATABASE_URL",
        "REDIS_URL",
        "SECRET_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "TZ",
        "PYTHONPATH",
        "VIRTUAL_ENV",
    ],
)
def test_a_backend_sees_no_other_variable(name: str) -> None:
    assert clean_environment({name: "1"}) == ADDED
