"""The embedded llama.cpp server: its flags, its failures, and real runs with a real model."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import xllamacpp

from instances.backends.embedded import PROGRAM, explanations, inner
from instances.backends.embedded import __main__ as program
from instances.backends.embedded.arguments import BY_NAME, FLAGS, parse
from instances.backends.embedded.kinds import KINDS, SWITCH
from instances.backends.embedded.setters import SETTERS
from instances.backends.embedded.start_error import StartError
from tests.support.stack import free_port

COMMAND = [sys.executable, "-I", str(PROGRAM)]
KEY = "key-of-the-instance"


def apply(*arguments: str, **environ: str) -> Any:
    """The parameters that these arguments lead to."""
    params = xllamacpp.CommonParams()
    for setting in parse(arguments, environ):
        setting.apply(params)
    return params


def refusal(*arguments: str, **environ: str) -> str:
    with pytest.raises(StartError) as caught:
        apply(*arguments, **environ)
    return str(caught.value)


# Flags


def test_names_aliases_and_spellings_mean_the_same() -> None:
    for arguments in (
        ("--ctx-size", "4096"),
        ("-c", "4096"),
        ("--ctx-size=4096",),
        ("--ctx_size", "4096"),
        ("-c", "1", "--ctx-size", "4096"),
    ):
        assert apply(*arguments).n_ctx == 4096, arguments


def test_values_may_begin_with_a_dash_or_hold_an_equals_sign() -> None:
    assert apply("--predict", "-1", "-n=-2").n_predict == -2
    assert apply("--seed", "-1").sampling.seed == 2**32 - 1
    assert apply("--chat-template", "--x--").chat_template == "--x--"
    assert apply("--chat-template={% set a = 1 %}").chat_template == "{% set a = 1 %}"


def test_switches_go_off_by_name_and_by_value() -> None:
    assert apply().endpoint_slots
    assert not apply("--no-slots").endpoint_slots
    assert not apply("--slots=off").endpoint_slots
    assert apply("--no-slots", "--slots").endpoint_slots
    assert apply("--no-kv-offload").no_kv_offload
    assert not apply("-nkvo", "-kvo").no_kv_offload


def test_environment_counts_until_the_command_line_says_otherwise() -> None:
    assert apply(LLAMA_ARG_CTX_SIZE="512").n_ctx == 512
    assert apply("-c", "1024", LLAMA_ARG_CTX_SIZE="512").n_ctx == 1024
    assert not apply(LLAMA_ARG_NO_JINJA="1").use_jinja
    assert not apply(LLAMA_ARG_JINJA="false").use_jinja


def test_api_keys_add_up(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# ours\nthree\n\nfour\n")
    params = apply("--api-key", "two", "--api-key-file", str(keys), LLAMA_API_KEY="zero,one")
    assert params.api_keys == ["zero", "one", "two", "three", "four"]


def test_lists_and_arrays() -> None:
    assert apply("--alias", "a, b", "-a", "c").model_alias == {"a", "b", "c"}
    assert apply("--host", "127.0.0.1,::1").hostnames == ["127.0.0.1", "::1"]
    assert apply("--tensor-split", "3,1").tensor_split[:3] == [3.0, 1.0, 0.0]
    assert apply("--fit-target", "512").fit_params_target[:2] == [2**29, 2**29]
    assert apply("--fit-target", "1,2").fit_params_target[:3] == [2**20, 2**21, 2**30]
    assert "at most" in refusal("--tensor-split", ",".join(["1"] * 200))
    adapters = apply("--lora", "/a,/b", "--lora-scaled", "/c:0.5").lora_adapters
    assert [(adapter.path, adapter.scale) for adapter in adapters] == [
        ("/a", 1.0),
        ("/b", 1.0),
        ("/c", 0.5),
    ]


def test_flags_that_mean_more_than_one_parameter() -> None:
    assert apply("--ctx-size", "0").fit_params_min_ctx == -1
    assert apply("--reranking").embedding
    assert apply("--reranking").pooling_type.name == "LLAMA_POOLING_TYPE_RANK"
    assert apply("--timeout", "7").timeout_write == apply("-to", "7").timeout_read == 7
    assert apply("--repeat-last-n", "100").sampling.n_prev == 100
    assert apply("--cpu-moe").tensor_buft_overrides.endswith("exps=CPU")
    assert apply("--n-cpu-moe", "2").tensor_buft_overrides.count("=CPU") == 2
    assert apply("--top-k", "5").sampling.user_sampling_config > 0
    assert apply("--threads", "0").cpuparams.n_threads == os.cpu_count()
    assert apply("--gpu-layers", "all").n_gpu_layers == -2
    assert apply("--temp", "-1").sampling.temp == 0
    assert apply("--rope-scale", "4").rope_freq_scale == 0.25
    assert apply("--verbose").verbosity > apply().verbosity
    assert apply("--sampler-seq", "kt").sampling.samplers == "top_k;temperature"
    assert "object" in apply("-j", '{"type": "object"}').sampling.grammar.grammar


def test_arguments_of_the_chat_template() -> None:
    params = apply(
        "--chat-template-kwargs", '{"a": [1]}', "--reasoning", "off", "--reasoning-effort", "low"
    )
    assert params.default_template_kwargs == {
        "a": "[1]",
        "enable_thinking": "false",
        "reasoning_effort": '"low"',
    }
    effort = ("--reasoning-effort", "low", "--reasoning-effort", "default")
    assert apply(*effort).default_template_kwargs == {}


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        ((), "AUTO"),
        (("--no-mmap",), "NONE"),
        (("--mlock",), "MMAP_MLOCK"),
        (("--no-mmap", "--mlock"), "MLOCK"),
        (("--mlock", "--no-mmap"), "MLOCK"),
        (("--direct-io",), "DIRECT_IO"),
        (("--load-mode", "mmap+mlock"), "MMAP_MLOCK"),
    ],
)
def test_old_and_new_ways_to_say_how_a_model_is_loaded(
    arguments: tuple[str, ...], mode: str
) -> None:
    assert apply(*arguments).load_mode.name == f"LLAMA_LOAD_MODE_{mode}"


def test_flash_attention_alone_means_on_as_it_once_did() -> None:
    for arguments in (("-fa",), ("-fa", "on"), ("--flash-attn", "--metrics"), ("-fa=on",)):
        assert apply(*arguments).flash_attn_type.name == "LLAMA_FLASH_ATTN_TYPE_ENABLED"
    assert apply("-fa", "off").flash_attn_type.name == "LLAMA_FLASH_ATTN_TYPE_DISABLED"


def test_flags_without_effect_are_taken_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    apply("--defrag-thold", "0.1")
    assert "--defrag-thold has no effect" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-c", "abc"), "invalid value for -c: 'abc' must be a whole number"),
        (("--port", "70000"), "invalid value for --port: '70000' must be a whole number from 0 to"),
        (("--temp", "nan"), "invalid value for --temp: 'nan' must be a number"),
        (("--parallel", "0"), "invalid value for --parallel: '0' must be -1 or"),
        (("--pooling", "avg"), "'avg' must be one of none, mean, cls, last, rank"),
        (("--cache-type-k=q9",), "'q9' must be one of f32, f16"),
        (("--slots=maybe",), "'maybe' must be on or off"),
        (("--slot-save-path", "/none"), "'/none' must be an existing directory"),
        (("--chat-template-file", "/none"), "'/none' must be a text file that can be read"),
        (("--chat-template-kwargs", "[]"), "'[]' must be a JSON object"),
        (("--lora-scaled", "/a"), "'/a' must be a comma-separated list, each FILE:SCALE"),
        (("--override-tensor", "x=Nowhere"), "invalid value for --override-tensor: unknown"),
        (("--json-schema", "{bad"), "invalid value for --json-schema: json_schema"),
        (("--spec-type", "magic"), "each one of none, draft-simple"),
        (("--model",), "--model needs a value, which must be a text"),
        (("--foo",), "unknown argument: --foo"),
        (("--ctx-siz", "1"), "unknown argument: --ctx-siz (did you mean --ctx-size?)"),
        (("stray",), "unknown argument: stray"),
        (("---model", "x"), "unknown argument: ---model"),
    ],
)
def test_refusal_names_flag_value_and_rule(arguments: tuple[str, ...], told: str) -> None:
    assert told in refusal(*arguments)


def test_refusal_names_the_variable() -> None:
    assert refusal(LLAMA_ARG_PORT="x").startswith("invalid value for LLAMA_ARG_PORT: 'x' must")


def test_unknown_flag_says_where_all_flags_are() -> None:
    assert refusal("--foo").endswith("install llama-server or set backends.llama-cpp.command.")


def test_table_is_sound() -> None:
    names = [name for flag in FLAGS for name in (*flag.names, *flag.off)]
    assert len(names) == len(set(names)) == len(BY_NAME)
    variables = [flag.variable for flag in FLAGS if flag.variable]
    assert len(variables) == len(set(variables))
    assert {id(flag.kind) for flag in FLAGS} == {id(kind) for kind in KINDS.values()}
    assert {flag.setter for flag in FLAGS} >= set(SETTERS.values())
    assert all(any(name.startswith("--") for name in flag.names) for flag in FLAGS)


SAMPLES = {
    "on-off": "off",
    "file": "{file}",
    "path": "{file}",
    "keys": "{file}",
    "folder": "{folder}",
    "object": '{"a": 1}',
    "heat": "0.3",
    "number": "0.5",
    "above-0": "0.5",
    "letters": "kt",
    "scaled": "/a:0.5",
    "three-way": "on",
    "flash": "on",
    "cache": "q8_0",
    "pooling": "mean",
    "rope": "yarn",
    "split": "row",
    "load": "mmap",
    "lazy": "on",
    "numa": "isolate",
    "priority": "2",
    "thinking": "none",
    "speculation": "ngram-simple",
    "layers": "all",
}
"""A value for each kind, where 7 will not do."""
SAMPLES_OF_FLAGS = {
    "--override-tensor": "x=CPU",
    "--spec-draft-override-tensor": "x=CPU",
    "--spec-draft-device": "none",
    "--mmproj-device": "none",
    "--json-schema": "{}",
    "--json-schema-file": "{schema}",
    "--samplers": "top_k",
}


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.names[-1])
def test_every_flag_is_taken_by_the_parameters(flag: Any, tmp_path: Path) -> None:
    files = {"{file}": tmp_path / "file", "{schema}": tmp_path / "x.json", "{folder}": tmp_path}
    files["{file}"].write_text('root ::= "a"')
    files["{schema}"].write_text("{}")
    kind = next(name for name, kind in KINDS.items() if kind is flag.kind)
    wanted = next(
        (SAMPLES_OF_FLAGS[name] for name in flag.names if name in SAMPLES_OF_FLAGS),
        SAMPLES.get(kind, "7"),
    )
    value = str(files.get(wanted, wanted))
    for name in flag.names:
        apply(name) if flag.kind is SWITCH else apply(name, value)
    for name in flag.off:
        apply(name)
    if flag.variable:
        apply(**{flag.variable: "on" if flag.kind is SWITCH else value})


# The program, without a model


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env=environ,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def last_line(*arguments: str, **environ: str) -> str:
    """The last line of a run that fails, which is where the reason must be."""
    ended = run(*arguments, **environ)
    assert ended.returncode == 1, ended
    return ended.stderr.splitlines()[-1]


def test_help_version_and_devices() -> None:
    assert "--ctx-size" in run("--help").stdout
    assert run("--version").stdout.startswith(f"version: xllamacpp {xllamacpp.__version__}")
    assert run("--list-devices").stdout.startswith("Available devices:\n  ")


def test_start_without_a_model_is_refused() -> None:
    assert last_line().startswith("error: no model given")
    assert last_line("--model-url", "http://127.0.0.1:9/x").startswith("error: no model given")


def test_unknown_flag_ends_the_program_with_code_1() -> None:
    assert last_line("--model", "x", "--foo").startswith("error: unknown argument: --foo")


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """A file that passes for a model until llama.cpp reads it."""
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    return file


@pytest.mark.parametrize("flag", ["--mmproj", "--model-draft", "--lora"])
def test_each_model_file_is_looked_at(flag: str, gguf: Path) -> None:
    line = last_line("--model", str(gguf), flag, "/none.gguf")
    assert line == "error: model file not found: /none.gguf. Check the path."


def test_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    assert f"model file is no GGUF file: {text}" in last_line("--model", str(text))
    assert "model file can't be read" in last_line("--model", str(tmp_path))


def test_port_that_is_taken_is_told(gguf: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = last_line("--model", str(gguf), "--port", str(port))
    assert line.startswith(f"error: port in use: 127.0.0.1 port {port}")


def test_host_that_is_not_ours_is_told(gguf: Path) -> None:
    line = last_line("--model", str(gguf), "--host", "192.0.2.1")
    assert line.startswith("error: cannot listen on 192.0.2.1 port 8080")


def test_damaged_model_is_told_after_the_lines_of_llama_cpp(gguf: Path) -> None:
    ended = run("--model", str(gguf), "--port", str(free_port()))
    assert ended.returncode == 1
    lines = ended.stderr.splitlines()
    assert any("error loading model" in line for line in lines[:-1])
    assert lines[-1].startswith(f"error: model file can't be loaded: {gguf}")


def test_reason_is_last_although_llama_cpp_prints_later(gguf: Path) -> None:
    # llama.cpp's own output is buffered: it lists the buffer types after our line.
    line = last_line("-m", str(gguf), "--port", str(free_port()), "--override-tensor", "a=B")
    assert line == "error: invalid value for --override-tensor: unknown buffer type."


# Parts of the program


@pytest.mark.parametrize(
    ("tail", "status", "code", "told"),
    [
        ("E ggml_aligned_malloc: insufficient memory (attempted …)\n", 1, 1, "out of memory"),
        ("GGML_ASSERT(ctx->mem_buffer != NULL) failed\n", -6, 134, "out of memory"),
        ("couldn't bind HTTP server socket, hostname: ::1, port: 80\n", 1, 1, "port in use: ::1"),
        ("unknown model architecture: 'new'\n", 1, 1, "architecture new"),
        ("I ready\n", -9, 137, "killed by SIGKILL, possibly by the system"),
        ("I ready\n", -11, 139, "killed by SIGSEGV"),
        ("I half a li", 1, 1, "the server ended; the lines above say why"),
        ("error: bad\nlate output\n", 1, 1, "bad"),
        ("", 1, 1, "the server ended"),
    ],
)
def test_failure_ends_with_a_reason(
    tail: str, status: int, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explanations.explain(tail, status) == code
    log = tail + capsys.readouterr().err
    last = log.splitlines()[-1]
    assert last.startswith("error: ")
    assert told in last


def test_reason_that_stands_there_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert explanations.explain("error: bad\n", 1) == 1
    assert explanations.explain("I stopped\n", 0) == 0
    assert capsys.readouterr().err == ""


def test_log_that_can_not_be_written_stops_nothing() -> None:
    source, writer = os.pipe()
    reader, sink = os.pipe()
    os.close(reader)
    os.write(writer, b"first\nlast\n")
    os.close(writer)
    assert program.pass_through(source, sink) == "first\nlast\n"
    os.close(source)
    os.close(sink)


def test_inner_process_ends_with_its_standard_input_or_its_http_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inner, "PROBE_SECONDS", 0.01)
    reader, writer = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert not inner.is_refused(address)
    assert inner.is_refused(address)
    assert inner.is_refused("unix:///none.sock")
    assert inner.wait_for_end(reader, address) == 1
    os.close(writer)
    assert inner.wait_for_end(reader, address) == 0
    os.close(reader)


# Real runs


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def ask(
        self, path: str, body: Mapping[str, Any] | None = None, key: str = KEY
    ) -> tuple[int, str]:
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 40
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"not {what}: {self.log.read_text()}"
            time.sleep(0.02)

    def wait_until_ready(self) -> None:
        self.wait_until(lambda: self.ask("/health")[0] == 200, "ready")

    def wait_until_loading(self) -> None:
        self.wait_until(lambda: "loading model" in self.log.read_text(), "loading")

    def stop(self, number: int) -> tuple[int, float]:
        """The exit code, and how many seconds it took."""
        begin = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(30), time.monotonic() - begin


@pytest.fixture(scope="module")
def start(
    gemma_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Server]]:
    """Start a server on the real model; whatever runs in the end is killed."""
    with contextlib.ExitStack() as cleanup:

        def start(*arguments: str, **options: Any) -> Server:
            port = free_port()
            log = tmp_path_factory.mktemp("embedded") / "log"
            command = [*COMMAND, "-m", str(gemma_model), "--port", str(port), "-t", "1", *arguments]
            with log.open("wb") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={"PATH": os.environ["PATH"], "LLAMA_API_KEY": KEY},
                    start_new_session=True,
                    **options,
                )
            cleanup.callback(process.wait)
            cleanup.callback(process.kill)
            return Server(process, f"http://127.0.0.1:{port}", log)

        yield start


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Server:
    server = start("-c", "2048", "--metrics", "--props", "--alias", "gemma")
    seen: list[int] = []

    def is_ready() -> bool:
        seen.append(server.ask("/health")[0])
        return seen[-1] == 200

    server.wait_until(is_ready, "ready")
    # It should answer while it loads: not yet listening, then loading, then ready.
    assert set(seen) <= {0, 503, 200}
    assert 503 in seen
    return server


MESSAGES = [{"role": "user", "content": "Say hello."}]


@pytest.mark.llama_cpp
def test_whole_api_of_llama_server_is_there(server: Server) -> None:
    for path, body, told in (
        ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 4}, '"model":"gemma"'),
        ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 4, "stream": True}, "[DONE]"),
        ("/v1/completions", {"prompt": "The sky", "max_tokens": 4}, '"choices"'),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 4}, '"type":"message"'),
        ("/tokenize", {"content": "hello"}, '"tokens"'),
        ("/apply-template", {"messages": MESSAGES}, "Say hello."),
        ("/v1/models", None, "gemma"),
        ("/metrics", None, "llamacpp:prompt_tokens_total"),
        ("/slots", None, '"n_ctx":2048'),
        # llama-server's default of four slots with one context
        ("/props", None, '"total_slots":4'),
    ):
        status, text = server.ask(path, body)
        assert status == 200, (path, text)
        assert told in text, (path, text)


@pytest.mark.llama_cpp
def test_key_comes_by_the_environment_and_stays_there(server: Server) -> None:
    assert server.ask("/v1/models", key="wrong")[0] == 401
    assert server.ask("/props")[0] == 200
    processes = [psutil.Process(server.process.pid)]
    processes += processes[0].children()
    assert len(processes) == 2
    assert all(KEY not in " ".join(process.cmdline()) for process in processes)
    assert KEY not in server.log.read_text()


@pytest.mark.llama_cpp
def test_stop_in_the_midst_of_a_stream(start: Callable[..., Server]) -> None:
    server = start("-c", "2048")
    server.wait_until_ready()
    body = {"prompt": "a", "max_tokens": 2000, "stream": True, "ignore_eos": True}
    request = urllib.request.Request(
        f"{server.url}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.read(20)
        code, seconds = server.stop(signal.SIGINT)
    assert code == 0
    assert seconds < 10
    assert server.log.read_text().endswith("stopped by SIGINT\n")


@pytest.mark.llama_cpp
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_while_the_model_loads(start: Callable[..., Server], number: int) -> None:
    # It should also be so where SIGINT came ignored, as in a shell's background job.
    server = start(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    server.wait_until_loading()
    code, seconds = server.stop(number)
    assert code == 0
    assert seconds < 10
    assert server.ask("/health")[0] == 0


@pytest.mark.llama_cpp
def test_server_does_not_outlive_a_killed_outer_process(start: Callable[..., Server]) -> None:
    server = start()
    server.wait_until_loading()
    (inner,) = psutil.Process(server.process.pid).children()
    server.stop(signal.SIGKILL)
    deadline = time.monotonic() + 30
    with contextlib.suppress(psutil.NoSuchProcess):
        while inner.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.llama_cpp
def test_server_that_is_killed_is_told(start: Callable[..., Server]) -> None:
    server = start()
    server.wait_until_loading()
    psutil.Process(server.process.pid).children()[0].kill()
    assert server.process.wait(30) == 137
    assert "killed by SIGKILL" in server.log.read_text().splitlines()[-1]


@pytest.mark.llama_cpp
def test_want_of_memory_is_told(start: Callable[..., Server]) -> None:
    limit = 1500 * 2**20
    server = start(
        *("-c", "4000000", "-np", "1", "--fit", "off"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert server.process.wait(30) in (1, 134)
    assert server.log.read_text().splitlines()[-1].startswith("error: out of memory")


@pytest.mark.llama_cpp
def test_embeddings(start: Callable[..., Server]) -> None:
    server = start("--embeddings", "--pooling", "mean", "-c", "512")
    server.wait_until_ready()
    status, text = server.ask("/v1/embeddings", {"input": "hello"})
    assert status == 200
    assert len(json.loads(text)["data"][0]["embedding"]) > 100
    assert server.stop(signal.SIGTERM)[0] == 0
