"""Words of a command line, compared with Python's own splitter."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from instances.backends.command_errors import CommandSyntaxError
from instances.backends.shell_words import split


@given(st.lists(st.text(max_size=10), max_size=6))
def test_splitting_is_the_inverse_of_quoting(words: list[str]) -> None:
    assert split(shlex.join(words)) == words


@given(st.text(st.sampled_from("ab '\"\\$=-\t"), max_size=30))
def test_words_are_those_of_a_posix_shell(command: str) -> None:
    # A backslash before a letter stays (C:\\models), and what a shell would replace is refused.
    assume(not re.search(r"\\[ab]|\$[ab]", command))
    try:
        expected = shlex.split(command)
    except ValueError as error:
        if "escaped" in str(error):
            return  # a backslash at the very end: a continued line that was not copied whole
        with pytest.raises(CommandSyntaxError):
            split(command)
        return
    # In double quotes a shell keeps the backslash unless it is before one of $`"\; so do we,
    # and shlex forgets the dollar.
    assume("\\$" not in command)
    assert split(command) == expected
