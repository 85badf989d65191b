"""Why a backend ended: the last log lines of real failures, and what is made of them."""

# ruff: noqa: E501 - log lines are as long as they are
from __future__ import annotations

import re
import signal

import pytest

from instances.backends.exit_reasons import classify_exit, failure_signs
from instances.backends.failure_signs import FailureReason

# What real runs of llama-server (0.6.0) logged last; the model is gemma-3-270m where there is one.
LLAMA_SERVER = {
    "missing model": (
        "model_not_found",
        "/models/none.gguf",
        """
0.00.044.450 E gguf_init_from_file: failed to open GGUF file '/models/none.gguf' (No such file or directory)
0.00.044.455 E llama_model_load: error loading model: llama_model_loader: failed to load model from /models/none.gguf
0.00.044.455 E llama_model_load_from_file_impl: failed to load model
0.00.044.458 E cmn  common_init_: failed to load model '/models/none.gguf'
0.00.044.460 E srv    load_model: failed to load model, '/models/none.gguf'
0.00.044.462 I srv    operator(): operator(): cleaning up before exit...
0.00.045.170 E srv  llama_server: exiting due to model loading error
""",
    ),
    "not GGUF": (
        "model_not_found",
        "no GGUF file",
        """
0.00.016.253 E gguf_init_from_reader: invalid magic characters: '?8??', expected 'GGUF'
0.00.016.259 E llama_model_load: error loading model: llama_model_loader: failed to load model from /models/x
0.00.018.063 E srv  llama_server: exiting due to model loading error
""",
    ),
    "truncated model": (
        "model_not_found",
        "incomplete",
        """
0.00.079.296 E llama_model_load: error loading model: tensor 'blk.4.attn_k.weight' data is not within the file bounds, model is corrupted or incomplete
0.00.079.316 E llama_model_load_from_file_impl: failed to load model
0.00.079.923 E srv  llama_server: exiting due to model loading error
""",
    ),
    "missing adapter": (
        "model_not_found",
        "/adapters/none",
        """
0.00.981.013 E llama_adapter_lora_init: failed to open '/adapters/none': No such file or directory
0.00.981.036 E cmn  common_init_: failed to load lora adapter '/adapters/none'
0.00.981.042 E cmn  common_init_: failed to create context with model '/models/gemma.gguf'
0.00.981.756 E srv  llama_server: exiting due to model loading error
""",
    ),
    "missing projector": (
        "model_not_found",
        "multimodal model /models/none",
        """
0.01.114.959 E mtmd_init_from_file: error: Failed to load CLIP model from /models/none

0.01.114.962 E srv    load_model: failed to load multimodal model, '/models/none'
0.01.114.965 I srv    operator(): operator(): cleaning up before exit...
0.01.121.076 E srv  llama_server: exiting due to model loading error
""",
    ),
    "unreachable repository": (
        "model_not_found",
        "HF_TOKEN",
        """
0.00.006.468 E get_repo_commit: error: HTTPLIB failed: Could not establish connection
0.00.006.492 W get_repo_files: failed to resolve commit for ggml-org/nonexistent
0.00.008.925 E llama_model_load_from_file_impl: exactly one out metadata, path_model, and file must be defined
0.00.008.938 E cmn  common_init_: failed to load model ''
0.00.009.599 E srv  llama_server: exiting due to model loading error
""",
    ),
    "unknown flag": ("bad_flag", "--foo", "error: invalid argument: --foo"),
    "bad value": (
        "bad_flag",
        "--ctx-size (stoi)",
        """
error while handling argument "--ctx-size": stoi

usage:
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
                                        (env: LLAMA_ARG_CTX_SIZE)


to show complete usage, run with -h
""",
    ),
    "missing value": (
        "bad_flag",
        "expected value",
        'error while handling argument "--ctx-size": expected value for argument\n\nusage:\n',
    ),
    "bad variable": (
        "bad_flag",
        "LLAMA_ARG_CTX_SIZE",
        'error while handling environment variable "LLAMA_ARG_CTX_SIZE": stoi\n',
    ),
    "bad template": (
        "bad_flag",
        "chat_template",
        """
error: the supplied chat template is not supported: {{ bad

0.00.001.946 E common_chat_templates_init: error: parser: Parser Error: Expected }} (Got )
0.00.001.963 E common_chat_verify_template: failed to apply template: std::exception
""",
    ),
    "port in use": (
        "port_in_use",
        "127.0.0.1 port 18102",
        """
0.00.003.457 E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18102
0.00.003.466 I srv    operator(): operator(): cleaning up before exit...
0.00.003.731 E srv  llama_server: exiting due to HTTP server error
""",
    ),
    "context too large": (
        "out_of_memory",
        "smaller context",
        """
0.20.653.230 E ggml_aligned_malloc: insufficient memory (attempted to allocate 292968.75 MB)
0.20.653.244 E ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 307200000000
0.20.950.997 E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache
0.20.951.467 E srv    load_model: failed to create_context with model '/models/gemma.gguf'
0.20.953.479 E srv  llama_server: exiting due to model loading error
""",
    ),
    "no memory for the model": (
        "out_of_memory",
        "",
        """
0.00.930.132 E llama_model_load: error loading model: mmap failed: Cannot allocate memory
0.00.930.174 E llama_model_load_from_file_impl: failed to load model
0.00.930.995 E srv  llama_server: exiting due to model loading error
""",
    ),
    "no memory for the graph": (
        "out_of_memory",
        "",
        """
0.00.942.983 E ggml_gallocr_reserve_n_impl: failed to allocate CPU buffer of size 55341088
0.00.950.342 E llama_init_from_model: failed to initialize the context: failed to allocate compute pp buffers
0.00.950.963 E srv  llama_server: exiting due to model loading error
""",
    ),
    "abort for memory": (
        "out_of_memory",
        "",
        "/src/ggml/src/ggml.c:1644: GGML_ASSERT(ctx->mem_buffer != NULL) failed",
    ),
    "no thread left": (
        "out_of_memory",
        "limit",
        """
terminate called after throwing an instance of 'std::system_error'
  what():  Resource temporarily unavailable
""",
    ),
}

