"""Secrets are masked under the same names in every place that shows names and values."""

from __future__ import annotations

import json
import logging
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from instances import lifecycle
from instances.backends.registry import BACKENDS
from instances.dry_run import dry_run_create
from instances.supervisor.controller import spawn
from instances.supervisor.process.markers import Marker
from llamactl.config import current, explain
from llamactl.config.explain import redacted
from llamactl.doctor.diagnosis import problem, to_json, to_lines
from llamactl.masking import (
    MASK,
    is_secret_name,
    mask_arguments,
    mask_command,
    mask_document,
    mask_log_line,
    mask_secrets,
    mask_text,
    mask_url,
    secret_values,
)
from tests.instances.test_dry_run import row_of
from tests.llamactl.config.conftest import Load, Refuse, load_config, refuse

__all__ = ["load_config", "refuse"]

SECRET_NAMES = [
    *("API_KEY", "api-key", "apiKey", "APIKey", "apikey", "api_keys", "X-API-Key", "OPENAI_KEY_2"),
    *("HF_TOKEN", "hf.token", "accessToken", "NGROK_AUTHTOKEN", "TOKEN_GITHUB", "hft"),
    *(
        "DB_PASS",
        "PGPASSWORD",
        "MYSQL_PWD",
        "passphrase",
        "DB_PASSWD",
        "sslpassword",
        "my-password",
    ),
    *("BASIC_AUTH", "Authorization", "Proxy-Authorization", "REDISCLI_AUTH", "oauth"),
    *("client_secret", "SECRETS", "AWS_SECRET_ACCESS_KEY", "credentials", "X-Amz-Credential"),
    *("Cookie", "Set-Cookie", "BEARER", "PRIVATE_KEY", "SENTRY_DSN", "X-Amz-Signature"),
]
HARMLESS_NAMES = [
    *("max_tokens", "max_prompt_adapter_token", "max-num-batched-tokens", "spec_tokens"),
    *("long_prefill_token_threshold", "dbo-decode-token-threshold", "enable_token_usage"),
    *("return_tokens_as_token_ids", "eos_token_id", "tokenizer.ggml.add_bos_token"),
    *("tokenizer", "tokenizer_mode", "skip_tokenizer_init", "keep", "keyboard", "author"),
    *("api_key_file", "ssl_keyfile", "SSL_KEY_PATH", "SECRET_NAME", "AUTH_TYPE"),
    *("cors_credentials", "no-cors-credentials", "allow_credentials", "require_auth"),
    *("bypass", "model", "OMP_NUM_THREADS", "compass", "", "-", "8080"),
]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_name_of_a_secret(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", HARMLESS_NAMES)
def test_name_of_something_harmless(name: str) -> None:
    assert not is_secret_name(name)


def test_of_the_backends_flags_the_secret_ones_alone_have_secret_names() -> None:
    for backend in BACKENDS.values():
        for flag in backend.table.flags.values():
            assert is_secret_name(flag.name) == flag.secret, flag.name


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgres://u:p@h/d", "postgres://u:***@h/d"),
        ("postgres://u:p@ss/w:o?r#d@h/d", "postgres://u:***@h/d"),
        ("postgres://u@h/d", "postgres://u@h/d"),
        ("redis://:p@h:1/0", "redis://:***@h:1/0"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("unix:///run/v.sock?password=p&db=1", "unix:///run/v.sock?password=***&db=1"),
        ("unix://u:p@/run/v.sock?db=1", "unix://u:***@/run/v.sock?db=1"),
        ("https://ghp_1@github.com/a/b", "https://***@github.com/a/b"),
        (
            "https://h/m?X-Amz-Signature=s&max_tokens=5",
            "https://h/m?X-Amz-Signature=***&max_tokens=5",
        ),
        ("https://h/#access_token=t", "https://h/#access_token=***"),
        ("https://h/?token=", "https://h/?token="),
    ],
)
def test_urls_keep_all_but_passwords_and_secret_parameters(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@pytest.mark.parametrize("unit", ["://a:", "://", "a", "a?b=c", "http://a", "@"])
@pytest.mark.parametrize("mask", [mask_url, mask_text, lambda word: mask_arguments([word])])
def test_masking_takes_linear_time(mask: Callable[[str], object], unit: str) -> None:
    # A client may send 2 MiB; a pattern that searches to the end from each place takes minutes.
    before = time.thread_time()
    mask(unit * (300_000 // len(unit)))
    assert time.thread_time() - before < 1


def test_an_argument_that_is_nested_too_deep_is_hidden() -> None:
    for depth in (5_000, 900, 400):
        word = '{"a":' * depth + '{"api_key":"sesame"}' + "}" * depth
        assert "sesame" not in mask_arguments(["--json", word])[1]
        assert "sesame" not in mask_command([f"--json={word}"])


def test_urls_in_a_sentence_are_masked_one_by_one() -> None:
    text = "from redis://:p@h:1 to http://127.0.0.1:8080, mail me@example.com"
    assert mask_text(text) == "from redis://:***@h:1 to http://127.0.0.1:8080, mail me@example.com"


@pytest.mark.parametrize(
    ("arguments", "masked"),
    [
        ("--api-key k -v", "--api-key *** -v"),
        ("--api-key=k", "--api-key=***"),
        ("--api_key k", "--api_key ***"),
        ("--hf-token t", "--hf-token ***"),
        ("--db-pass p --basic-auth u:p", "--db-pass *** --basic-auth ***"),
        ("run -e A=b --env C=d image", "run -e A=*** --env C=*** image"),
        ("run --env=E=f -e NAME image", "run --env=E=*** -e NAME image"),
        ("--api-key --port 1", "--api-key --port 1"),
        ("-hft t --port 1", "-hft *** --port 1"),
        ("-hft=t", "-hft=***"),
        (
            "run -eG=h -e=I=j -e AWS_SECRET_ACCESS_KEY=k",
            "run -eG=*** -e=I=*** -e AWS_SECRET_ACCESS_KEY=***",
        ),
        ("run --env=HF_TOKEN=t=u", "run --env=HF_TOKEN=***"),
        (
            "--db postgres://u:p@h/d --mu https://h/m?token=t",
            "--db postgres://u:***@h/d --mu https://h/m?token=***",
        ),
        ("-e --alias A=b", "-e --alias A=b"),
        ("--api-key --token x", "--api-key --token ***"),
        ("--api-key -token x", "--api-key *** x"),
        ("--api-key-file /k --keep 5", "--api-key-file /k --keep 5"),
        (
            "--max-prompt-adapter-token 5 --max-tokens 6",
            "--max-prompt-adapter-token 5 --max-tokens 6",
        ),
        ("--cors-credentials -m m", "--cors-credentials -m m"),
        ("--override-kv tokenizer.ggml.add_bos_token=bool:false",) * 2,
        ("-H 'X-API-Key: k'", "-H 'X-API-Key: ***'"),
        ("""--config '{"token": "t", "n": 1}'""", """--config '{"token": "***", "n": 1}'"""),
        ("""--config='{"token": "t"}'""", """--config='{"token": "***"}'"""),
        ("""--config '{"n":1}' '{broken'""",) * 2,
    ],
)
def test_arguments_keep_all_but_secret_values(arguments: str, masked: str) -> None:
    assert mask_arguments(shlex.split(arguments)) == shlex.split(masked)


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["a", "--model", "my model"], "a --model 'my model'"),
        (["a", "--hf-token", "-s3cret"], "a --hf-token ***"),
        (["docker", "-e", "FOO=s3 cret"], "docker -e FOO=***"),
        (["a", "--model-url", "https://u:s3cret@h/m"], "a --model-url 'https://u:***@h/m'"),
    ],
)
def test_a_masked_command_is_quoted_for_a_shell(argv: list[str], shown: str) -> None:
    assert mask_command(argv) == shown


