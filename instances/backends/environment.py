"""Environment of a backend's process: the part of the worker's environment that is passed on.

An allow-list, because the worker's environment names the database, the broker and Django's secret,
none of which a backend, or the model code that it loads, should see. ``TZ`` is not passed on:
Django sets TZ in its own process, and backends use the host's time zone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from instances.backends.registry import BACKENDS

PASSED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TMPDIR"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"),
        # Backends download models, through proxies and with certificates of the site.
        *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    }
)
PASSED_PREFIXES = (
    "LC_",
    # GPUs and accelerators
    *("CUDA_", "NVIDIA_", "HIP_", "ROCR_", "ROCM_", "HSA_", "AMD_", "GPU_", "MIOPEN_"),
    *("ONEAPI_", "SYCL_", "ZE_", "VK_", "MTL_", "METAL_", "NCCL_", "RCCL_"),
    # numerical libraries
    *("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_"),
    # model hubs, and docker's client
    *("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "MODELSCOPE_", "DOCKER_"),
)


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of ``environ`` that a backend may see, and the variables we add.

    The prefixes of all backends are passed on to each backend: an instance's ``command_override``
    may be another backend's program. A flag in disguise (``LLAMA_ARG_CTX_SIZE``) is not: it belongs
    into the environment of an instance or of ``backends.*``, where a dry run shows its value.
    """
    prefixes: tuple[str, ...] = PASSED_PREFIXES
    flags: frozenset[str] = frozenset()
    added: dict[str, str] = {}
    for backend in BACKENDS.values():
        prefixes += backend.environment_prefixes
        flags |= backend.flag_variables
        added |= backend.added_environment
    passed = {
        name: value
        for name, value in environ.items()
        if name in PASSED or (name.startswith(prefixes) and name not in flags)
    }
    return added | passed


def backend_environment(added: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a program that the worker starts: a backend, docker, the guard.

    ``added``: variables of the configuration and of the instance.
    """
    return {**clean_environment(os.environ), **added}
