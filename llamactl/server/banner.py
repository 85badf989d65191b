"""Start banner, exposure warnings and example requests for the operator."""

from __future__ import annotations

import json
import shlex

from keys.secrets import management_keys
from llamactl.config import AppConfig
from llamactl.server.bootstrap import AdminAccount
from llamactl.server.foreground import SECONDS
from llamactl.server.sockets import is_loopback, local_host
from llamactl.version import VERSION

PLACEHOLDER_KEY = "YOUR_KEY"
"""Placeholder for a configured key, which is the operator's secret and is not printed."""

EXAMPLE_TOKENS = 100


def base_url(config: AppConfig) -> str:
    """URL of the web server, as reached from this machine."""
    return f"http://{local_host(config.server.host)}:{config.server.port}"


def banner(
    config: AppConfig,
    account: AdminAccount,
    *,
    keep_backends: bool,
    found: str = "",
) -> str:
    """Format the lines that are printed once web is ready, with a placeholder for the seconds.

    ``found`` is the importer's notice of a Go database, if there is one.
    """
    url = config.server.public_url or base_url(config)
    listening = "" if is_loopback(config.server.host) else f"  (listens on {config.server.host})"
    if config.server.public_url:
        listening = (
            f"  (by the reverse proxy; listens on {config.server.host}:{config.server.port})"
        )
    rows = [
        ("Web", f"{url}/{listening}"),
        ("Admin", f"{url}/admin/  {_login(account, config)}"),
        ("Key", _management_key(config)),
    ]
    if config.server.enable_swagger:
        rows.append(("API docs", f"{url}/docs"))
    rows += [
        ("Data", str(config.data_dir)),
        ("Stop", f"Ctrl-C (backends {'keep running' if keep_backends else 'are stopped too'})"),
    ]
    lines = [f"  {label + ':':<9} {text}" for label, text in rows]
    title = f"llamactl {VERSION} is ready ({SECONDS} s)"
    if found:
        lines += ["", f"  {found}"]
    return "\n".join(["", title, "", *lines, ""])


def exposure_warnings(config: AppConfig) -> list[str]:
    """Warn of APIs that are open to the network without a key; empty on a loopback address."""
    if is_loopback(config.server.host):
        return []
    apis = [
        (
            config.auth.require_management_auth,
            "start programs on this host",
            "require_management_auth",
        ),
        (config.auth.require_inference_auth, "use the models", "require_inference_auth"),
    ]
    return [
        f"WARNING: without a key, anyone who can connect to {config.server.host}:"
        f"{config.server.port} can {use}: auth.{setting} is false"
        for needs_key, use, setting in apis
        if not needs_key
    ]


def example_requests(config: AppConfig, *, model: str, prompt: str) -> str:
    """Format a request to ``model`` for a shell, and the same request for the openai package."""
    url = base_url(config)
    key = _example_key(config)
    # A base model may never end its text: it would fill its context.
    request: dict[str, object] = {"model": model, "max_tokens": EXAMPLE_TOKENS}
    request["messages"] = [{"role": "user", "content": prompt}]
    body = json.dumps({**request, "stream": True})
    curl = ["curl", "-N", f"{url}/v1/chat/completions", "-H", "Content-Type: application/json"]
    if config.auth.require_inference_auth:
        curl += ["-H", f"Authorization: Bearer {key}"]
    client = f'OpenAI(base_url="{url}/v1", api_key="{key}")'
    answer = f"client.chat.completions.create(**{json.dumps(request)}).choices[0].message.content"
    return "\n".join(
        [
            f"Let {model} continue a text:",
            "",
            shlex.join([*curl, "-d", body]),
            "",
            "or, with the openai package:",
            "",
            f"from openai import OpenAI; client = {client}",
            f"print({answer})",
            "",
        ]
    )


def _login(account: AdminAccount, config: AppConfig) -> str:
    """Name the account; its password is printed once, since terminals and journals are kept."""
    if account.password is None:
        return f"user {account.username}, password (changed)"
    if not account.is_new:
        return f"user {account.username}, password in {config.data_dir / 'admin_password'}"
    return f"user {account.username}, password {account.password}"


def _management_key(config: AppConfig) -> str:
    if not config.auth.require_management_auth:
        return "none needed (auth.require_management_auth is false)"
    if config.auth.management_keys:
        return "as configured (auth.management_keys)"
    return f"{_example_key(config)}  (management; stored in {config.data_dir / 'management_key'})"


def _example_key(config: AppConfig) -> str:
    """A working key for examples, or a placeholder where keys are configured."""
    if config.auth.management_keys:
        return PLACEHOLDER_KEY
    keys = management_keys(config)
    return keys[0] if keys else PLACEHOLDER_KEY
