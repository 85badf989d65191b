"""The other proxies that llamactl is compared with, and the setup of each.

Each has its files in a temporary directory, listens on a free port of the loopback address and
forwards to the direct backend, with as many processes as llamactl has by default: one.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from bench.matrix import LITELLM
from bench.processes import tree
from bench.programs import running_program
from bench.systems import System, await_answer, free_port

LITELLM_VENV = Path(__file__).with_name(".litellm")
LITELLM_START_SECONDS = 120

NGINX_CONFIG = """\
daemon off;
{user}worker_processes 1;
worker_rlimit_nofile {files};
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_max_body_size 0;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  keepalive_requests 1000000000;
  upstream backend {{
    server {backend};
    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_request_buffering off;
    }}
  }}
}}
"""


def nginx_program() -> str | None:
    """nginx's path, also where a user's PATH does not have the administrator's directories."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def litellm_program(venv: Path) -> Path | None:
    """LiteLLM's program in its virtual environment, if it is there."""
    program = venv / "bin" / "litellm"
    return program if program.exists() else None


def versions(litellm_venv: Path) -> str:
    """Of the peers that are installed, to write down."""
    found = []
    if nginx := nginx_program():
        told = subprocess.run([nginx, "-v"], check=True, capture_output=True, text=True).stderr
        found.append(told.strip().rpartition(" ")[2].replace("/", " "))
    if litellm_program(litellm_venv):
        question = "from importlib.metadata import version; print(version('litellm'))"
        argv = [str(litellm_venv / "bin" / "python"), "-c", question]
        told = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        found.append(f"{LITELLM} {told.strip()}")
    return ", ".join(found)


def nginx_config(directory: Path, port: int, backend_url: str, *, files: int) -> str:
    """A plain reverse proxy: connections kept on both sides, nothing held back, nothing logged."""
    return NGINX_CONFIG.format(
        # Under root, nginx would run its workers as a user without access to our directory.
        user="user root;\n" if os.geteuid() == 0 else "",
        files=files,
        connections=files // 2,
        directory=directory,
        backend=urlsplit(backend_url).netloc,
        port=port,
    )


@contextmanager
def nginx_system(direct: System) -> Iterator[System]:
    """nginx without a check of keys. Raises RuntimeError when it is not there or does not start."""
    program = nginx_program()
    if program is None:
        raise RuntimeError("nginx is not on PATH; on Debian: apt install nginx-light")
    with tempfile.TemporaryDirectory(prefix="llamactl-bench-nginx-") as name:
        directory, port = Path(name), free_port()
        config = directory / "nginx.conf"
        config.write_text(nginx_config(directory, port, direct.base_url, files=65536))
        argv = [program, "-p", name, "-e", f"{directory}/start.log", "-c", str(config)]
        with running_program(argv, {}, directory, port, start_seconds=10) as process:
            yield _system("nginx", direct, port, "unused", process)


def litellm_config(direct: System, master_key: str) -> str:
    """LiteLLM's config.yaml (JSON is YAML): one model, no database, one key."""
    return json.dumps(
        {
            "model_list": [
                {
                    "model_name": direct.model,
                    "litellm_params": {
                        "model": f"openai/{direct.model}",
                        "api_base": f"{direct.base_url}/v1",
                        "api_key": "unused",
                    },
                }
            ],
            "general_settings": {"master_key": master_key},
            "litellm_settings": {"telemetry": False, "set_verbose": False},
        },
        indent=1,
    )


@contextmanager
def litellm_system(direct: System, venv: Path) -> Iterator[System]:
    """LiteLLM's proxy. Raises RuntimeError when it is not there or does not start."""
    program = litellm_program(venv)
    if program is None:
        raise RuntimeError(f"no LiteLLM in {venv}; `make bench-litellm` installs it there")
    with tempfile.TemporaryDirectory(prefix="llamactl-bench-litellm-") as name:
        directory, port = Path(name), free_port()
        config = directory / "config.yaml"
        master_key = f"sk-{secrets.token_hex(16)}"
        config.write_text(litellm_config(direct, master_key))
        argv = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        argv += ["--num_workers", "1"]
        environment = {
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the network for one
        }
        with running_program(
            argv, environment, directory, port, start_seconds=LITELLM_START_SECONDS
        ) as process:
            yield _system(LITELLM, direct, port, master_key, process)


def _system(name: str, direct: System, port: int, key: str, process: psutil.Process) -> System:
    url = f"http://127.0.0.1:{port}"
    system = System(name, url, (key,), direct.model, backend_url=direct.backend_url)
    await_answer(system, timeout_seconds=30)
    # Only now: a program may listen before it has made the processes that answer.
    return replace(system, processes={**direct.processes, "proxy": tree(process)})
