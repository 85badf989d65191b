"""Last log lines of real failures of llama-server and of the embedded server."""

# ruff: noqa: E501 - log lines are as long as they are
from __future__ import annotations

import pytest

from instances.backends.exit_reasons import classify_exit

# Last lines of real runs of llama-server (0.6.0), with gemma-3-270m where a model was loaded.
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

# Last lines of the embedded server.
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


@pytest.mark.parametrize("case", LLAMA_SERVER)
def test_each_failure_of_llama_server_has_its_reason_and_advice(case: str) -> None:
    reason, advice, log = LLAMA_SERVER[case]
    found, details = classify_exit(exit_code=1, signal=None, log_tail=log.splitlines())
    assert found == reason
    assert advice in details


@pytest.mark.parametrize("reason", EMBEDDED)
def test_last_line_of_the_embedded_server_is_the_advice(reason: str) -> None:
    for line in EMBEDDED[reason]:
        found, details = classify_exit(exit_code=1, signal=None, log_tail=["I loading", line])
        assert found == reason
        if reason != "crashed":
            assert details.lower() == line.removeprefix("error: ").lower()
