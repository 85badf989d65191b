"""Examples of llama.cpp for the OpenAPI document."""

from __future__ import annotations

NEW_INSTANCES: dict[str, dict[str, object]] = {
    "llama.cpp with a model file": {
        "backend_type": "llama_cpp",
        "backend_options": {
            "model": "/models/gemma-3-270m-it-Q4_K_M.gguf",
            "ctx_size": 8192,
            "gpu_layers": 99,
        },
    },
    "llama.cpp with a model of the Hugging Face hub": {
        "backend_type": "llama_cpp",
        "backend_options": {"hf_repo": "ggml-org/gemma-3-1b-it-GGUF"},
        "idle_timeout": 30,
        "environment": {"CUDA_VISIBLE_DEVICES": "0"},
    },
}

COMMAND = "llama-server -m /models/gemma.gguf -c 8192 -ngl 99 --temp 0.7"
