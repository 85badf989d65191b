"""Rows of llama.cpp's fields in the admin's form."""

from __future__ import annotations

from instances.backends.option_fields import MODEL, OptionField

OPTION_FIELDS = (
    (MODEL,),
    (
        OptionField(
            "hf_repo",
            "Hugging Face repository",
            "Downloaded on first start: owner/name:Q4_K_M",
            is_text=True,
        ),
    ),
    (
        OptionField(
            "ctx_size",
            "Context size",
            "Tokens, shared by the parallel slots. Empty: the model's own.",
        ),
        OptionField(
            "gpu_layers", "GPU layers", "How many layers go to the GPU; 0 is none, 999 is all."
        ),
    ),
    (
        OptionField(
            "threads", "Threads", "CPU threads for generation. Empty: chosen by the backend."
        ),
        OptionField("parallel", "Parallel slots", "Requests that are processed at the same time."),
    ),
    (
        OptionField("batch_size", "Batch size", "Tokens of a prompt that are processed at once."),
        OptionField("flash_attn", "Flash attention", "on, off or auto"),
    ),
)
