"""What does an operator have to know once everything runs?"""

from __future__ import annotations

import json
import shlex

from keys.secrets import management_keys
from llamactl.config import AppConfig
from llamactl.server.bootstrap import AdminAccount
from llamactl.server.sockets import is_loopback, local_host
from llamactl.version import VERSION

PLACEHOLDER_KEY = "YOUR_KEY"
"""Stands for a configured key, which is the operator's secret and not repeated."""

EXAMPLE_TOKENS = 100


def base_url(config: AppConfig) -> str:
    """Where this machine reaches the web server."""
    return f"http://{local_host(config.server.host)}:{config.server.port}"


def banner(
    config: AppConfig, account: AdminAccount, *, start_seconds: float, keep_backends: bool
) -> str:
    """The lines to show once web answers."""
    url = base_url(config)
    everywhere = "" if is_loopback(config.server.host) else f"  (listens on {config.server.host})"
    rows = [
        ("Web", f"{url}/{everywhere}"),
        ("Admin", f"{url}/admin/  {_login(account)}"),
        ("Key", _management_key(config)),
    ]
    if config.server.enable_swagger:
        rows.append(("API docs", f"{url}/docs"))
    rows += [
        ("Data", str(config.data_dir)),
        ("Stop", f"Ctrl-C (backends {'keep running' if keep_backends else 'are stopped too'})"),
    ]
    lines = [f"  {label + ':':<9} {text}" for label, text in rows]
    title = f"llamactl {VERSION} is ready ({start_seconds:.1f} s)"
    return "\n".join(["", title, "", *lines, ""])


def exposure_warnings(config: AppConfig) -> list[str]:
    """What others on the network may do without a key; empty on a loopback address."""
    if is_loopback(config.server.host):
        return []
    open_sides = [
        (config.auth.require_management_auth, "start programs here", "require_management_auth"),
        (config.auth.require_inference_auth, "use the models here", "require_inference_auth"),
    ]
    return [
        f"WARNING: anyone who reaches {config.server.host}:{config.server.port} can {what}:"
        f" auth.{setting} is false"
        for is_closed, what, setting in open_sides
        if not is_closed
    ]


def examples(config: AppConfig, *, model: str, prompt: str) -> str:
    """A request to ``model`` to paste into a shell, and the same for the openai package."""
    url = base_url(config)
    key = _shown_key(config)
    # A model that never comes to an end by itself would fill its context.
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
            f"Let {model} go on with a text:",
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


def _login(account: AdminAccount) -> str:
    if account.password is None:
        return f"user {account.username}, password (changed)"
    return f"user {account.username}, password {account.password}"


def _management_key(config: AppConfig) -> str:
    if not config.auth.require_management_auth:
        return "none needed (auth.require_management_auth is false)"
    if config.auth.management_keys:
        return "as configured (auth.management_keys)"
    return f"{_shown_key(config)}  (management; kept in {config.data_dir / 'management_key'})"


def _shown_key(config: AppConfig) -> str:
    """A key for an example that works when pasted, as far as we may show one."""
    if config.auth.management_keys:
        return PLACEHOLDER_KEY
    keys = management_keys(config)
    return keys[0] if keys else PLACEHOLDER_KEY
