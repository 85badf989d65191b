"""Words of a command line, by the rules of a POSIX shell, as people paste command lines.

Nothing is expanded, because the values that a shell would put in the place of ``$HOME`` or
``$(hostname)`` are unknown here; such a word is refused. ``*`` and ``~`` are plain characters.

Three things differ from a shell, for what web pages, chats and Windows make of a command line:

* A backslash before a letter or digit stays, and so does any backslash in a Windows path:
  ``C:\\models\\q.gguf``.
* Typographic quotes and blanks are read as the typed ones. A dash that replaced a hyphen is left
  to the reader of the flags, see ``Word``.
* ``^`` and a backtick at the end of a line continue the line, as in cmd and PowerShell.
"""

from __future__ import annotations

import re
import unicodedata

from instances.backends.command_errors import CommandSyntaxError

BLANKS = " \t\r\n"
CHOSEN_PORT = "\x00"
"""Stands for ``$PORT``, the port that llamactl chooses. No pasted command has a NUL."""

_SHELL_SYNTAX = frozenset({"|", "||", "&", "&&", ";", "<", ">", ">>", "1>", "2>", "2>&1", "&>"})
_TYPED_BLANKS = frozenset(
    "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
_INVISIBLE = frozenset("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff")
_DOUBLE_QUOTES = frozenset("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\uff02")
_SINGLE_QUOTES = frozenset("\u2018\u2019\u201a\u201b\u2032\u00b4\uff07")
DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
"""The hyphen, and what a word processor or a web page makes of it."""
TO_HYPHEN = dict.fromkeys(map(ord, DASHES), "-")
_PORT = re.compile(r"\$(?:PORT|\{PORT\})(?![A-Za-z0-9_])", re.ASCII)
_EXPANSION = re.compile(
    r"\$(?:[A-Za-z_][A-Za-z0-9_]*(?::[A-Za-z_][A-Za-z0-9_]*)?|\{[^}\s]{0,60}\}?|\([^)\n]{0,60}\)?)"
    r"|`[^`\n]{0,60}`?|%[A-Za-z_][A-Za-z0-9_]*%(?=\\)",
    re.ASCII,
)
_WINDOWS_PATH = re.compile(r"(?:[^\s'\"=]*=)?(?:[A-Za-z]:|\\\\[\w.$-]+|\.{1,2})\\", re.ASCII)
_PLACEHOLDER = re.compile(r"<[^<>]+>|\u2026")
_CONTINUATION = re.compile(r"[\\^`][ \t]*(?:\r\n|\r|\n)")


class Word(str):
    """One word of a command line."""

    __slots__ = ("is_bare",)
    is_bare: bool
    """Whether no part of the word was quoted: a dash in it may have replaced a hyphen."""

    def __new__(cls, text: str, *, is_bare: bool) -> Word:
        word = super().__new__(cls, text)
        word.is_bare = is_bare
        return word


def split(command: str) -> list[Word]:
    """Split a command line into words; quotes, backslashes, continued lines and comments work.

    Raises CommandSyntaxError.
    """
    return _Splitter(command).split()


def replaced_character(word: str) -> str:
    """Name the character that a web page put in place of a typed one; empty if there is none.

    A dash or quote counts at the beginning of the word or of a value alone: text may hold any.
    """
    starts = {word[:1], word.partition("=")[2][:1]}
    found = starts & {*DASHES[1:], *_DOUBLE_QUOTES, *_SINGLE_QUOTES}
    found |= set(word) & (_TYPED_BLANKS | _INVISIBLE)
    if not found:
        return ""
    character = min(found)
    return f"{character!r} (U+{ord(character):04X}, {unicodedata.name(character, '').lower()})"


class _Splitter:
    """The words that were read so far, and the word that is being read."""

    def __init__(self, command: str) -> None:
        self.text = command
        self.at = 0
        self.words: list[Word] = []
        self.word: list[str] | None = None
        self.is_quoted = False
        self.is_windows_path: bool | None = None
        """Whether the word is a path like ``C:\\models``; None before its first backslash."""

    def split(self) -> list[Word]:
        while self.at < len(self.text):
            character = self.text[self.at]
            if character in BLANKS or character in _TYPED_BLANKS:
                self.at += 1
                self._end_word()
            elif character in _INVISIBLE:
                self.at += 1
            elif character == "#" and self.word is None:
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif character in "\\^`" and self._skip_continuation():
                pass
            elif character == "\\":
                self._read_backslash()
            elif character == "'":
                self._read_quoted(self._end_of_single())
            elif character == '"':
                self.at += 1
                self._quote(self._double_quoted())
            elif character in _DOUBLE_QUOTES or character in _SINGLE_QUOTES:
                self._read_typographic(character)
            else:
                self._read_plain(character)
        self._end_word()
        return self.words

    def _end_word(self) -> None:
        if self.word is None:
            return
        word = "".join(self.word)
        is_prompt = not self.words and word == ">"
        if not self.is_quoted and word in _SHELL_SYNTAX and not is_prompt:
            raise CommandSyntaxError(
                f"{word!r} is for a shell, and llamactl starts programs without one; leave it out,"
                " or quote it if it is a value"
            )
        if not self.is_quoted and _PLACEHOLDER.fullmatch(word):
            raise CommandSyntaxError(
                f"{word[:80]!r} stands for a value of yours; put that value in its place"
            )
        self.words.append(Word(word, is_bare=not self.is_quoted))
        self.word, self.is_quoted, self.is_windows_path = None, False, None

    def _read_plain(self, character: str) -> None:
        self._refuse_expansion()
        if port := _PORT.match(self.text, self.at):
            character, self.at = CHOSEN_PORT, port.end() - 1
        self.word = self.word or []
        self.word.append(character)
        self.at += 1

    def _skip_continuation(self) -> bool:
        """Skip a line break that a backslash, ``^`` or backtick before it takes away."""
        match = _CONTINUATION.match(self.text, self.at)
        if match is None:
            return False
        self.at = match.end()
        return True

    def _read_backslash(self) -> None:
        """A backslash quotes the next character, unless it separates the parts of a path."""
        following = self.text[self.at + 1 : self.at + 2]
        if self.is_windows_path is None:
            self.is_windows_path = self._begins_a_windows_path()
        if not following:  # a continued line that was not copied whole
            self.at += 1
        elif following == "\\" and self.word is not None and self.word[-1] != "=":
            self._quote(following)
            self.at += 2
        elif self.is_windows_path or (following.isascii() and following.isalnum()):
            self.word = self.word or []
            self.word.append("\\")
            self.at += 1
        else:
            self._quote(following)
            self.at += 2

    def _begins_a_windows_path(self) -> bool:
        """Whether the word begins like ``C:\\``, ``\\\\server\\`` or ``.\\``."""
        before = "".join(self.word or [])
        return _WINDOWS_PATH.match(before + self.text[self.at : self.at + 60]) is not None

    def _quote(self, text: str) -> None:
        self.word = self.word or []
        self.word.append(text)
        self.is_quoted = True

    def _end_of_single(self) -> int:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise CommandSyntaxError("unterminated quoted string: a ' is never closed")
        return end

    def _read_quoted(self, end: int) -> None:
        self._quote(self.text[self.at + 1 : end])
        self.at = end + 1

    def _double_quoted(self) -> str:
        is_windows_path = _WINDOWS_PATH.match(self.text, self.at) is not None
        read: list[str] = []
        while self.at < len(self.text):
            character = self.text[self.at]
            following = self.text[self.at + 1 : self.at + 2]
            if character == '"':
                self.at += 1
                return "".join(read)
            if character == "\\" and is_windows_path and self._separates_parts(read):
                read.append(character)
                self.at += 1
            elif character == "\\":
                self.at += 2
                if following not in ('"', "\\", "$", "`", "\n"):
                    read.append(character)
                if following != "\n":
                    read.append(following)
            else:
                self._refuse_expansion()
                port = _PORT.match(self.text, self.at)
                read.append(CHOSEN_PORT if port else character)
                self.at = port.end() if port else self.at + 1
        raise CommandSyntaxError('unterminated quoted string: a " is never closed')

    def _separates_parts(self, read: list[str]) -> bool:
        """Whether a backslash in a quoted Windows path is a separator, and quotes nothing."""
        following = self.text[self.at + 1 : self.at + 3]
        if following[:1] == '"':
            # C:\\models\\" ends there, although a shell would read on.
            return following[1:] in BLANKS
        return following[:1] != "\\" or not read

    def _read_typographic(self, opening: str) -> None:
        """Read a value in quotes that a word processor or a web page made of the real ones."""
        at_start = self.word is None or self.word[-1:] == ["="]
        ends = _DOUBLE_QUOTES | {'"'} if opening in _DOUBLE_QUOTES else _SINGLE_QUOTES | {"'"}
        end = next((at for at in range(self.at + 1, len(self.text)) if self.text[at] in ends), -1)
        if not at_start or end < 0:
            raise CommandSyntaxError(
                f"{opening} (U+{ord(opening):04X}, {unicodedata.name(opening).lower()}) is no quote"
                " for a command line; type ' or \" in its place"
            )
        self._read_quoted(end)

    def _refuse_expansion(self) -> None:
        """Refuse expansions of a shell, such as ``$HOME``."""
        if self.text[self.at] not in "$`%" or _PORT.match(self.text, self.at):
            return
        if match := _EXPANSION.match(self.text, self.at):
            raise CommandSyntaxError(
                f"{match[0]!r} is for a shell to replace, and llamactl starts programs without one;"
                " put the value in its place, or put single quotes around it if it is the value"
            )