def test_documents_are_masked_below_secret_names() -> None:
    document = {
        "api_key": ["a", "", None],
        "password": 1234,
        "credentials": {"user": "u"},
        "model": "x",
        "max_tokens": 3,
        "auth": True,
        "proxy": ["http://u:p@h"],
    }
    assert mask_document(document) == {
        "api_key": ["***", "", None],
        "password": "***",
        "credentials": {"user": "***"},
        "model": "x",
        "max_tokens": 3,
        "auth": True,
        "proxy": ["http://u:***@h"],
    }


# -- each place that shows names and values -------------------------------------------------------

SECRET_VARIABLES = [name for name in SECRET_NAMES if name.replace("_", "").isalnum()]
HARMLESS_VARIABLES = [name for name in HARMLESS_NAMES if name.replace("_", "").isalpha()]
NAMES = [(name, "s3cret") for name in SECRET_VARIABLES] + [
    (name, "harmless") for name in HARMLESS_VARIABLES
]


def assert_masked(text: str) -> None:
    """``text`` shows the values of ``HARMLESS_VARIABLES``, and no other."""
    assert "s3cret" not in text
    assert text.count("harmless") == len(HARMLESS_VARIABLES)


def as_arguments() -> list[str]:
    return [word for name, value in NAMES for word in (f"--{name}", value)]


@pytest.mark.django_db
def test_dry_run_masks_environment_and_arguments() -> None:
    dry_run = dry_run_create("x", {"environment": dict(NAMES)})
    assert_masked(json.dumps(dry_run.environment))
    assert_masked(dry_run.command_line)


