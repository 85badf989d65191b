"""vLLM's OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Mapping

from instances.backends.base import Backend, text_option
from instances.backends.command_line import Programs
from instances.backends.flags import FlagTable, Setting
from instances.backends.model_traits import ModelTraits, positive
from instances.backends.path_options import (
    DIRECTORY,
    DIRECTORY_OR_NAME,
    FILE,
    FILE_OR_NAME,
    MODEL_OR_NAME,
)
from instances.backends.vllm.config import VllmConfig
from instances.backends.vllm.examples import COMMAND, NEW_INSTANCES
from instances.backends.vllm.failure_signs import VLLM_SIGNS
from instances.backends.vllm.flags import VLLM_FLAGS
from instances.backends.vllm.option_fields import OPTION_FIELDS
from instances.backends.vllm.served_paths import SERVED_PATHS


class Vllm(Backend):
    """``vllm serve``; the word ``serve`` is in the config's ``args``."""

    type = "vllm"
    config_name = "vllm"
    config_model = VllmConfig
    title = "vLLM"
    install_hint = "install vLLM (pip install vllm)"
    table = FlagTable(VLLM_FLAGS, equals=True)
    programs = Programs(
        commands=(("vllm", "serve"), ("serve",), ("vllm",)),
        modules=(
            ("vllm.entrypoints.openai.api_server",),
            ("vllm.entrypoints.cli.main", "serve"),
        ),
        need_flags=frozenset({("vllm",)}),
    )
    path_options = {
        "model": MODEL_OR_NAME,
        "tokenizer": DIRECTORY_OR_NAME,
        "chat_template": FILE_OR_NAME,
        "generation_config": DIRECTORY_OR_NAME,
        "config": FILE,
        "ssl_keyfile": FILE,
        "ssl_certfile": FILE,
        "ssl_ca_certs": FILE,
        "allowed_local_media_path": DIRECTORY,
    }
    served_paths = SERVED_PATHS
    tells_stream_usage_if_asked = True
    help_flags = ("--help=all", "--help")  # newer versions print for --help the groups' names only
    failure_signs = VLLM_SIGNS
    process_names = frozenset({"vllm"})
    environment_prefixes = ("VLLM_", "TORCH_", "PYTORCH_", "TRITON_", "RAY_")
    # --api-key in disguise, and ports and addresses that instances would share.
    flag_variables = frozenset({"VLLM_API_KEY", "VLLM_PORT", "VLLM_HOST_IP", "VLLM_DP_MASTER_PORT"})
    option_fields = OPTION_FIELDS
    example_instances = NEW_INSTANCES
    example_command = COMMAND
    secret_variables = {"hf_token": "HF_TOKEN"}
    address_options = {
        "uds": "makes the backend listen on a socket file",
        "headless": "makes the backend serve no requests",
        "root_path": "puts all paths below a prefix",
        "ssl_keyfile": "makes the backend serve https",
        "ssl_certfile": "makes the backend serve https",
    }
    image_words = ("vllm",)
    name_option = "served_model_name"

    def _flag_args(self, options: dict[str, Setting], *, docker: bool) -> list[str]:
        """Put the model first, without its flag: ``vllm serve`` is about to drop ``--model``.

        A container gets the flag, because images differ: newer ones start ``vllm serve``, older
        ones the server's module, which knows the model by the flag only. Both take the flag.
        """
        model = options.get("model")
        if docker or not isinstance(model, str) or model.startswith("-"):
            return self.table.argv(options)
        others = {name: value for name, value in options.items() if name != "model"}
        return [model, *self.table.argv(others)]

    def launch_options(
        self, options: Mapping[str, object], *, instance_name: str, host: str, port: int
    ) -> dict[str, object]:
        """As for all backends, but several API keys stay: the variable holds one key alone."""
        launched = super().launch_options(
            options, instance_name=instance_name, host=host, port=port
        )
        keys = self.normalise(options).get("api_key")
        if isinstance(keys, list) and len(keys) > 1:
            launched["api_key"] = keys
        return launched

    def key_environment(self, key: str) -> dict[str, str]:
        return {"VLLM_API_KEY": key}

    def operator_key(self, options: Mapping[str, object]) -> str | None:
        keys = options.get("api_key")
        # vLLM accepts any of several keys, and VLLM_API_KEY holds one.
        return keys[0] if isinstance(keys, list) and keys else None

    def served_model(self, options: Mapping[str, object], instance_name: str) -> str | None:
        names = options.get("served_model_name")
        if isinstance(names, list) and names:
            return str(names[0])
        return super().served_model(options, instance_name)

    def traits(self, options: Mapping[str, object]) -> ModelTraits:
        task = text_option(options, "task") or text_option(options, "runner")
        return ModelTraits(
            context_length=positive(options, "max_model_len"),
            is_embedding=task in ("embed", "embedding", "pooling"),
            is_reranker=task in ("score", "rerank"),
        )

    def summary(self, options: Mapping[str, object]) -> str:
        return super().summary(options) or text_option(options, "config") or "no model set"
