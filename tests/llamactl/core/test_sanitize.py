"""Text that a backend or a client wrote is shown whole, and does nothing."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from llamactl.core.sanitize import MAX_LINE_LENGTH, fits_input_field, sanitize_json, sanitize_text

any_text = st.text(st.characters(exclude_categories=()), max_size=80)


def test_colours_titles_and_cursor_codes_disappear() -> None:
    assert sanitize_text("\x1b[1;31mred\x1b[0m \x1b]0;title\x07plain\x1b[2K\x9b2J") == "red plain"


def test_control_characters_direction_marks_and_surrogates_become_visible() -> None:
    assert sanitize_text("a\x00b\x08c") == "a\\u0000b\\u0008c"
    assert sanitize_text("\u202egnp.exe") == "\\u202egnp.exe"
    assert sanitize_text("half \ud800 pair") == "half \\ud800 pair"


def test_line_breaks_and_tabs_stay_and_a_progress_bar_overwrites_nothing() -> None:
    assert sanitize_text("a\tb\r\nc\n 10%\r 20%") == "a\tb\nc\n 10%\n 20%"


def test_line_without_end_is_cut_with_a_word_about_it() -> None:
    shown = sanitize_text("x" * 10_000_000)
    assert len(shown) < MAX_LINE_LENGTH + 50
    assert shown.endswith("more characters)")


def test_unterminated_terminal_code_swallows_nothing() -> None:
    assert "important" in sanitize_text("\x1b]0;" + "important")


@given(any_text)
def test_any_text_becomes_valid_utf8_without_control_characters(text: str) -> None:
    shown = sanitize_text(text)
    shown.encode()
    assert all(character in "\n\t" or ord(character) >= 32 for character in shown)


@given(st.recursive(any_text | st.integers() | st.booleans(), st.lists, max_leaves=5))
def test_json_with_invisible_characters_reads_back_the_same(value: object) -> None:
    text = sanitize_json({"value": value})
    text.encode()
    assert json.loads(text) == {"value": value}


def test_text_that_an_input_field_would_change_is_not_plain() -> None:
    assert fits_input_field("/models/größe 7b.gguf")
    for text in (" a", "a ", "a\nb", "a\tb", "a\x00", "\u202ea", "\ud800"):
        assert not fits_input_field(text), repr(text)
