"""File of an instance's ``preset_ini``, beside the instance as in the Go program."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from llamactl.config import AppConfig


@dataclass(frozen=True)
class PresetFile:
    """Model presets of a router, and the file that names them to its program."""

    path: Path
    text: str

    def write(self) -> None:
        """Write the file for its owner alone: presets may name tokens. Raises OSError."""
        for directory in (self.path.parent.parent, self.path.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(self.text)
        draft.replace(self.path)


def preset_path(instance_name: str, config: AppConfig) -> Path:
    """Return the path of an instance's file: ``instances.configs_dir``/NAME/preset.ini."""
    return config.instances.configs_dir / instance_name / "preset.ini"
