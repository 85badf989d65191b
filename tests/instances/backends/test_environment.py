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
