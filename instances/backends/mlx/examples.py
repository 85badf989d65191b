"""Examples of MLX for the OpenAPI document."""

from __future__ import annotations

NEW_INSTANCES: dict[str, dict[str, object]] = {
    "MLX": {
        "backend_type": "mlx_lm",
        "backend_options": {"model": "mlx-community/Mistral-7B-Instruct-v0.3-4bit"},
    },
}

COMMAND = "HF_HOME=/models mlx_lm.server --model mlx-community/Mistral-7B --temp 0.7"
