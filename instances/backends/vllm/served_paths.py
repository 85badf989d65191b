"""vLLM's paths below ``/v1``, from its page on online serving; the last row is vLLM-Omni's."""

from __future__ import annotations

from instances.backends.base import below_v1

SERVED_PATHS = below_v1(
    *("chat/completions", "chat/completions/batch", "chat/completions/render"),
    *("completions", "completions/render", "embeddings", "rerank", "score", "decisions"),
    *("messages", "messages/count_tokens", "responses"),
    *("audio/transcriptions", "audio/translations"),
    *("load_lora_adapter", "unload_lora_adapter"),
    *("audio/speech", "images/generations", "images/edits"),
)