# What the embedded server's runs ended with.
EMBEDDED = {
    "model_not_found": (
        "error: model file not found: /models/none.gguf. Check the path.",
        "error: model file is no GGUF file: /models/x. llama.cpp loads GGUF files only.",
        "error: no model given: say which with --model FILE or --hf-repo USER/MODEL.",
        "error: model can't be fetched: see the line above. Check its name.",
    ),
    "bad_flag": (
        "error: unknown argument: --foo (did you mean --fit?). The embedded server knows …",
        "error: invalid value for --ctx-size: 'abc' must be a whole number.",
        "error: -c needs a value, which must be a whole number.",
        "error: cannot listen on 10.255.255.1 port 8100: Cannot assign requested address.",
    ),
    "port_in_use": ("error: port in use: 127.0.0.1 port 8100 belongs to another program.",),
    "out_of_memory": ("error: out of memory. Use a smaller --ctx-size.",),
    "executable_not_found": ("error: executable not found: llama-server is not on PATH.",),
    "crashed": (
        "error: the server was killed by SIGKILL, possibly by the system for want of memory.",
        "error: the server ended; the lines above say why.",
    ),
}

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


@pytest.mark.parametrize("case", LLAMA_SERVER)
def test_each_way_llama_server_fails_is_told_apart(case: str) -> None:
    reason, told, log = LLAMA_SERVER[case]
    found, details = classify_exit(exit_code=1, signal=None, log_tail=log.splitlines())
    assert found == reason
    assert told in details


@pytest.mark.parametrize("reason", EMBEDDED)
def test_last_line_of_the_embedded_server_is_the_advice(reason: str) -> None:
    for line in EMBEDDED[reason]:
        found, details = classify_exit(exit_code=1, signal=None, log_tail=["I loading", line])
        assert found == reason
        if reason != "crashed":
            assert details.lower() == line.removeprefix("error: ").lower()


@pytest.mark.parametrize("line", OTHERS)
def test_words_of_the_other_backends_are_known(line: str) -> None:
    found, details = classify_exit(exit_code=1, signal=None, log_tail=["INFO loading", line, ""])
    assert found == OTHERS[line]
    assert details.endswith(".")


def test_model_that_is_named_wrongly_is_quoted() -> None:
    line = "ValueError: Invalid repository ID or local directory specified: '/models/none'."
    _, details = classify_exit(exit_code=1, signal=None, log_tail=[line])
    assert details.startswith("Model /models/none is neither")


def test_last_line_that_says_anything_counts() -> None:
    tail = [
        "E ggml_aligned_malloc: insufficient memory (attempted to allocate 9.00 MB)",
        "W trying again with less",
        "E srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8100",
        "I srv operator(): cleaning up before exit...",
    ]
    assert classify_exit(exit_code=1, signal=None, log_tail=tail)[0] == "port_in_use"


@pytest.mark.parametrize(("exit_code", "number"), [(None, 9), (137, None), (-1, 9)])
def test_sigkill_alone_is_a_crash_that_may_be_for_want_of_memory(
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


def test_exit_code_alone_tells_a_program_that_is_not_there() -> None:
    assert classify_exit(exit_code=127, signal=None, log_tail=[])[0] == "executable_not_found"
    assert classify_exit(exit_code=126, signal=None, log_tail=[])[0] == "executable_not_found"


def test_end_without_a_word_is_a_crash() -> None:
    reason, details = classify_exit(exit_code=0, signal=None, log_tail=[])
    assert (reason, "exit code 0" in details) == ("crashed", True)
    assert classify_exit(exit_code=None, signal=None, log_tail=[])[0] == "crashed"


def test_each_sign_ends_with_advice_that_can_be_filled_in() -> None:
    for sign in failure_signs():
        names = re.compile(sign.pattern).groupindex
        sign.details.format(**dict.fromkeys(names, "x"))
