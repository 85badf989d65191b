"""A client of llamactl's management API."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any

import requests

TIMEOUT_SECONDS = 30
PROBE_SECONDS = 2


class ManagementApi:
    """A running llamactl, seen with its management key. Errors are RuntimeError with the answer."""

    def __init__(self, base_url: str, key: str) -> None:
        self._base_url = base_url
        self.key = key
        self._session = requests.Session()
        # A proxy named by the environment must not be used for the loopback address.
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {key}"

    def close(self) -> None:
        """Give the connections back."""
        self._session.close()

    def is_up(self) -> bool:
        """Whether it answers now; it may listen some time before it does."""
        try:
            url = f"{self._base_url}/api/v1/version"
            return self._session.get(url, timeout=PROBE_SECONDS).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    def create_instance(
        self, name: str, command: str, backend_options: Mapping[str, object] | None = None
    ) -> None:
        """Create an instance that runs the program `command`; "": llamactl's own choice."""
        options: dict[str, object] = {
            "backend_type": "llama_cpp",
            "backend_options": {"model": "none.gguf", **(backend_options or {})},
        }
        if command:
            options["command_override"] = command
        self._ask("POST", f"instances/{name}", options)

    def create_inference_key(self, name: str) -> str:
        """A key that may use every instance."""
        document = self._ask("POST", "auth/keys", {"name": name, "permission_mode": "allow_all"})
        return str(document["key"])

    def start_instance(self, name: str, *, timeout_seconds: float) -> int:
        """Start it and wait until it is ready; returns its backend's port, 0 if it is not told."""
        self.request_start(name)
        document = self._await_status(name, "running", timeout_seconds=timeout_seconds)
        options = document.get("options")
        backend_options = options.get("backend_options") if isinstance(options, dict) else None
        port = backend_options.get("port") if isinstance(backend_options, dict) else None
        return port if isinstance(port, int) else 0

    def request_start(self, name: str) -> None:
        """Ask for a start, and don't wait for it."""
        self._ask("POST", f"instances/{name}/start")

    def await_running(self, name: str, *, timeout_seconds: float) -> None:
        """Wait until it is ready."""
        self._await_status(name, "running", timeout_seconds=timeout_seconds)

    def stop_all(self, *, timeout_seconds: float) -> None:
        """Stop all running instances at once, and wait until their processes are gone."""
        found = self._ask_anything("GET", "instances")
        documents = found if isinstance(found, list) else []
        running = [each["name"] for each in documents if each.get("status") != "stopped"]
        for name in running:
            self._ask("POST", f"instances/{name}/stop")
        for name in running:
            self._await_status(name, "stopped", timeout_seconds=timeout_seconds)

    def stop_instance(self, name: str, *, timeout_seconds: float) -> None:
        """Stop it and wait until its process is gone."""
        self._ask("POST", f"instances/{name}/stop")
        self._await_status(name, "stopped", timeout_seconds=timeout_seconds)

    def _await_status(self, name: str, status: str, *, timeout_seconds: float) -> dict[str, object]:
        give_up_at = monotonic() + timeout_seconds
        while True:
            document = self._ask("GET", f"instances/{name}")
            if document.get("status") == status:
                return document
            if document.get("status") == "failed" or monotonic() > give_up_at:
                raise RuntimeError(f"instance {name} does not get {status}: {document}")
            sleep(0.1)

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, object]:
        document = self._ask_anything(method, path, body)
        if not isinstance(document, dict):
            raise RuntimeError(f"{method} {path}: not an object: {document!r:.500}")
        return document

    def _ask_anything(self, method: str, path: str, body: object = None) -> Any:
        url = f"{self._base_url}/api/v1/{path}"
        try:
            response = self._session.request(method, url, json=body, timeout=TIMEOUT_SECONDS)
        except requests.RequestException as error:
            raise RuntimeError(f"{method} {path}: {error}") from error
        if not response.ok:
            raise RuntimeError(f"{method} {path}: {response.status_code} {response.text[:500]}")
        return response.json()
