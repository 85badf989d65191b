"""Examples of vLLM for the OpenAPI document."""

from __future__ import annotations

NEW_INSTANCES: dict[str, dict[str, object]] = {
    "vLLM": {
        "backend_type": "vllm",
        "backend_options": {
            "model": "Qwen/Qwen2.5-7B-Instruct",
            "tensor_parallel_size": 2,
            "max_model_len": 16384,
        },
        "max_restarts": 5,
    },
}

COMMAND = "vllm serve Qwen/Qwen2.5-7B-Instruct --tensor-parallel-size 2"
