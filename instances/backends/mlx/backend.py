"""mlx_lm.server, for Apple's GPUs."""

from __future__ import annotations

from collections.abc import Mapping

from instances.backends.base import Backend, below_v1, text_option
from instances.backends.command_line import Programs
from instances.backends.flag_rows import boolean, integer, json_text, number, text
from instances.backends.flags import FlagTable
from instances.backends.mlx.config import MlxConfig
from instances.backends.mlx.examples import COMMAND, NEW_INSTANCES
from instances.backends.mlx.failure_signs import MLX_SIGNS
from instances.backends.option_fields import MODEL
from instances.backends.path_options import DIRECTORY, DIRECTORY_OR_NAME

MLX_FLAGS = (
    text("model"),
    text("adapter_path"),
    text("host"),
    integer("port", low=0, high=65535),
    text("allowed_origins", commas=True),
    text("draft_model"),
    integer("num_draft_tokens"),
    boolean("trust_remote_code"),
    text("log_level"),
    text("chat_template", prose=True),
    boolean("use_default_chat_template"),
    number("temp"),
    number("top_p"),
    integer("top_k"),
    number("min_p"),
    integer("max_tokens"),
    json_text("chat_template_args"),
    integer("decode_concurrency"),
    integer("prompt_concurrency"),
    integer("prefill_step_size"),
    integer("prompt_cache_size"),
    text("prompt_cache_bytes"),  # "2GB"
    integer("kv_bits"),
    integer("kv_group_size"),
    integer("quantized_kv_start"),
    boolean("pipeline"),
)
"""From ``mlx_lm/server.py``."""


class Mlx(Backend):
    """mlx_lm.server, which has no API keys and does not run in a container."""

    type = "mlx_lm"
    config_name = "mlx"
    config_model = MlxConfig
    title = "MLX"
    install_hint = "install mlx-lm (pip install mlx-lm)"
    # For a long time mlx_lm.server did everything on one thread.
    answers_health_while_busy = False
    served_paths = below_v1("chat/completions", "completions")
    tells_stream_usage_if_asked = True
    table = FlagTable(MLX_FLAGS, equals=True)
    path_options = {
        "model": DIRECTORY_OR_NAME,
        "draft_model": DIRECTORY_OR_NAME,
        "adapter_path": DIRECTORY,
    }
    failure_signs = MLX_SIGNS
    process_names = frozenset({"mlx_lm.server"})
    environment_prefixes = ("MLX_",)
    option_fields = ((MODEL,),)
    example_instances = NEW_INSTANCES
    example_command = COMMAND
    programs = Programs(
        commands=(("mlx_lm.server",), ("mlx_lm", "server")),
        modules=(("mlx_lm.server",), ("mlx_lm", "server")),
    )

    def served_model(self, options: Mapping[str, object], instance_name: str) -> str | None:
        model = super().served_model(options, instance_name)
        if model and text_option(options, "adapter_path"):
            # A request for the model's own name would load the model again without the adapter.
            return "default_model"
        return model

    def summary(self, options: Mapping[str, object]) -> str:
        return super().summary(options) or "models by name"
