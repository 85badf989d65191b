from __future__ import annotations

import pytest

from instances.backends.registry import backend_for
from instances.preflight.findings import PreflightFinding, Severity
from instances.preflight.flags import check_flags
from instances.preflight.help_text import Help, ListedFlag, read_help
from tests.support.paths import DATA

DATA = DATA / "help"
PROGRAMS = {"llama_cpp": "llama_server", "vllm": "vllm_serve", "mlx_lm": "mlx_lm_server"}


def listed(backend_type: str) -> Help:
    found = read_help((DATA / f"{PROGRAMS[backend_type]}.txt").read_text("utf-8"))
    assert found is not None
    return found


def check(
    backend_type: str, options: dict[str, object], help: Help | None = None
) -> list[PreflightFinding]:
    backend = backend_for(backend_type)
    normal = backend.normalise(options)
    return check_flags(backend, normal, help or listed(backend_type), "the program")


@pytest.mark.parametrize(
    ("backend_type", "options"),
    [
        ("llama_cpp", {"model": "/m.gguf", "ngl": 99, "flash_attn": "on", "kv_offload": False}),
        ("llama_cpp", {"control_vector_layer_range": "1 5", "lora": ["a", "b"], "port": 8080}),
        ("llama_cpp", {"api_key": "s3cret", "hf_token": "s3cret", "host": "0.0.0.0"}),
        ("vllm", {"model": "a/b", "tensor_parallel_size": 2, "hf_token": True}),
        ("vllm", {"enable_log_requests": False, "enable_prefix_caching": False}),
        ("vllm", {"extra_args": {"compilation-config.level": "3"}}),
        ("vllm", {"extra_args": {"tensor_parallel_siz": "3"}}),
        ("mlx_lm", {"model": "a/b", "trust_remote_code": True, "top_p": 0.9, "kv_bits": 8}),
    ],
)
def test_a_listed_flag_is_no_finding(backend_type: str, options: dict[str, object]) -> None:
    assert check(backend_type, options) == []


@pytest.mark.parametrize(
    ("backend_type", "flag", "suggestion"),
    [
        ("llama_cpp", "ctx_sise", "did you mean --ctx-size?"),
        ("llama_cpp", "gpu-layer", "did you mean --gpu-layers?"),
        ("llama_cpp", "completely_unheard_of", ""),
        ("vllm", "max-model-length", "did you mean --max-model-len?"),
        ("mlx_lm", "max_tokns", "did you mean --max-tokens?"),
    ],
)
def test_flag_that_is_not_in_the_help_is_a_warning(
    backend_type: str, flag: str, suggestion: str
) -> None:
    (finding,) = check(backend_type, {"extra_args": {flag: "5"}})
    assert finding.severity is Severity.WARNING
    assert finding.field == f"backend_options.extra_args.{flag.replace('-', '_')}"
    assert "is not in the help of the program" in finding.message
    assert finding.suggestion == suggestion


def test_flag_of_our_table_that_this_version_dropped_is_a_warning() -> None:
    (finding,) = check("llama_cpp", {"no_mmap": True})
    assert (finding.field, finding.severity) == ("backend_options.no_mmap", Severity.WARNING)
    assert finding.suggestion == "other versions have it"  # and not --no-mmproj


def test_flag_that_the_program_says_was_removed_is_an_error() -> None:
    (finding,) = check("llama_cpp", {"draft_max": 5})
    assert finding.is_error
    assert "use --spec-draft-n-max" in finding.message


def test_value_for_a_flag_that_takes_none_is_an_error() -> None:
    # As llama-server was until August 2025.
    older = {**listed("llama_cpp"), "--flash-attn": ListedFlag("")}
    (finding,) = check("llama_cpp", {"flash_attn": "on"}, older)
    assert finding.is_error
    assert "--flash-attn takes no value" in finding.message


def test_extra_flag_with_too_much_or_too_little_is_an_error() -> None:
    newer = {**listed("llama_cpp"), "--new": ListedFlag(""), "--newer": ListedFlag("N")}
    given = {"new": "s3cret", "newer": "true"}
    first, second = check("llama_cpp", {"extra_args": given}, newer)
    assert first.is_error
    assert "takes no value" in first.message
    assert "s3cret" not in first.text
    assert second.is_error
    assert "needs a value" in second.message


def test_value_that_may_be_left_out_may_be_given_or_not() -> None:
    newer = {**listed("llama_cpp"), "--new": ListedFlag("[N]")}
    assert check("llama_cpp", {"extra_args": {"new": [True, "5"]}}, newer) == []


def test_a_spelling_of_this_version_is_suggested() -> None:
    older = {name: flag for name, flag in listed("llama_cpp").items() if name != "--gpu-layers"}
    (finding,) = check("llama_cpp", {"gpu_layers": 5}, older)
    assert finding.suggestion == "it lists -ngl, which means the same in other versions"


def test_the_number_of_checked_flags_is_bounded() -> None:
    findings = check("vllm", {"extra_args": {f"tensor_paralel_{n}": "1" for n in range(3000)}})
    assert len(findings) == 1000
    assert sum(bool(finding.suggestion) for finding in findings) <= 20
