"""What the benchmark asks of llamactl's management API."""

from __future__ import annotations

from time import monotonic, sleep

import requests

TIMEOUT_SECONDS = 30
PROBE_SECONDS = 2


class ManagementApi:
    """A running llamactl, seen with its management key. Errors are RuntimeError with the answer."""

    def __init__(self, base_url: str, key: str) -> None:
        self._base_url = base_url
        self._session = requests.Session()
        # Whatever proxy the environment names is not between us and the loopback address.
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

    def create_instance(self, name: str, command: str) -> None:
        """An instance whose program is `command`."""
        options = {
            "backend_type": "llama_cpp",
            "backend_options": {"model": "none.gguf"},
            "command_override": command,
        }
        self._ask("POST", f"instances/{name}", options)

    def create_inference_key(self, name: str) -> str:
        """A key that may use every instance."""
        document = self._ask("POST", "auth/keys", {"name": name, "permission_mode": "allow_all"})
        return str(document["key"])

    def start_instance(self, name: str, *, timeout_seconds: float) -> int:
        """Start it and wait until it is ready; returns its backend's port, 0 if it is not told."""
        self._ask("POST", f"instances/{name}/start")
        document = self._await_status(name, "running", timeout_seconds=timeout_seconds)
        options = document.get("options")
        backend_options = options.get("backend_options") if isinstance(options, dict) else None
        port = backend_options.get("port") if isinstance(backend_options, dict) else None
        return port if isinstance(port, int) else 0

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
        url = f"{self._base_url}/api/v1/{path}"
        try:
            response = self._session.request(method, url, json=body, timeout=TIMEOUT_SECONDS)
        except requests.RequestException as error:
            raise RuntimeError(f"{method} {path}: {error}") from error
        if not response.ok:
            raise RuntimeError(f"{method} {path}: {response.status_code} {response.text[:500]}")
        document = response.json()
        if not isinstance(document, dict):
            raise RuntimeError(f"{method} {path}: not an object: {response.text[:500]}")
        return document
