"""Sources of the configuration: defaults < ``.env`` < YAML file < ``LLAMACTL_*`` environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from llamactl.config.app_config import AppConfig, config_model
from llamactl.config.file_reader import FileReader, find_file, named_file
from llamactl.config.layers import Layer, LoadContext, merged_origins, unusable_characters
from llamactl.config.problems import (
    ConfigError,
    FieldPath,
    dotted,
    error_lines,
    origin_of,
    printable,
)
from llamactl.config.schema import BackendConfig, BackendSections
from llamactl.config.variables_reader import find_dotenv, read_variables
from llamactl.config.yaml_text import read_yaml
from llamactl.masking import secret_words


def load(
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    *,
    backends: BackendSections,
    config_path: Path | None = None,
) -> AppConfig:
    """Read all sources and return the one configuration.

    ``backends`` are the sections of the registry (``instances.backends.registry``).
    ``environ`` and ``cwd`` default to those of the process; ``config_path`` takes precedence over
    ``LLAMACTL_CONFIG_PATH``. Raises ConfigError with a line for each problem.
    """
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    context = LoadContext(config_model(backends), backends, home=_home(environ), cwd=cwd)
    try:
        layers = _read_layers(environ, config_path, context)
    except ConfigError as error:
        raise ConfigError([*context.problems, *error.lines], context.warnings) from None
    return _build(layers, context)


def _read_layers(
    environ: Mapping[str, str], config_path: Path | None, context: LoadContext
) -> list[Layer]:
    """Read the layers, the weakest first."""
    dotenv_file, dotenv = find_dotenv(named_file(config_path, environ, context), context)
    context.variables = {**dotenv, **environ}
    file = find_file(config_path, context)
    document = None if file is None else read_yaml(file, context.variables)
    return [
        Layer({"data_dir": str(context.home / ".local/share/llamactl")}),
        read_variables(dotenv, lambda name: f"{dotenv_file}: {name}", context),
        FileReader(str(file), context).read(document),
        read_variables(environ, lambda name: name, context),
    ]


def _build(layers: Sequence[Layer], context: LoadContext) -> AppConfig:
    """Merge and validate the layers. Raises ConfigError with the context's problems as well."""
    origins = merged_origins(layers)
    # BaseSettings takes sources as a parameter; type checkers know a model's fields alone.
    construct: Callable[..., AppConfig] = context.model
    try:
        config = construct(_build_sources=(tuple(reversed(layers)), {}))  # the strongest is first
    except ValidationError as error:
        problems = error_lines(error, origins)
        raise ConfigError([*context.problems, *problems], context.warnings) from None
    if not context.problems and (problem := unusable_characters(str(config.data_dir))):
        # The default, below a home directory of such a name.
        context.problems.append(f"data_dir {config.data_dir} has {problem}; set another one")
    if context.problems:
        raise ConfigError(context.problems, context.warnings)
    if config.auth.inference_keys:
        context.warnings.append(
            f"{origin_of(('auth', 'inference_keys'), origins)}: auth.inference_keys is ignored "
            "(as in the Go program): make inference keys in the admin or by POST /api/v1/auth/keys"
        )
    context.warnings += _secrets_in_arguments(config)
    config._warnings = tuple(map(printable, context.warnings))
    config._origins = origins
    return config


def _secrets_in_arguments(config: AppConfig) -> Iterator[str]:
    """Warn of secrets in the arguments of all instances: every user of the host can read them."""
    sections: Iterable[tuple[str, BackendConfig]] = config.backends
    for name, section in sections:
        arguments: dict[FieldPath, list[str]] = {("backends", name): section.args}
        if section.docker is not None:
            arguments["backends", name, "docker"] = section.docker.args
        for parent, words in arguments.items():
            path = (*parent, "args")
            for flag in dict.fromkeys(secret_words(words)):
                yield (
                    f"{config.origin(path)}: {dotted(path)} has a secret, the value of {flag}, and"
                    " every user of the host can read it in the list of processes: put it into"
                    f" {dotted((*parent, 'environment'))}, or into a file"
                )


def _home(environ: Mapping[str, str]) -> Path:
    if environ.get("HOME"):
        return Path(environ["HOME"])
    try:
        return Path.home()
    except RuntimeError:  # a container whose user id has no name
        return Path("/")
