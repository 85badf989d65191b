"""Rows of vLLM's fields in the admin's form."""

from __future__ import annotations

from instances.backends.option_fields import MODEL, OptionField

OPTION_FIELDS = (
    (MODEL,),
    (
        OptionField(
            "tensor_parallel_size", "Tensor parallel size", "How many GPUs share the model."
        ),
        OptionField("max_model_len", "Context size", "Tokens. Empty: the model's own."),
    ),
    (
        OptionField(
            "gpu_memory_utilization",
            "GPU memory",
            "Share of each GPU's memory that vLLM may use, such as 0.9.",
        ),
    ),
)
