"""llama.cpp's llama-server."""

from __future__ import annotations

from collections.abc import Mapping

from instances.backends.base import Backend, last_part, text_option
from instances.backends.command_line import Programs
from instances.backends.embedded import PROGRAM as EMBEDDED_SERVER
from instances.backends.flags import FlagTable
from instances.backends.llama_cpp.config import LlamaCppConfig
from instances.backends.llama_cpp.examples import COMMAND, NEW_INSTANCES
from instances.backends.llama_cpp.failure_signs import EMBEDDED_SIGNS, LLAMA_SERVER_SIGNS
from instances.backends.llama_cpp.flags import LLAMA_CPP_FLAGS
from instances.backends.llama_cpp.option_fields import OPTION_FIELDS
from instances.backends.llama_cpp.served_paths import SERVED_PATHS
from instances.backends.model_traits import ModelTraits, positive
from instances.backends.path_options import DIRECTORY, FILE, gguf

_MODEL_SOURCES = ("model", "hf_repo", "model_url", "docker_repo")
_MODEL_PRESETS = tuple(
    flag.name
    for flag in LLAMA_CPP_FLAGS
    if flag.name.endswith(("_default", "_spec")) and flag.name != "spec_default"
)
"""``gpt_oss_20b_default`` and its like: one flag that names a model and its settings."""

_PATHS = {
    # With another source, --model is the target of the download.
    "model": gguf(unless=(*_MODEL_SOURCES[1:], *_MODEL_PRESETS)),
    "model_draft": gguf(unless=("hf_repo_draft",)),
    "model_vocoder": gguf(unless=("hf_repo_v",)),
    "mmproj": gguf(unless=("mmproj_url",)),
    "lora": gguf(commas=True),
    "lora_scaled": gguf(commas=True, scaled=True),
    "control_vector": gguf(commas=True),
    "control_vector_scaled": gguf(commas=True, scaled=True),
    **dict.fromkeys(
        (
            *("chat_template_file", "grammar_file", "json_schema_file", "lookup_cache_static"),
            *("api_key_file", "ssl_key_file", "ssl_cert_file"),
            *("models_preset", "mcp_servers_config", "webui_config_file"),
        ),
        FILE,
    ),
    **dict.fromkeys(
        ("models_dir", "media_path", "path", "slot_save_path", "video_ffmpeg_dir"), DIRECTORY
    ),
}


class LlamaCpp(Backend):
    """llama-server, which serves one model, or as a router any model that a request names."""

    type = "llama_cpp"
    config_name = "llama-cpp"
    config_model = LlamaCppConfig
    title = "llama.cpp"
    install_hint = "install llama.cpp"
    bundled_program = EMBEDDED_SERVER
    is_llama_server = True
    served_paths = SERVED_PATHS
    table = FlagTable(LLAMA_CPP_FLAGS, equals=False)
    programs = Programs(
        commands=(
            ("llama-server",),
            ("llama", "serve"),
            ("llama", "server"),
            ("server",),  # its name until June 2024
        )
    )
    path_options = _PATHS
    failure_signs = (*EMBEDDED_SIGNS, *LLAMA_SERVER_SIGNS)
    process_names = frozenset({"llama-server"})
    # Not LLAMA_: most of those variables are flags in disguise (LLAMA_ARG_CTX_SIZE, LLAMA_API_KEY,
    # LLAMA_OFFLINE), and would change each instance without being in its options.
    environment_prefixes = ("LLAMA_CACHE", "GGML_")
    # Where gdb is installed ggml starts it for a backtrace before an abort, which buries the lines
    # that say why.
    added_environment = {"GGML_NO_BACKTRACE": "1"}
    option_fields = OPTION_FIELDS
    example_instances = NEW_INSTANCES
    example_command = COMMAND
    secret_variables = {"hf_token": "HF_TOKEN"}
    address_options = {
        "api_prefix": "puts all paths below a prefix",
        "ssl_key_file": "makes the backend serve https",
        "ssl_cert_file": "makes the backend serve https",
    }
    address_variables = {
        "LLAMA_ARG_API_PREFIX": "api_prefix",
        "LLAMA_ARG_SSL_KEY_FILE": "ssl_key_file",
        "LLAMA_ARG_SSL_CERT_FILE": "ssl_cert_file",
    }
    preset_option = "models_preset"
    image_words = ("llama.cpp", "llama-cpp", "llamacpp", "llama-server")
    image_commands = frozenset({"--server", "-s"})
    name_option = "alias"

    def launch_options(
        self, options: Mapping[str, object], *, instance_name: str, host: str, port: int
    ) -> dict[str, object]:
        """Add the instance's name as the model's alias, unless the options set an alias.

        Without an alias llama-server answers with the path of the model's file.
        """
        launched = super().launch_options(
            options, instance_name=instance_name, host=host, port=port
        )
        if not is_router(launched):
            launched.setdefault("alias", instance_name)
        return launched

    def key_environment(self, key: str) -> dict[str, str]:
        return {"LLAMA_API_KEY": key}

    def operator_key(self, options: Mapping[str, object]) -> str | None:
        # llama-server takes several keys with commas between them, and accepts any of them.
        return text_option(options, "api_key").partition(",")[0].strip() or None

    def served_model(self, options: Mapping[str, object], instance_name: str) -> str | None:
        if is_router(options):
            return None
        return text_option(options, "alias").partition(",")[0].strip() or instance_name

    def model_path(self, options: Mapping[str, object]) -> str | None:
        return text_option(options, "model") or None

    def traits(self, options: Mapping[str, object]) -> ModelTraits:
        """Return the traits; the context is shared equally among ``parallel`` slots."""
        context = positive(options, "ctx_size")
        slots = positive(options, "parallel") or 1
        if context is not None and options.get("kv_unified") is not True:
            context //= slots
        return ModelTraits(
            context_length=context or None,
            takes_images=bool(options.get("mmproj") or options.get("mmproj_url")),
            is_embedding=options.get("embedding") is True,
            is_reranker=options.get("reranking") is True,
        )

    def summary(self, options: Mapping[str, object]) -> str:
        if model := text_option(options, "model"):
            return last_part(model)
        if repository := text_option(options, "hf_repo"):
            file = text_option(options, "hf_file")
            return f"{repository} {last_part(file)}" if file else repository
        if url := text_option(options, "model_url"):
            return last_part(url)
        if repository := text_option(options, "docker_repo"):
            return repository
        for preset in _MODEL_PRESETS:
            if options.get(preset) is True:
                return preset.replace("_", "-")
        if directory := text_option(options, "models_dir"):
            return f"router: {directory}"
        return "router"


def is_router(options: Mapping[str, object]) -> bool:
    """Tell whether no model is set: llama-server then starts as a router of models by name."""
    return not any(options.get(name) for name in (*_MODEL_SOURCES, *_MODEL_PRESETS))