@pytest.mark.django_db
def test_a_viewer_of_the_admin_sees_no_value_of_an_environment(client: Client) -> None:
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_instance"))
    client.force_login(user)
    instance = lifecycle.create("x", {"environment": dict(NAMES)}, cause="test")
    page = client.get(reverse("admin:instances_instance_change", args=[instance.pk]))
    document = page.content.decode().partition('<pre class="log">')[2].partition("</pre>")[0]
    assert all(name in document for name, _ in NAMES)
    assert "s3cret" not in page.content.decode()
    assert "harmless" not in page.content.decode()


def test_configuration_masks_arguments_and_headers(load_config: Load) -> None:
    vllm = {"args": as_arguments(), "response_headers": dict(NAMES)}
    config = load_config(json.dumps({"backends": {"vllm": vllm}}))
    backends = redacted(config)["backends"]
    assert isinstance(backends, dict)
    shown = {key: value for key, value, _ in explain.values(config)}
    for part in ("args", "response_headers"):
        assert_masked(json.dumps(backends["vllm"][part]))
        assert_masked(shown[f"backends.vllm.{part}"])


def test_configuration_shows_no_bad_value_of_a_secret(refuse: Refuse) -> None:
    error = refuse("nodes: {w: {api_key: [s3cret]}}\nredis: {url: 's3cret://'}\nserver: {port: p}")
    assert "s3cret" not in str(error)
    assert "server.port is 'p'" in str(error)


def test_doctor_masks_urls_in_its_findings() -> None:
    url = "https://h/?" + "&".join(f"{name}={value}" for name, value in NAMES)
    finding = problem("broker", f"{url} does not answer", f"is {url} right?")
    for lines in (to_lines(finding), to_json([finding]).splitlines()):
        assert_masked(next(line for line in lines if "does not answer" in line))
        assert_masked(next(line for line in lines if "right?" in line))


@pytest.mark.django_db
def test_log_of_a_start_masks_the_command(caplog: pytest.LogCaptureFixture) -> None:
    row = row_of(lifecycle.create("x", {"command_override": "/bin/true"}, cause="test"))
    plan = spawn.plan(row, current(), "key")
    plan = replace(plan, launch=replace(plan.launch, argv=("/bin/true", *as_arguments())))
    with caplog.at_level(logging.INFO):
        process = spawn.carry_out(plan, current(), Marker("n", "x", "launch"))
    os.waitpid(process.pid, 0)
    os.close(process.fileno())
    assert_masked(next(line for line in caplog.messages if "/bin/true" in line))


def test_each_of_several_keys_after_one_flag_is_masked() -> None:
    words = ["vllm", "serve", "m", "--api-key", "k1", "k2", "-k3", "--dtype", "half"]
    masked = ["vllm", "serve", "m", "--api-key", MASK, MASK, "-k3", "--dtype", "half"]
    assert mask_arguments(words) == masked
    assert "k2" not in mask_command(words)


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("HF_TOKEN=abcdef", f"HF_TOKEN={MASK}"),
        ("export API_KEY='a b c' && x", f"export API_KEY={MASK} && x"),
        ("using --api-key abc123 --port 8000", f"using --api-key {MASK} --port 8000"),
        ('{"api_key": "sesame", "a": 1}', f'{{"api_key": {MASK}, "a": 1}}'),
        ("Authorization: Bearer abcdefgh", f"Authorization: Bearer {MASK}"),
        ("401 for hf_abcdefghij (gated)", f"401 for {MASK} (gated)"),
        ("https://me:pw@host/x?token=abc failed", f"https://me:{MASK}@host/x?token={MASK} failed"),
    ],
)
def test_log_line_shows_no_secret(line: str, masked: str) -> None:
    assert mask_log_line(line) == masked


@pytest.mark.parametrize(
    "line",
    [
        "print_info: BOS token        = 2 '<bos>'",
        "E llama_model_load: error loading model: failed to open GGUF file '/x.gguf'",
        "load_tensors: offloaded 19/19 layers to GPU, max_tokens=5",
        "no such device",
    ],
)
def test_log_line_without_a_secret_stays(line: str) -> None:
    assert mask_log_line(line) == line


def test_secrets_of_a_document_are_those_below_a_secret_name() -> None:
    document = {"environment": {"HF_TOKEN": "sesame1", "A": "harmless"}, "api_key": ["k" * 9, "k"]}
    assert list(secret_values(document)) == ["sesame1", "k" * 9]
    # It should leave no end of a longer secret.
    assert mask_secrets("x sesame12 sesame1", ["sesame1", "sesame12"]) == f"x {MASK} {MASK}"
