"""Options: types, normal form, flags of a table, flags of no table."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instances.backends.base import Backend, UnknownBackend
from instances.backends.flag_rows import boolean, integer, text
from instances.backends.flags import FlagTable, FlagType
from instances.backends.registry import BACKENDS, backend_for
from instances.backends.values import MAX_VALUE_BYTES, InvalidBackendOptions
from llamactl.core.error_format import seed_document
from tests.instances.backends.options_strategies import JSON_VALUES

LLAMA = backend_for("llama_cpp")
VLLM = backend_for("vllm")

ALL = pytest.mark.parametrize("backend", BACKENDS.values(), ids=lambda backend: backend.type)


def test_an_unknown_backend_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownBackend) as caught:
        backend_for("ollama")

    assert seed_document(caught.value) == {
        "error": "invalid_request",
        "details": "backend_type must be one of llama_cpp, vllm, mlx_lm, got 'ollama'",
    }


@ALL
def test_the_names_of_a_table_are_snake_case_and_its_spellings_kebab_case(
    backend: Backend,
) -> None:
    for flag in backend.table.flags.values():
        assert flag.name.replace("_", "a").isalnum()
        assert flag.name == flag.name.lower()
        for spelling in (flag.spelling, *flag.aliases, *filter(None, [flag.negation])):
            assert spelling.startswith("-")
            assert "_" not in spelling


def test_a_table_with_the_same_flag_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="-a is in the table twice"):
        FlagTable([text("alias", "-a"), integer("amount", "-a")], equals=True)
    with pytest.raises(ValueError, match="alias is in the table twice"):
        FlagTable([text("alias"), boolean("alias")], equals=True)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ctx_size", "4096", "ctx_size must be a whole number, got '4096'"),
        ("ctx_size", 1.5, "ctx_size must be a whole number, got 1.5"),
        ("ctx_size", True, "ctx_size must be a whole number, got True"),
        ("ctx_size", 2**70, "ctx_size must be between"),
        ("gpu_layers", "some", "gpu_layers must be a whole number or auto or all, got 'some'"),
        ("port", "not-a-number", "port must be a whole number"),
        ("port", -1, "port must be between 0 and 65535, got -1"),
        ("port", 65536, "port must be between 0 and 65535, got 65536"),
        ("temp", "0.7", "temp must be a finite number, got '0.7'"),
        ("temp", float("inf"), "temp must be a finite number, got inf"),
        ("temp", False, "temp must be a finite number, got False"),
        ("verbose", "yes", "verbose must be true or false, got 'yes'"),
        ("verbose", 1, "verbose must be true or false, got 1"),
        ("model", 7, "model must be a text, got 7"),
        ("model", ["a"], "model must be a text, got ['a']"),
        ("flash_attn", "maybe", "flash_attn must be on, off or auto, got 'maybe'"),
        ("lora", {"a": None, "b": [float("nan")]}, "lora must be a list of texts"),
        ("lora", ["a", None], "lora must be a list of texts, got None"),
        ("chat_template_kwargs", 5, "chat_template_kwargs must be an object or its JSON text"),
        ("control_vector_layer_range", "1", "two values with a blank between them, got '1'"),
        ("model", "a" * (MAX_VALUE_BYTES + 1), "model must be at most 128000 bytes long"),
        ("model", "\ud800", "model must be valid Unicode"),
        ("alias", "--jinja", "alias must be a value, got the flag --jinja"),
        ("lora", ["-m"], "lora must be a value, got the flag -m"),
        ("model", "--", "model must be a value, got the flag --"),
        ("extra_args", ["--a"], "extra_args must be an object"),
    ],
)
def test_a_wrong_value_is_refused_by_name_value_and_rule(
    name: str, value: object, message: str
) -> None:
    with pytest.raises(InvalidBackendOptions) as caught:
        LLAMA.normalise({name: value})

    assert caught.value.status == 400
    assert caught.value.code == "invalid_request"
    assert caught.value.details.startswith("backend_options.")
    assert message in caught.value.details
    assert len(caught.value.details) < 250


@pytest.mark.parametrize("character", ["\x00", "\n", "\r", "\t", "\x0b", "\x0c", "\x1b", "\x7f"])
def test_control_characters_are_refused_with_the_name_of_the_field(character: str) -> None:
    with pytest.raises(InvalidBackendOptions, match=r"backend_options\.model must not contain"):
        LLAMA.normalise({"model": f"model.gguf{character}rm -rf /"})
    with pytest.raises(InvalidBackendOptions, match=r"backend_options\.lora must not contain"):
        LLAMA.normalise({"lora": ["a", f"b{character}"]})


def test_free_text_may_have_line_breaks_and_tabs_but_no_other_control_characters() -> None:
    template = "{% for message in messages %}\r\n\t{{ message }}\n{% endfor %}"

    assert LLAMA.build_args({"chat_template": template}) == ["--chat-template", template]
    with pytest.raises(InvalidBackendOptions, match="other than line breaks and tabs"):
        LLAMA.normalise({"grammar": "root ::= \x00"})


def test_shell_syntax_is_made_of_ordinary_characters() -> None:
    # The seed refused these; no shell is involved, and patterns and JSON need them.
    value = "blk|ffn; $(whoami) `id` & > \\.=CPU"

    assert LLAMA.build_args({"override_tensor": [value]}) == ["--override-tensor", value]


def test_a_secret_is_not_repeated_in_an_error() -> None:
    with pytest.raises(InvalidBackendOptions) as caught:
        LLAMA.normalise({"hf_token": "hf_secret\n"})
    assert "hf_secret" not in caught.value.details

    with pytest.raises(InvalidBackendOptions) as caught:
        LLAMA.normalise({"api_key": "sk-1", "extra_args": {"api-key": "sk-2"}})
    assert "sk-" not in caught.value.details


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        (
            {"ngl": 0, "c": 2048, "m": "a.gguf"},
            {"gpu_layers": 0, "ctx_size": 2048, "model": "a.gguf"},
        ),
        ({"n-gpu-layers": "all", "--temp": 1}, {"gpu_layers": "all", "temp": 1}),
        ({"ctx_size": 4096.0}, {"ctx_size": 4096}),
        ({"flash_attn": True}, {"flash_attn": "on"}),
        ({"flash_attn": False}, {"flash_attn": "off"}),
        ({"mmap": False, "webui": False}, {"no_mmap": True, "no_webui": True}),
        ({"mmproj_auto": False}, {"no_mmproj": True}),
        ({"verbose": False, "no_mmap": False}, {}),
        ({"lora": "one.bin", "tensor_split": [3, 1]}, {"lora": ["one.bin"], "tensor_split": "3,1"}),
        ({"control_vector_layer_range": [1, 30]}, {"control_vector_layer_range": "1 30"}),
        (
            {"chat_template_kwargs": {"enable_thinking": False, "x": "é"}},
            {"chat_template_kwargs": '{"enable_thinking":false,"x":"é"}'},
        ),
        ({"model": None, "alias": "", "lora": [], "port": 0, "threads": ""}, {}),
        ({"temp": ""}, {}),
        ({"lora": ["", "a"]}, {"lora": ["a"]}),
        ({"n": 5, "predict": 5}, {"predict": 5}),
        ({"draft": 3, "draft_n_min": 1}, {"draft_max": 3, "draft_min": 1}),
    ],
)
def test_the_normal_form_has_canonical_names_and_no_empty_values(
    raw: dict[str, Any], normal: dict[str, object]
) -> None:
    assert LLAMA.normalise(raw) == normal


def test_two_values_for_one_option_are_refused() -> None:
    with pytest.raises(InvalidBackendOptions, match="predict is given twice: 6 and 5"):
        LLAMA.normalise({"predict": 6, "n": 5})
    with pytest.raises(InvalidBackendOptions, match="ctx_size is given twice"):
        LLAMA.normalise({"ctx_size": 1, "extra_args": {"ctx-size": "2"}})


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InvalidBackendOptions, match=r"mmap and .*no_mmap contradict"):
        LLAMA.normalise({"mmap": True, "no_mmap": True})


def test_explicit_values_reach_the_command_line() -> None:
    # The seed left out zeros and false, which is a defect of it.
    assert LLAMA.build_args({"gpu_layers": 0, "temp": 0.0, "main_gpu": 0}) == [
        *("--gpu-layers", "0"),
        *("--main-gpu", "0"),
        *("--temp", "0"),
    ]
    assert LLAMA.build_args({"mmap": False}) == ["--no-mmap"]
    assert LLAMA.build_args({"mlock": False}) == []
    assert VLLM.build_args({"enable_prefix_caching": False}) == ["--no-enable-prefix-caching"]
    assert VLLM.build_args({"disable_log_stats": False}) == []


@pytest.mark.parametrize(
    ("value", "word"),
    [(0.7, "0.7"), (1e6, "1000000"), (1e-5, "0.00001"), (-0.5, "-0.5"), (1, "1"), (2.0, "2")],
)
def test_numbers_are_written_without_an_exponent(value: float, word: str) -> None:
    assert LLAMA.build_args({"rope_freq_base": value}) == ["--rope-freq-base", word]


@pytest.mark.parametrize(
    ("raw", "extra", "words"),
    [
        ({"foo_bar": True}, {"foo_bar": "true"}, ["--foo-bar"]),
        ({"foo-bar": ""}, {"foo_bar": "true"}, ["--foo-bar"]),
        ({"foo": "true"}, {"foo": "true"}, ["--foo"]),
        ({"foo": ["true"]}, {"foo": ["true"]}, ["--foo", "true"]),
        ({"foo": [""]}, {"foo": [""]}, ["--foo", ""]),
        ({"foo": False, "bar": None, "baz": []}, None, []),
        ({"foo": 1048576}, {"foo": "1048576"}, ["--foo", "1048576"]),
        ({"foo": 0.00001}, {"foo": "0.00001"}, ["--foo", "0.00001"]),
        ({"foo": {"a": 1}}, {"foo": '{"a":1}'}, ["--foo", '{"a":1}']),
        ({"foo": ["a", True, 2]}, {"foo": ["a", True, "2"]}, ["--foo", "a", "--foo", "--foo", "2"]),
        ({"-z": "5"}, {"-z": "5"}, ["-z", "5"]),
        ({"--foo": "-1"}, {"foo": "-1"}, ["--foo", "-1"]),
        ({"a.b_c": "1"}, {"a.b_c": "1"}, ["--a.b_c", "1"]),
        ({"foo": "two\nlines"}, {"foo": "two\nlines"}, ["--foo", "two\nlines"]),
    ],
)
def test_unknown_options_become_extra_args(
    raw: dict[str, Any], extra: dict[str, object] | None, words: list[str]
) -> None:
    expected = {"extra_args": extra} if extra else {}

    assert LLAMA.normalise(raw) == expected
    assert LLAMA.normalise({"extra_args": raw}) == expected
    assert LLAMA.build_args(raw) == words


def test_known_flags_in_extra_args_are_options_and_checked_as_such() -> None:
    raw = {"extra_args": {"log-file": "/logs/a.log", "-ngl": "5", "mmap": False, "jinja": "true"}}

    assert LLAMA.normalise(raw) == {"log_file": "/logs/a.log", "gpu_layers": 5, "jinja": True}
    assert LLAMA.normalise({"extra_args": {"lora": ["a", "b"]}}) == {"lora": ["a", "b"]}
    with pytest.raises(InvalidBackendOptions, match=r"backend_options\.ctx_size must be a whole"):
        LLAMA.normalise({"extra_args": {"ctx-size": "lots"}})


@pytest.mark.parametrize(
    "key",
    [
        "",
        "-",
        "--",
        "---a",
        "a b",
        "a=b",
        "a;b",
        "é",
        "a\x00",
        "a\n",
        "--a\n",
        "_a",
        ".a",
        "a" * 200,
    ],
)
def test_a_key_that_is_no_flag_is_refused(key: str) -> None:
    with pytest.raises(InvalidBackendOptions, match="is no name of a flag"):
        LLAMA.build_args({"extra_args": {key: "x"}})
    with pytest.raises(InvalidBackendOptions, match="is no name of a flag"):
        LLAMA.build_args({key: "x"})


def test_a_value_of_an_unknown_flag_can_not_smuggle_in_another_flag() -> None:
    with pytest.raises(InvalidBackendOptions, match="must not begin with a dash"):
        LLAMA.normalise({"extra_args": {"foo": "--host"}})
    # A program that takes "--flag=value" is told so.
    assert VLLM.build_args({"extra_args": {"foo": "--host"}}) == ["--foo=--host"]
    with pytest.raises(InvalidBackendOptions, match="must not begin with a dash"):
        VLLM.normalise({"extra_args": {"foo": "--"}})


def test_an_extra_arg_with_a_control_character_is_refused() -> None:
    with pytest.raises(InvalidBackendOptions, match=r"extra_args\.foo must not contain"):
        LLAMA.normalise({"foo": "a\x00b"})


@ALL
@given(data=st.data())
@settings(deadline=None)
def test_any_json_object_is_brought_into_normal_form_or_refused(
    backend: Backend, data: st.DataObject
) -> None:
    names = st.sampled_from(sorted(backend.table.flags)) | st.text(max_size=8)
    raw = data.draw(st.dictionaries(names, JSON_VALUES, max_size=4))
    try:
        options = backend.normalise(raw)
    except InvalidBackendOptions:
        return

    assert backend.normalise(options) == options
    for word in backend.build_args(options):
        assert "\x00" not in word


@ALL
def test_every_flag_of_a_table_can_be_built_and_parsed(backend: Backend) -> None:
    samples: dict[FlagType, object] = {
        FlagType.BOOL: True,
        FlagType.INT: 1,
        FlagType.FLOAT: 0.5,
        FlagType.TEXT: "x y",
        FlagType.JSON: {"a": 1},
        FlagType.SWITCH: "auto",
        FlagType.LIST: ["a", "b"],
    }
    for flag in backend.table.flags.values():
        options = backend.normalise({flag.name: samples[flag.kind]})
        words = backend.build_args(options)
        assert words, flag.name
        assert backend.normalise(options) == options
