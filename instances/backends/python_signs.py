"""Signs of failure that servers written in Python share: argparse, sockets, Hugging Face's hub."""

from __future__ import annotations

from instances.backends.failure_signs import DOWNLOAD_ADVICE, FailureReason, FailureSign

PYTHON_SIGNS: tuple[FailureSign, ...] = (
    FailureSign(
        r"error: unrecognized arguments: (?P<flags>.*)",
        FailureReason.BAD_FLAG,
        "The backend doesn't know {flags}: check the spelling, or update the backend.",
    ),
    FailureSign(
        r"error: argument (?P<flag>\S+): (?P<why>.*)",
        FailureReason.BAD_FLAG,
        "The backend refuses the value of {flag} ({why}): correct it.",
    ),
    FailureSign(
        r"error: (?P<why>(?:the following arguments are required|ambiguous option): .*)",
        FailureReason.BAD_FLAG,
        "The backend refuses its arguments: {why}.",
    ),
    FailureSign(
        r"[Aa]ddress already in use",
        FailureReason.PORT_IN_USE,
        "The port is taken: stop the program that holds it, or choose another port.",
    ),
    FailureSign(
        r"GatedRepoError|[Cc]annot access gated repo",
        FailureReason.MODEL_NOT_FOUND,
        "The model is protected: ask for access at Hugging Face and set HF_TOKEN.",
    ),
    FailureSign(
        r"RepositoryNotFoundError|Repository Not Found",
        FailureReason.MODEL_NOT_FOUND,
        f"Hugging Face has no such model: {DOWNLOAD_ADVICE}",
    ),
    FailureSign(
        r"(?:Invalid repository ID or local directory .*|Repo id must .*): '(?P<name>[^']*)'",
        FailureReason.MODEL_NOT_FOUND,
        "Model {name} is neither a directory with a model nor a name at Hugging Face: check it.",
    ),
    FailureSign(
        r"(?:LocalEntryNotFoundError|Can't load the (?:configuration|model|tokenizer))",
        FailureReason.MODEL_NOT_FOUND,
        f"The model can't be fetched: {DOWNLOAD_ADVICE}",
    ),
    FailureSign(
        r"FileNotFoundError: .*: '(?P<path>[^']*(?:config\.json|\.safetensors|\.gguf))'",
        FailureReason.MODEL_NOT_FOUND,
        "Model file {path} doesn't exist: check the path on this node.",
    ),
    FailureSign(
        r"^MemoryError|Cannot allocate memory",
        FailureReason.OUT_OF_MEMORY,
        "Out of memory: use a smaller context or a smaller model, or stop another instance.",
    ),
)
"""As users of vLLM and mlx_lm report them."""
