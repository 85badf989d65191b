"""Signs of failure of vLLM, as its users report them."""

from __future__ import annotations

from instances.backends.failure_signs import FailureReason, FailureSign
from instances.backends.python_signs import PYTHON_SIGNS

_SAVE_GPU_MEMORY = (
    "Out of GPU memory: use a smaller max_model_len, another gpu_memory_utilization or more GPUs, "
    "or stop what else uses the GPU."
)

VLLM_SIGNS: tuple[FailureSign, ...] = (
    FailureSign(
        r"OutOfMemoryError|CUDA out of memory|HIP out of memory|No available memory for the cache",
        FailureReason.OUT_OF_MEMORY,
        _SAVE_GPU_MEMORY,
    ),
    FailureSign(
        r"less than desired GPU memory utilization|larger than the available KV cache memory"
        r"|larger than the maximum number of tokens that can be stored in KV cache",
        FailureReason.OUT_OF_MEMORY,
        _SAVE_GPU_MEMORY,
    ),
    FailureSign(
        r"No module named '?(?P<name>vllm)\b",
        FailureReason.EXECUTABLE_NOT_FOUND,
        "Python has no module {name}: install it, or set the backend's command.",
    ),
    *PYTHON_SIGNS,
)
