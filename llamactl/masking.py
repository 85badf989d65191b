"""Masking of secrets in documents, environments, command lines and URLs.

The dry run, the admin, ``/api/v1/config``, ``check_config``, the doctor and the log all mask with
this module, so that a name is secret in all of them or in none.

llamactl passes its own secrets by environment. The operator's arguments and variables may hold
secrets under any name, hence the guess by the words of a name.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

MASK = "***"

# -- names ----------------------------------------------------------------------------------------

_SECRET_WORD = re.compile(
    r".*(?:key|token|secret|passw(?:or)?d|passphrase|passcode|pwd|credential|auth|cookie)"
    r"|.*(?:keys|secrets|passwords|passphrases|credentials|cookies)"
    r"|pass|dbpass|sshpass|pw|cred|creds|authorization|authentication|bearer|jwt|pat|private"
    r"|dsn|sig|signature"
    r"|hft"  # llama-server's short name of --hf-token
)
"""One word of a secret's name. The ending decides, for ``PGPASSWORD`` and ``sslpassword``; but not
``pass``, with which ``bypass`` ends. ``tokens`` is missing: the plural is a number of tokens."""

_NUMBER_OR_SWITCH = re.compile(r"(?:max|min|num|no|allow|enable|disable|require|skip|cors)\b.*")
"""``max_prompt_adapter_token`` is a number, ``require_auth`` a switch."""

_ABOUT_A_SECRET = re.compile(
    r".*\b(?:file|path|dir|directory|name|type|mode|algorithm|size|length|limit|timeout|ttl)"
)
"""``api_key_file`` names a file, ``auth_type`` a choice."""

_TOKEN_OF_A_TEXT = re.compile(
    r"\b(?:bos|eos|eot|eom|pad|sep|unk|cls|mask|nl|special|image|audio|per) token\b"
    r"|\btoken (?:ids?|threshold|usage|budget|count)\b"
)
"""The unit that a model reads and writes: ``add_bos_token``, ``prefill_token_threshold``."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def is_secret_name(name: str) -> bool:
    """Whether a variable, option, header or URL parameter called ``name`` may hold a secret.

    The name is read word by word (``HF_TOKEN``, ``hf-token``, ``hfToken``). Any one secret word
    is enough, since showing a secret costs more than hiding something harmless. The exceptions are
    the names that llama-server, vLLM and MLX give to numbers, switches, files and tokens of a text.
    """
    words = " ".join(_WORD.findall(name)).lower()
    if _NUMBER_OR_SWITCH.fullmatch(words) or _ABOUT_A_SECRET.fullmatch(words):
        return False
    return any(map(_SECRET_WORD.fullmatch, _TOKEN_OF_A_TEXT.sub("", words).split()))


# -- documents and environments -------------------------------------------------------------------


def mask_document(value: Any, name: str = "") -> Any:
    """Mask a JSON value that is called ``name``: everything below a secret name, and in URLs.

    Empty texts, null and booleans stay: they tell whether a secret is set, and not which.
    """
    if isinstance(value, dict):
        return {
            key: mask_document(item, name if is_secret_name(name) else str(key))
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask_document(item, name) for item in value]
    if value in ("", None) or isinstance(value, bool):
        return value
    if is_secret_name(name):
        return MASK
    return mask_url(value) if isinstance(value, str) else value


def mask_values(pairs: Mapping[str, str]) -> dict[str, str]:
    """Mask every value that is not empty."""
    return {name: MASK if value else "" for name, value in pairs.items()}


# -- URLs -----------------------------------------------------------------------------------------

# Linear in the length, though the text comes from clients: neither pattern can begin within a match
# of itself that failed far away. ``\S+://`` and ``.*@`` took minutes for 2 MiB.
_BEFORE_PASSWORD = re.compile(r"://[^:/@?#]*:")
_HTTP_USER = re.compile(r"(https?://)[^:/@?#\s]+@")
_WORD_OF_TEXT = re.compile(r"\S+")
_PARAMETER = re.compile(r"([?&#])([^=&#?]*)=([^&#]+)")


