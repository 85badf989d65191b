"""Reasons of an exit, by log lines, exit codes and signals."""

from __future__ import annotations

import re
import signal

import pytest

from instances.backends.exit_reasons import classify_exit, failure_signs
from instances.backends.failure_signs import FailureReason

# As users of vLLM, mlx_lm and docker report them.
OTHERS = {
    "vllm: error: unrecognized arguments: --foo 1": "bad_flag",
    "vllm serve: error: argument --dtype: invalid choice: 'x' (choose from 'auto')": "bad_flag",
    "mlx_lm.server: error: unrecognized arguments: --foo": "bad_flag",
    "(EngineCore pid=7) ValueError: Free memory on device (0.49/79.32 GiB) on startup is less "
    "than desired GPU memory utilization (0.6, 47.59 GiB).": "out_of_memory",
    "ValueError: To serve at least one request with the models's max seq len (262144), (24.0 GiB "
    "KV cache is needed, which is larger than the available KV cache memory (3.18 GiB).": (
        "out_of_memory"
    ),
    "ValueError: No available memory for the cache blocks.": "out_of_memory",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.": "out_of_memory",
    "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command "
    "buffer execution failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackError"
    "OutOfMemory)": "out_of_memory",
    "RuntimeError: [metal::malloc] Attempting to allocate 48736917632 bytes which is greater than "
    "the maximum allowed buffer size of 30150672384 bytes.": "out_of_memory",
    "OSError: [Errno 98] Address already in use": "port_in_use",
    "ERROR: [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): address "
    "already in use": "port_in_use",
    "docker: Error response from daemon: Bind for 127.0.0.1:8000 failed: port is already "
    "allocated.": "port_in_use",
    "(APIServer pid=48263) ValueError: Invalid repository ID or local directory specified: "
    "'/models/none'.": "model_not_found",
    "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or "
    "'namespace/repo_name': '/models/none/'. Use `repo_type` argument if needed.": (
        "model_not_found"
    ),
    "Repository Not Found for url: https://huggingface.co/api/models/no/such.": "model_not_found",
    "mlx_lm.utils.ModelNotFoundError: Model not found for path or HF repo: no/such.": (
        "model_not_found"
    ),
    "FileNotFoundError: No safetensors found in /models/none": "model_not_found",
    "/usr/bin/python: No module named mlx_lm": "executable_not_found",
    "ModuleNotFoundError: No module named 'vllm'": "executable_not_found",
    "sh: 1: llama-server: not found": "executable_not_found",
    "bash: line 1: llama-server: command not found": "executable_not_found",
    "llama-server: error while loading shared libraries: libcudart.so.12: cannot open shared "
    "object file: No such file or directory": "executable_not_found",
    "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock.": (
        "executable_not_found"
    ),
}


@pytest.mark.parametrize("line", OTHERS)
def test_signs_of_python_servers_shells_and_docker_are_known(line: str) -> None:
    found, details = classify_exit(exit_code=1, signal=None, log_tail=["INFO loading", line, ""])
    assert found == OTHERS[line]
    assert details.endswith(".")


def test_the_name_of_a_missing_model_is_in_the_advice() -> None:
    line = "ValueError: Invalid repository ID or local directory specified: '/models/none'."
    _, details = classify_exit(exit_code=1, signal=None, log_tail=[line])
    assert details.startswith("Model /models/none is neither")


def test_the_last_line_with_a_sign_counts() -> None:
    tail = [
        "E ggml_aligned_malloc: insufficient memory (attempted to allocate 9.00 MB)",
        "W trying again with less",
        "E srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8100",
        "I srv operator(): cleaning up before exit...",
    ]
    assert classify_exit(exit_code=1, signal=None, log_tail=tail)[0] == "port_in_use"


@pytest.mark.parametrize(("exit_code", "number"), [(None, 9), (137, None), (-1, 9)])
def test_sigkill_alone_is_a_crash_that_may_be_out_of_memory(
    exit_code: int | None, number: int | None
) -> None:
    reason, details = classify_exit(exit_code=exit_code, signal=number, log_tail=["I ready"])
    assert reason == FailureReason.CRASHED
    assert details.startswith("Killed by SIGKILL (possibly the system's out-of-memory killer)")


def test_other_signals_are_named() -> None:
    for exit_code, number in ((None, signal.SIGSEGV), (128 + signal.SIGSEGV, None)):
        reason, details = classify_exit(exit_code=exit_code, signal=number, log_tail=[])
        assert (reason, "SIGSEGV" in details) == ("crashed", True)
    assert "signal 99" in classify_exit(exit_code=None, signal=99, log_tail=[])[1]


def test_exit_codes_126_and_127_mean_a_missing_program() -> None:
    assert classify_exit(exit_code=127, signal=None, log_tail=[])[0] == "executable_not_found"
    assert classify_exit(exit_code=126, signal=None, log_tail=[])[0] == "executable_not_found"


def test_an_exit_without_a_sign_is_a_crash() -> None:
    reason, details = classify_exit(exit_code=0, signal=None, log_tail=[])
    assert (reason, "exit code 0" in details) == ("crashed", True)
    assert classify_exit(exit_code=None, signal=None, log_tail=[])[0] == "crashed"


def test_the_advice_of_each_sign_can_be_filled_in() -> None:
    for sign in failure_signs():
        names = re.compile(sign.pattern).groupindex
        sign.details.format(**dict.fromkeys(names, "x"))
