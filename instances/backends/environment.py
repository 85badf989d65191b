"""What does a backend get to see of the worker's environment?

An allow-list: the worker knows the database, the broker and Django's secret, and a backend (with
whatever model code it loads) is none of those who should. ``TZ`` is left out because Django sets
it in its own process; backends use the host's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

PASSED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TMPDIR"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"),
        # Models are downloaded by the backends: their way out, and whom they trust there.
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
    # the backends and the hubs they load from; not LLAMACTL_, which has no _ after LLAMA
    *("LLAMA_", "GGML_", "VLLM_", "MLX_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_"),
    *("TORCH_", "PYTORCH_", "TRITON_", "RAY_", "MODELSCOPE_", "DOCKER_"),
)


ADDED = {
    # Where gdb is installed ggml has it print a backtrace before it aborts, which buries the
    # lines that say why.
    "GGML_NO_BACKTRACE": "1",
}


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What of ``environ`` a backend may have, and what we add to it."""
    passed = {
        name: value
        for name, value in environ.items()
        if name in PASSED or name.startswith(PASSED_PREFIXES)
    }
    return ADDED | passed


def backend_environment(added: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a backend's program, with what its configuration adds."""
    return {**clean_environment(os.environ), **added}