def mask_url(url: str) -> str:
    """Mask passwords and parameters: ``postgres://me:secret@host`` → ``postgres://me:***@host``.

    A password may hold any character, so all up to the last ``@`` is masked. In HTTP a user
    without a password is a token (``https://ghp_…@github.com``). Of the parameters behind ``?`` or
    ``#``, those with a secret name are masked.
    """
    last_at = url.rfind("@")
    if found := _BEFORE_PASSWORD.search(url, 0, max(last_at, 0)):
        url = f"{url[: found.end()]}{MASK}{url[last_at:]}"
    url = _HTTP_USER.sub(rf"\1{MASK}@", url)
    return _PARAMETER.sub(_masked_parameter, url)


def mask_text(text: str) -> str:
    """Mask the URLs in a sentence, such as the message of another program's error."""
    return _WORD_OF_TEXT.sub(_masked_word, text) if "://" in text else text


def _masked_word(match: re.Match[str]) -> str:
    return mask_url(match[0]) if "://" in match[0] else match[0]


def _masked_parameter(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2]}={MASK}" if is_secret_name(match[2]) else match[0]


# -- command lines --------------------------------------------------------------------------------

_FLAG = re.compile(r"--?[\w.-]+", re.ASCII)
_ASSIGNMENT = re.compile(r"(-{0,2}[\w.-]+)=(.*)", re.ASCII | re.DOTALL)
_HEADER = re.compile(r"([\w-]+:\s+).*", re.ASCII | re.DOTALL)
# As docker takes variables: -e NAME=value, -eNAME=value, --env=NAME=value.
_ENVIRONMENT_FLAGS = ("-e", "--env")
_VARIABLE = re.compile(r"([A-Za-z_]\w*=).*", re.ASCII | re.DOTALL)
_FLAG_WITH_VARIABLE = re.compile(r"((?:-e=?|--env=)[A-Za-z_]\w*=).*", re.ASCII | re.DOTALL)


def mask_arguments(words: Sequence[str]) -> list[str]:
    """Mask the words of a command: values of secret flags, variables, headers and URLs."""
    return [f"{start}{MASK if is_masked else ''}" for start, is_masked in _split_words(words)]


def mask_command(argv: Sequence[str]) -> str:
    """Mask a command and quote it for a shell."""
    return " ".join(
        f"{start}{MASK}" if is_masked else shlex.quote(start)
        for start, is_masked in _split_words(argv)
    )


def secret_words(words: Sequence[str]) -> Iterator[str]:
    """Yield the flag of each secret in the words of a command: ``--header``, ``-e``, ``NAME=``."""
    previous = "a word"
    for word, masked in zip(words, mask_arguments(words), strict=True):
        if masked != word:
            assignment = _ASSIGNMENT.fullmatch(word)
            is_flag = _FLAG.fullmatch(previous) and not (assignment and word.startswith("-"))
            yield previous if is_flag else assignment[1] if assignment else "an argument"
            if is_flag and masked == MASK:
                continue  # the flag may have further values
        previous = word


_SEVERAL_SECRETS = frozenset({"--api-key"})
"""Flags that take several values: vLLM's ``--api-key k1 k2``."""


