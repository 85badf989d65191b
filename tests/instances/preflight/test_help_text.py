"""``--help`` of real programs: llama-server of 2026, vLLM 0.33's ``vllm serve``, mlx-lm 0.32."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instances.preflight.help_text import FEWEST_FLAGS, MAX_CHARACTERS, Help, read_help
from tests.support.paths import DATA

DATA = DATA / "help"


def listed(name: str) -> Help:
    found = read_help((DATA / f"{name}.txt").read_text("utf-8"))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("program", "count"), [("llama_server", 413), ("vllm_serve", 438), ("mlx_lm_server", 28)]
)
def test_every_flag_of_a_real_program_is_found(program: str, count: int) -> None:
    assert len(listed(program)) == count


@pytest.mark.parametrize(
    ("program", "flag", "value"),
    [
        ("llama_server", "-c", "N"),
        ("llama_server", "--ctx-size", "N"),
        ("llama_server", "--n-predict", "N"),
        ("llama_server", "--flash-attn", "[on|off|auto]"),
        ("llama_server", "--swa-full", ""),
        ("llama_server", "--no-perf", ""),
        ("llama_server", "-no-kvu", ""),
        ("llama_server", "--control-vector-layer-range", "START END"),
        ("llama_server", "--override-tensor-draft", "<tensor name pattern>=<buffer type>,..."),
        ("llama_server", "--fim-qwen-1.5b-default", ""),
        ("llama_server", "--logit-bias", "TOKEN_ID(+/-)BIAS"),
        ("vllm_serve", "-tp", "TENSOR_PARALLEL_SIZE"),
        ("vllm_serve", "--tensor-parallel-size", "TENSOR_PARALLEL_SIZE"),
        ("vllm_serve", "--api-key", "API_KEY [API_KEY ...]"),
        ("vllm_serve", "--hf-token", "[HF_TOKEN]"),
        ("vllm_serve", "--headless", ""),
        ("vllm_serve", "--disable-log-requests", ""),
        ("mlx_lm_server", "--log-level", "{DEBUG,INFO,WARNING,ERROR,CRITICAL}"),
        ("mlx_lm_server", "--pipeline", ""),
    ],
)
def test_value_of_a_flag_is_told_from_its_description(program: str, flag: str, value: str) -> None:
    assert listed(program)[flag].value == value


def test_removed_flags_are_marked() -> None:
    assert "use --spec-draft-n-max" in listed("llama_server")["--draft"].removed
    assert listed("llama_server")["--threads"].removed == ""


def test_words_of_a_description_are_no_flags() -> None:
    text = "".join(f"--flag-{n} N   what\n{' ' * 40}--no-flag-{n} is not one\n" for n in range(30))
    assert set(read_help(text) or ()) == {f"--flag-{n}" for n in range(30)}


def test_colours_are_taken_off() -> None:
    text = "".join(f"\x1b[1;36m--flag-{n}\x1b[0m \x1b[33mN\x1b[0m  what\n" for n in range(30))
    flags = read_help(text)
    assert flags is not None
    assert flags["--flag-7"].value == "N"


@pytest.mark.parametrize("count", [0, 1, FEWEST_FLAGS - 1])
def test_few_flags_are_no_help(count: int) -> None:
    assert read_help("usage: x\n" + "".join(f"--flag-{n}\n" for n in range(count))) is None


LINES = st.lists(
    st.one_of(
        st.text(max_size=60),
        st.from_regex(r" {0,8}--?[a-z-]{0,9}[ ,=]{0,3}(-[a-z]|\[?[A-Z]{1,3}|)  ?.{0,20}"),
    ),
    max_size=60,
)


@given(LINES)
def test_any_text_is_read(lines: list[str]) -> None:
    flags = read_help("\n".join(lines))
    assert flags is None or all(name.startswith("-") for name in flags)


@pytest.mark.parametrize(
    "line",
    ["-" * 1000, "--a, " * 400, "--a =" * 400, "--a " + " " * 1900, ",-" * 900, "--a\x00\u202e"],
)
def test_hostile_lines_take_no_longer_than_others(line: str) -> None:
    # A megabyte of them; a scanner that looked back would be at it for minutes.
    read_help(f"{line}\n" * (2 * MAX_CHARACTERS // (len(line) + 1)))


def test_more_flags_than_any_program_has_are_no_help() -> None:
    assert read_help("".join(f"--f{n}\n" for n in range(20_000))) is None
