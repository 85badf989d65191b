"""The interface of a backend: what llamactl knows of one program that serves models."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, cast

from instances.backends.command_errors import CommandError
from instances.backends.command_line import ParsedCommand, Programs, parse, read_words
from instances.backends.extra_args import ExtraValue, extra_argv
from instances.backends.failure_signs import FailureSign
from instances.backends.flags import FlagTable, Setting
from instances.backends.model_traits import ModelTraits
from instances.backends.normal_form import normal_form
from instances.backends.option_fields import OptionField
from instances.backends.path_options import PathOption
from instances.backends.shell_words import Word
from instances.backends.values import InvalidBackendOptions, shown
from llamactl.config.app_config import AppConfig
from llamactl.config.schema import BackendConfig, BackendSection, backend_field
from llamactl.core.errors import LlamactlError

LOOPBACK = "127.0.0.1"
_ANY_ADDRESS = {"0.0.0.0": LOOPBACK, "*": LOOPBACK, "::": "::1", "[::]": "::1"}  # noqa: S104


def below_v1(*paths: str) -> frozenset[str]:
    """``chat/completions`` → ``/v1/chat/completions``."""
    return frozenset(f"/v1/{path}" for path in paths)


class UnknownBackend(LlamactlError):
    """A ``backend_type`` that is not registered."""

    code = "invalid_request"
    status = 400

    def __init__(self, backend_type: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f"backend_type must be one of {', '.join(known)}, got {shown(backend_type)}"
        )


class Backend:
    """A backend program: its options, its command line, and its conduct as a server.

    Instances are stateless. A subclass declares the attributes below and overrides the methods in
    which its program differs; ``docs/add-a-backend.md`` explains both.
    """

    type: ClassVar[str]
    """The ``backend_type`` of the API. Stored with each instance, so never changed."""
    title: ClassVar[str]
    """The name for people."""

    # Configuration and program
    config_name: ClassVar[str]
    """The key of the backend's section below ``backends`` in the config file, in kebab-case."""
    config_model: ClassVar[BackendSection]
    """The section: its keys, defaults and environment variables."""
    install_hint: ClassVar[str]
    """Advice when the program is missing: ``install vLLM (pip install vllm)``."""
    bundled_program: ClassVar[Path | None] = None
    """A Python program of llamactl's own that is started if the default command is missing."""
    process_names: ClassVar[frozenset[str]] = frozenset()
    """Names of the program's processes, for the doctor."""
    environment_prefixes: ClassVar[tuple[str, ...]] = ()
    """Prefixes of variables that are passed on from the worker's environment."""
    flag_variables: ClassVar[frozenset[str]] = frozenset()
    """Variables with one of the prefixes that are flags in disguise, and are not passed on."""
    added_environment: ClassVar[Mapping[str, str]] = {}
    """Variables that are set unless the worker's environment sets them."""

    # Options and command line
    table: ClassVar[FlagTable]
    """The program's flags."""
    programs: ClassVar[Programs]
    """The commands by which a pasted command line is recognised."""
    help_flags: ClassVar[tuple[str, ...]] = ("--help",)
    """Flags that print the help with all flags; tried in order."""
    path_options: ClassVar[Mapping[str, PathOption]] = {}
    """Options that name an existing file or directory; not options that say where to write."""
    secret_variables: ClassVar[Mapping[str, str]] = {}
    """Option → environment variable, for secrets: all users of a host can read command lines."""
    image_words: ClassVar[tuple[str, ...]] = ()
    """Words in the names of the program's container images; none if it runs in no container."""
    image_commands: ClassVar[frozenset[str]] = frozenset()
    """Words with which an image's first argument chooses the server."""
    name_option: ClassVar[str] = ""
    """Option that names the model to clients, which may name the instance as well."""
    preset_option: ClassVar[str] = ""
    """Option that names the file of ``preset_ini``; empty if the program reads no such file."""
    address_options: ClassVar[Mapping[str, str]] = {}
    """Options that move the backend's address, scheme or prefix → what they do. Refused: see
    ``address``."""
    address_variables: ClassVar[Mapping[str, str]] = {}
    """Variable → the option in ``address_options`` that it sets."""
    option_fields: ClassVar[tuple[tuple[OptionField, ...], ...]] = ()
    """Rows of fields in the admin's form."""
    example_instances: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    """Title → options document, for the API's documentation."""
    example_command: ClassVar[str]
    """A command line for the API's documentation; ``parse_command`` makes the answer to it."""

    # Conduct as a server
    served_paths: ClassVar[frozenset[str]] = below_v1(
        "chat/completions", "completions", "embeddings"
    )
    """Paths that take POST and a model. A request to another path below ``/v1`` starts no
    instance; a running instance gets every path."""
    tells_stream_usage_if_asked: ClassVar[bool] = False
    """Whether a stream of OpenAI's API has its token counts only with
    ``stream_options.include_usage``, which llamactl then asks for."""
    is_llama_server: ClassVar[bool] = False
    """Whether the program has llama-server's own endpoints and web UI beside OpenAI's."""
    health_paths: ClassVar[tuple[str, ...]] = ("/health", "/v1/models")
    """Paths of the startup and liveness probes: the first that does not answer 404 counts."""
    answers_health_while_busy: ClassVar[bool] = True
    """False for a program that may answer no probe for as long as one response takes."""
    failure_signs: ClassVar[tuple[FailureSign, ...]] = ()
    """Log lines that tell why the program ended."""

    # -- configuration -----------------------------------------------------------------------------

    def config_section(self, config: AppConfig) -> BackendConfig:
        """Return the backend's section of the configuration."""
        section: BackendConfig = getattr(config.backends, backend_field(self.config_name))
        return section

    @property
    def default_command(self) -> str:
        """The program that is started unless the operator configures another one."""
        command: str = self.config_model.model_fields["command"].default
        return command

    @property
    def bundled_command(self) -> tuple[str, ...] | None:
        """The words that start ``bundled_program``.

        ``-I``: neither the current directory nor the user's is on the path of Python's modules.
        """
        if self.bundled_program is None:
            return None
        return (sys.executable, "-I", str(self.bundled_program))

    # -- options -----------------------------------------------------------------------------------

    def normalise(self, raw: Mapping[str, object]) -> dict[str, object]:
        """Bring the options of a request into normal form: canonical names, checked values.

        Keys may be aliases (``ngl``) or have dashes. Unknown keys go to ``extra_args``, and known
        flags in ``extra_args`` become options. Values that tell the program nothing are left out:
        null, ``""``, ``[]``, port 0, and ``false`` where the program has no flag for ``false``.
        The normal form of a normal form is the same.

        Raises InvalidBackendOptions.
        """
        return normal_form(raw, self.table, lambda flag: f"backend_options.{flag.name}")

    def build_args(self, options: Mapping[str, object], *, docker: bool = False) -> list[str]:
        """Build the arguments for ``options``, in the order of the flag table.

        Options are brought into normal form first, so no unchecked value becomes an argument.
        ``docker``: build them for the program's container image. Raises InvalidBackendOptions.
        """
        normal = self.normalise(options)
        extra = cast("dict[str, ExtraValue]", normal.pop("extra_args", {}))
        words = self._flag_args(cast("dict[str, Setting]", normal), docker=docker)
        for key, value in extra.items():
            words += extra_argv(key, value, self.table)
        return words

    def _flag_args(self, options: dict[str, Setting], *, docker: bool) -> list[str]:
        return self.table.argv(options)

    def parse_command(self, command: str) -> ParsedCommand:
        """Read the options (in normal form) and the environment of a pasted command line.

        Raises CommandError.
        """
        return self.parse_words(read_words(command))

    def parse_words(self, words: Iterable[Word]) -> ParsedCommand:
        """Read the words of a pasted command line. Raises CommandError."""
        parsed = parse(words, self.table, self.programs)
        try:
            options = normal_form(parsed.backend_options, self.table, lambda flag: flag.spelling)
        except InvalidBackendOptions as error:
            # The same rule, but with the seed's code for a bad command line.
            raise CommandError(error.details) from error
        return ParsedCommand(options, parsed.environment)

    # -- processes ---------------------------------------------------------------------------------

    def launch_options(
        self, options: Mapping[str, object], *, instance_name: str, host: str, port: int
    ) -> dict[str, object]:
        """Return the options for a launch: host and port filled in, secrets left out.

        A host that the operator set is kept: containers may need 0.0.0.0.
        """
        launched = self.normalise(options)
        launched.setdefault("host", host)
        launched["port"] = port
        for name in ("api_key", *self.secret_variables):
            if isinstance(launched.get(name), (str, list)):
                del launched[name]
        return launched

    def secret_environment(self, options: Mapping[str, object]) -> dict[str, str]:
        """Return the secrets left out by ``launch_options``, except the API key, as variables."""
        normal = self.normalise(options)
        return {
            variable: value
            for name, variable in self.secret_variables.items()
            if isinstance(value := normal.get(name), str)
        }

    def key_environment(self, key: str) -> dict[str, str]:
        """Return the variables that make a process require this API key; empty if none can."""
        return {}

    def operator_key(self, options: Mapping[str, object]) -> str | None:
        """Return the API key that the operator chose in the options, if any."""
        return None

    def connect_host(self, options: Mapping[str, object]) -> str:
        """Return the address at which this node reaches the process."""
        host = str(options.get("host") or LOOPBACK)
        return _ANY_ADDRESS.get(host, host)

    # -- models ------------------------------------------------------------------------------------

    def served_model(self, options: Mapping[str, object], instance_name: str) -> str | None:
        """Return the name of the one model that the process serves; ``None`` if it serves many."""
        return text_option(options, "model") or None

    def model_path(self, options: Mapping[str, object]) -> str | None:
        """Return the file or directory of the model, if the options name one on disk."""
        model = text_option(options, "model")
        return model if looks_like_path(model) else None

    def traits(self, options: Mapping[str, object]) -> ModelTraits:
        """Return the traits of the model that the options tell."""
        return ModelTraits()

    def summary(self, options: Mapping[str, object]) -> str:
        """Name the model in a few words, for a list; ``""`` if the options name no model."""
        model = text_option(options, "model")
        return last_part(model) if looks_like_path(model) else model


def text_option(options: Mapping[str, object], name: str) -> str:
    """Return a text option, or ``""``."""
    value = options.get(name)
    return value if isinstance(value, str) else ""


def looks_like_path(model: str) -> bool:
    """Tell whether a model name is a path rather than a hub's repository (``owner/name``)."""
    return (
        model.startswith(("/", "./", "../", "~")) or model in (".", "..") or model.endswith(".gguf")
    )


def last_part(path: str) -> str:
    """Return the file name of a path or URL."""
    return path.partition("?")[0].rstrip("/").rpartition("/")[2] or path
