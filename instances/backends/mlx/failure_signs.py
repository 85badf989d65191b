"""Signs of failure of mlx_lm.server, as its users report them."""

from __future__ import annotations

from instances.backends.failure_signs import FailureReason, FailureSign
from instances.backends.python_signs import PYTHON_SIGNS

MLX_SIGNS: tuple[FailureSign, ...] = (
    FailureSign(
        r"\[metal::malloc\]",
        FailureReason.OUT_OF_MEMORY,
        "Out of memory: use a smaller context or a smaller model, or stop another instance.",
    ),
    FailureSign(
        r"Model not found for path or HF repo: (?P<name>\S+?)\.?$",
        FailureReason.MODEL_NOT_FOUND,
        "Model {name} is neither a directory with a model nor a name at Hugging Face: check it.",
    ),
    FailureSign(
        r"No safetensors found in (?P<path>.*)",
        FailureReason.MODEL_NOT_FOUND,
        "{path} has no model in it: check the path on this node.",
    ),
    FailureSign(
        r"No module named '?(?P<name>mlx_lm|mlx)\b",
        FailureReason.EXECUTABLE_NOT_FOUND,
        "Python has no module {name}: install it, or set the backend's command.",
    ),
    *PYTHON_SIGNS,
)
