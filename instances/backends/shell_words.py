"""Words of a command line, by the rules of a POSIX shell.

Nothing is expanded: ``$``, ``~`` and ``*`` are characters like others, because the values that the
shell would put in their place are unknown here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from instances.backends.command_errors import CommandSyntaxError

BLANKS = " \t\r\n"
_SHELL_SYNTAX = frozenset({"|", "||", "&", "&&", ";", "<", ">", ">>", "1>", "2>", "2>&1", "&>"})


def split(command: str) -> list[str]:
    """Split a command line into words; quotes, backslashes, continued lines and comments work.

    Raises CommandSyntaxError.
    """
    return _Splitter(command).split()


class _Splitter:
    """The words that were read so far, and the word that is being read."""

    def __init__(self, command: str) -> None:
        self.characters = iter(command)
        self.words: list[str] = []
        self.word: list[str] | None = None
        self.is_quoted = False

    def split(self) -> list[str]:
        for character in self.characters:
            if character in BLANKS:
                self._end_word()
            elif character == "#" and self.word is None:
                self._skip_comment()
            elif character == "\\":
                self._read_backslash()
            elif character == "'":
                self._extend(_until_quote(self.characters))
            elif character == '"':
                self._extend(_until_double_quote(self.characters))
            else:
                self.word = self.word or []
                self.word.append(character)
        self._end_word()
        return self.words

    def _end_word(self) -> None:
        if self.word is None:
            return
        word = "".join(self.word)
        if not self.is_quoted and word in _SHELL_SYNTAX:
            raise CommandSyntaxError(
                f"{word!r} is for a shell, and llamactl starts programs without one; leave it out,"
                " or quote it if it is a value"
            )
        self.words.append(word)
        self.word, self.is_quoted = None, False

    def _skip_comment(self) -> None:
        for character in self.characters:
            if character == "\n":
                return

    def _read_backslash(self) -> None:
        """A backslash quotes the next character, and joins lines at their end."""
        following = next(self.characters, "\n")
        if following == "\r":  # a line break that was copied on Windows
            following = next(self.characters, "\n")
        if following != "\n":
            self._extend(following)

    def _extend(self, quoted: Iterable[str]) -> None:
        self.word = self.word or []
        self.word += quoted
        self.is_quoted = True


def _until_quote(characters: Iterator[str]) -> Iterable[str]:
    for character in characters:
        if character == "'":
            return
        yield character
    raise CommandSyntaxError("unterminated quoted string: a ' is never closed")


def _until_double_quote(characters: Iterator[str]) -> Iterable[str]:
    for character in characters:
        if character == '"':
            return
        if character == "\\":
            following = next(characters, "")
            if following not in ('"', "\\", "$", "`", "\n"):
                yield character
            if following != "\n":
                yield following
        else:
            yield character
    raise CommandSyntaxError('unterminated quoted string: a " is never closed')
