"""Broker, worker and web as services of their own, started as the systemd units start them."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import requests

from tests.support.paths import FAKE_BACKEND, ROOT
from tests.support.stack import Stack, kill_all
from tests.support.until import until

UNITS = ROOT / "docs" / "deploy"


def unit(service: str, folder: Path = UNITS) -> ConfigParser:
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(folder / f"llamactl-{service}.service")
    return parser


class Services(Stack):
    """The three services; each may be ended and started again."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        fake = {
            "LLAMACTL_LLAMACPP_COMMAND": sys.executable,
            "LLAMACTL_LLAMACPP_ARGS": f"-S -E {FAKE_BACKEND}",
        }
        super().__init__(data_dir, **fake, **environment)
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def launch(self, service: str, folder: Path = UNITS) -> None:
        section = unit(service, folder)["Service"]
        if "ExecStartPre" in section:
            assert self._popen(section["ExecStartPre"]).wait(60) == 0
        self.running[service] = self._popen(section["ExecStart"])

    def _popen(self, command_line: str) -> subprocess.Popen[bytes]:
        command = shlex.split(command_line)
        assert command[0] == "/opt/llamactl/.venv/bin/python"
        with self.output.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *command[1:]],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def launch_all(self, web_folder: Path = UNITS) -> None:
        self.launch("broker")
        self.launch("worker")
        self.launch("web", web_folder)
        until(self.is_answering, "web answers", seconds=60)

    def end(self, service: str, number: signal.Signals = signal.SIGTERM) -> int:
        process = self.running.pop(service)
        process.send_signal(number)
        return process.wait(60)

    def end_all(self) -> None:
        for service in list(self.running):
            self.end(service)
        kill_all(self.processes())

    def is_answering(self) -> bool:
        try:
            return requests.get(f"{self.url}/healthz", timeout=1).ok
        except requests.RequestException:
            return False
