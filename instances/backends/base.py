"""What does llamactl ask of a backend, whichever program it is?

A backend is stateless: its class holds the flag table of the program and the few ways in which the
program differs from the others. A new one is a module with a subclass and a line in the registry.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, cast

from instances.backends.command_line import CommandError, ParsedCommand, Programs, parse
from instances.backends.extra_args import (
    Bare,
    ExtraValue,
    extra_argv,
    extra_key,
    given_times,
    normal_value,
)
from instances.backends.failure_signs import FailureSign
from instances.backends.flags import Flag, FlagTable, FlagType, Setting
from instances.backends.option_fields import OptionField
from instances.backends.path_options import PathOption
from instances.backends.values import InvalidBackendOptions, shown
from llamactl.config.schema import AppConfig, BackendConfig, BackendSection, backend_field
from llamactl.core.errors import LlamactlError

LOOPBACK = "127.0.0.1"
_ANY_ADDRESS = {"0.0.0.0": LOOPBACK, "*": LOOPBACK, "::": "::1", "[::]": "::1"}  # noqa: S104


class UnknownBackend(LlamactlError):
    """No backend has this type."""

    code = "invalid_request"
    status = 400

    def __init__(self, backend_type: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f"backend_type must be one of {', '.join(known)}, got {shown(backend_type)}"
        )


class Backend:
    """One backend program: options to command line and back, and how to talk to it."""

    type: ClassVar[str]
    """The seed's ``backend_type``."""
    config_name: ClassVar[str]
    """The key of the backend's section below ``backends`` in the config file, in kebab-case."""
    config_model: ClassVar[BackendSection]
    """The section: its keys, defaults and environment variables."""
    title: ClassVar[str]
    install_hint: ClassVar[str]
    """What to install if the program is missing."""
    bundled_program: ClassVar[Path | None] = None
    """A Python program of llamactl's own that is started if the default command is missing."""
    is_llama_server: ClassVar[bool] = False
    """Whether it has llama-server's own endpoints and web UI beside OpenAI's."""
    health_paths: ClassVar[tuple[str, ...]] = ("/health", "/v1/models")
    """Tried in order; the first that does not answer 404 says whether it is ready."""
    answers_health_while_busy: ClassVar[bool] = True
    """False: it may be silent for as long as a response takes, and yet be well."""
    table: ClassVar[FlagTable]
    programs: ClassVar[Programs]
    path_options: ClassVar[Mapping[str, PathOption]] = {}
    """Options that name what is already on disk; not those that say where to write."""
    help_flags: ClassVar[tuple[str, ...]] = ("--help",)
    """How the program is asked for all its flags; tried in order."""
    failure_signs: ClassVar[tuple[FailureSign, ...]] = ()
    """Log lines in which the program says why it ends."""
    process_names: ClassVar[frozenset[str]] = frozenset()
    """Names of the program's processes, for the doctor."""
    environment_prefixes: ClassVar[tuple[str, ...]] = ()
    """Variables of the worker's environment that are passed on to the program."""
    added_environment: ClassVar[Mapping[str, str]] = {}
    """Variables that the program gets unless the worker's environment sets them."""
    option_fields: ClassVar[tuple[tuple[OptionField, ...], ...]] = ()
    """Rows of fields in the admin's form."""
    example_instances: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    """Title → options document, for the API's documentation."""
    example_command: ClassVar[str]
    """A command line, for the API's documentation; ``parse_command`` makes the answer to it."""
    secret_variables: ClassVar[Mapping[str, str]] = {}
    """Options that a process is given by environment: the command line is open to all users."""

    # -- configuration ----------------------------------------------------------------------------

    def config_section(self, config: AppConfig) -> BackendConfig:
        """The backend's section of the configuration."""
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

    # -- options ----------------------------------------------------------------------------------

    def normalise(self, raw: Mapping[str, object]) -> dict[str, object]:
        """Options as an operator said them → canonical names, checked values.

        Keys may be aliases (``ngl``) or have dashes. Unknown keys go to ``extra_args``; known ones
        in ``extra_args`` come out of it. What says nothing to the program is left out: null, ``""``
        and ``[]``, port 0, ``false`` where the program has no flag for it. Doing it twice is the
        same as doing it once.

        Raises InvalidBackendOptions.
        """
        return self._normalise(raw, lambda flag: f"backend_options.{flag.name}")

    def _normalise(
        self, raw: Mapping[str, object], label: Callable[[Flag], str]
    ) -> dict[str, object]:
        options: dict[str, Setting] = {}
        unknown: dict[str, object] = {}
        for key, value in raw.items():
            if key == "extra_args":
                continue
            found = self.table.find(key)
            if found is None:
                unknown[key] = value
            else:
                self._put(options, found, value, label(found[0]))
        given = raw.get("extra_args")
        if given is not None and not isinstance(given, Mapping):
            raise InvalidBackendOptions(
                "backend_options.extra_args must be an object of flags and their values, got"
                f" {shown(given)}"
            )
        extra = self._extra_args([*unknown.items(), *(given or {}).items()], options, label)
        self._check_together(options)
        normal = cast("dict[str, object]", options)
        if extra:
            normal["extra_args"] = extra
        return normal

    def _put(
        self, options: dict[str, Setting], found: tuple[Flag, bool], value: object, label: str
    ) -> None:
        flag, affirms = found
        setting = flag.check(value, label)
        if isinstance(setting, bool) and flag.kind is FlagType.BOOL:
            setting = setting is affirms
            if setting is False:
                if flag.name in self.table.opposites:
                    flag, setting = self.table.flags[self.table.opposites[flag.name]], True
                elif not flag.negation:
                    return
        if setting is None or (flag.name == "port" and setting == 0):
            return
        if setting is not False:
            self._refuse_flags_as_values(flag, setting, label)
        if flag.name in options and options[flag.name] != setting:
            raise InvalidBackendOptions(
                f"{label} is given twice: {shown(options[flag.name])} and {shown(setting)}"
                if not flag.secret
                else f"{label} is given twice, with different values"
            )
        options[flag.name] = setting

    def _refuse_flags_as_values(self, flag: Flag, setting: Setting, label: str) -> None:
        """Without ``--flag=value`` a value that is some flag can't be told from that flag.

        And argparse drops ``--`` wherever it stands.
        """
        for word in (word for words in flag.words_of(setting) for word in words):
            taken = not self.table.equals and self.table.find_spelling(word) is not None
            if taken or word == "--":
                raise InvalidBackendOptions(f"{label} must be a value, got the flag {word}")

    def _extra_args(
        self,
        given: list[tuple[str, object]],
        options: dict[str, Setting],
        label: Callable[[Flag], str],
    ) -> dict[str, ExtraValue]:
        extra: dict[str, ExtraValue] = {}
        for name, value in given:
            field = f"backend_options.extra_args.{str(name)[:80]}"
            key = extra_key(name, field)
            times = given_times(value, self.table, field)
            if not times:
                continue
            found = self.table.find(key)
            if found is not None:
                self._put(options, found, self._known_value(found[0], times), label(found[0]))
            elif key in extra and extra[key] != normal_value(times):
                raise InvalidBackendOptions(f"{field} is given twice, with different values")
            else:
                extra[key] = normal_value(times)
        return extra

    def _known_value(self, flag: Flag, times: list[str | Bare]) -> object:
        """What an entry of ``extra_args`` says for a flag that has an option of its own."""
        said = [True if time is True else flag.read(time) for time in times]
        return said if flag.kind is FlagType.LIST and True not in said else said[-1]

    def _check_together(self, options: Mapping[str, Setting]) -> None:
        for name, opposite in self.table.opposites.items():
            if options.get(name) is True and options.get(opposite) is True:
                raise InvalidBackendOptions(
                    f"backend_options.{name} and backend_options.{opposite} contradict each other"
                )

    def build_args(self, options: Mapping[str, object], *, docker: bool = False) -> list[str]:
        """The arguments that tell the program ``options``, in the order of its flag table.

        Options are brought into normal form first, so nothing gets here unchecked. ``docker`` is
        for programs whose container wants them otherwise. Raises InvalidBackendOptions.
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
        """The options, in normal form, and the environment of a pasted command line.

        Raises CommandError.
        """
        parsed = parse(command, self.table, self.programs)
        try:
            options = self._normalise(parsed.backend_options, lambda flag: flag.spelling)
        except InvalidBackendOptions as error:
            # The same rule, but here the command line is at fault: the seed's code for that.
            raise CommandError(error.details) from error
        return ParsedCommand(options, parsed.environment)

    # -- a process --------------------------------------------------------------------------------

    def launch_options(
        self, options: Mapping[str, object], *, instance_name: str, host: str, port: int
    ) -> dict[str, object]:
        """The options a process is started with: ours for host and port filled in, secrets out.

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
        """The environment that says what ``launch_options`` took out, but for the API key."""
        normal = self.normalise(options)
        return {
            variable: value
            for name, variable in self.secret_variables.items()
            if isinstance(value := normal.get(name), str)
        }

    def key_environment(self, key: str) -> dict[str, str]:
        """The environment in which a process asks for this API key; empty if it can't."""
        return {}

    def operator_key(self, options: Mapping[str, object]) -> str | None:
        """The API key that the operator chose for the backend, if any."""
        return None

    def connect_host(self, options: Mapping[str, object]) -> str:
        """The address at which this node reaches the process."""
        host = str(options.get("host") or LOOPBACK)
        return _ANY_ADDRESS.get(host, host)

    # -- what it serves ---------------------------------------------------------------------------

    def served_model(self, options: Mapping[str, object], instance_name: str) -> str | None:
        """The model name that the process answers to; ``None`` if the process serves many."""
        return text_option(options, "model") or None

    def model_path(self, options: Mapping[str, object]) -> str | None:
        """The file or directory of the model, if the options name one on disk."""
        model = text_option(options, "model")
        return model if looks_like_path(model) else None

    def summary(self, options: Mapping[str, object]) -> str:
        """The model's file name or repository, for a list; ``""`` if the options name no model."""
        model = text_option(options, "model")
        return last_part(model) if looks_like_path(model) else model


def text_option(options: Mapping[str, object], name: str) -> str:
    """A text option, or ``""``."""
    value = options.get(name)
    return value if isinstance(value, str) else ""


def looks_like_path(model: str) -> bool:
    """Whether a model name is a path rather than a repository of a hub (``owner/name``)."""
    return (
        model.startswith(("/", "./", "../", "~")) or model in (".", "..") or model.endswith(".gguf")
    )


def last_part(path: str) -> str:
    """The file name of a path or URL."""
    return path.partition("?")[0].rstrip("/").rpartition("/")[2] or path