def _split_words(words: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Yield, for each word, the part to show, and whether a masked part followed it."""
    previous = ""
    takes_more = False
    for word in words:
        if _FLAG.fullmatch(previous) and is_secret_name(previous) and not word.startswith("--"):
            yield "", True
            # The value of a secret flag may look like a flag, and is none.
            takes_more = previous in _SEVERAL_SECRETS and not word.startswith("-")
            previous = ""
            continue
        if takes_more and not word.startswith("-"):
            yield "", True
            continue
        takes_more = False
        start = _start_before_secret(word, previous)
        yield (_mask_text(word), False) if start is None else (start, True)
        previous = word


def _start_before_secret(word: str, previous: str) -> str | None:
    """Return the part of ``word`` before the secret, or None without a secret."""
    if found := _FLAG_WITH_VARIABLE.fullmatch(word):
        return found[1]
    if previous in _ENVIRONMENT_FLAGS and (found := _VARIABLE.fullmatch(word)):
        return found[1]
    if (found := _ASSIGNMENT.fullmatch(word)) and is_secret_name(found[1]):
        return f"{found[1]}="
    if (found := _HEADER.fullmatch(word)) and is_secret_name(found[1]):
        return found[1]
    return None


def _mask_text(word: str) -> str:
    """Mask the secrets in a JSON object, or in the URL that any other word may be."""
    assignment = _ASSIGNMENT.fullmatch(word)
    start, text = (f"{assignment[1]}=", assignment[2]) if assignment else ("", word)
    if text.startswith("{"):
        try:
            document = json.loads(text)
            masked = mask_document(document)
            return word if masked == document else start + json.dumps(masked, ensure_ascii=False)
        except RecursionError:
            return f"{start}{MASK}"  # nested too deep to look for secrets
        except ValueError:
            return mask_url(word)
    return mask_url(word)


# -- lines of a log -------------------------------------------------------------------------------

_SHORTEST_SECRET = 6
"""Characters of the shortest value that is looked for in a log: "key" as a key is no secret."""

_AUTHORIZATION = re.compile(r"\b(Bearer|Basic|Token)(\s+)[\w.~+/=-]{6,}", re.IGNORECASE)
_WELL_KNOWN_TOKEN = re.compile(
    r"\b(?:hf_|sk-|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AKIA|llamactl-)[\w-]{8,}"
)
_NAMED_VALUE = re.compile(
    r"(?P<before>\b[A-Za-z]{1,20} )?"
    r"(?P<name>(?<![\w-])--?[\w.-]{2,80}|(?<![\w.-])[A-Za-z_][\w.-]{0,80})"
    r"(?P<sign>[\"']?\s{0,3}[=:]\s{0,3}|(?<=\w) (?=[^\s=:]))"
    r"(?P<value>\"[^\"]*\"|'[^']*'|[^\s,;}\])]+)"
)


def secret_values(value: Any, name: str = "") -> Iterator[str]:
    """Yield the secrets of a JSON value that is called ``name``: the texts below a secret name."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from secret_values(item, name if is_secret_name(name) else str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secret_values(item, name)
    elif isinstance(value, str) and len(value) >= _SHORTEST_SECRET and is_secret_name(name):
        yield value


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """Mask these secrets wherever they are; the longest first, because one may hold another."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def mask_log_line(line: str) -> str:
    """Mask likely secrets in a line that a program printed; takes quadratic time.

    That is the value of a secret name or flag, credentials of a header, a token with a well-known
    beginning, and a password in a URL.
    """
    line = _AUTHORIZATION.sub(rf"\1\2{MASK}", mask_text(line))
    line = _NAMED_VALUE.sub(_masked_value, line)
    return _WELL_KNOWN_TOKEN.sub(MASK, line)


def _masked_value(match: re.Match[str]) -> str:
    name, before = match["name"], match["before"] or ""
    is_flag = name.startswith("-")
    is_assigned = match["sign"].strip() != ""
    is_exception = name.endswith(("Error", "Exception", "Warning"))  # KeyError: 'x'
    if not (is_flag or is_assigned) or is_exception or not is_secret_name(name):
        return match[0]
    if _TOKEN_OF_A_TEXT.search(f"{before}{name}".lower()):
        return match[0]
    value = match["value"]
    if value in ("None", "null", "true", "false") or value.lower() in ("bearer", "basic", "token"):
        return match[0]
    return f"{before}{name}{match['sign']}{MASK}"
