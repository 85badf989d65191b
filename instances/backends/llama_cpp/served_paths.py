"""llama-server's paths below ``/v1``, from ``tools/server/server.cpp``."""

from __future__ import annotations

from instances.backends.base import below_v1

SERVED_PATHS = below_v1(
    *("chat/completions", "chat/completions/control", "chat/completions/input_tokens"),
    *("completions", "embeddings", "audio/transcriptions", "rerank", "reranking"),
    *("messages", "messages/count_tokens", "responses", "responses/input_tokens"),
)
