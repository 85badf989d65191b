"""vLLM's paths of requests with a model, from its page on online serving.

The last row below ``/v1`` is vLLM-Omni's.
"""

from __future__ import annotations

from instances.backends.base import below_v1

SERVED_PATHS = below_v1(
    *("chat/completions", "chat/completions/batch", "chat/completions/render"),
    *("completions", "completions/render", "embeddings", "rerank", "score", "decisions"),
    *("messages", "messages/count_tokens", "responses"),
    *("audio/transcriptions", "audio/translations"),
    *("load_lora_adapter", "unload_lora_adapter"),
    *("audio/speech", "images/generations", "images/edits"),
) | {"/tokenize", "/detokenize"}
