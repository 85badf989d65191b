"""Request defaults of an instance: fields that are dropped from a JSON body, and fields that are
set where the body has none.

The body is spliced, so every other byte goes on as it came: decoding and encoding it would change
the client's spelling of numbers. A default is a member of the outermost object alone.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import orjson

from llamactl.core.turns import Turns, at_once
from proxy.body.joined import join_steps
from proxy.body.json_model import PARSED_BYTES
from proxy.body.json_scan import Member, MemberScan

_LONGEST_KEY_TOKEN = 6 * 200 + 2
"""A name of an option in its longest spelling, all of it escaped."""


@dataclass(frozen=True, slots=True)
class RequestDefaults:
    """The defaults, prepared once for each change of the instance."""

    dropped: frozenset[str]
    members: Mapping[str, bytes]
    """Name → the member as JSON: ``"temperature":0.2``."""


async def with_defaults(body: bytes, defaults: RequestDefaults, turns: Turns) -> bytes:
    """The body with the defaults; unchanged if it is no JSON object.

    Raises InvalidRequest (400) for an object that is not JSON.
    """
    if not body[:1000].lstrip(b" \t\r\n").startswith(b"{"):
        return body
    steps = splice(body, defaults)
    return at_once(steps) if len(body) <= PARSED_BYTES else await turns.run(steps)


def splice(body: bytes, defaults: RequestDefaults) -> Generator[None, None, bytes]:
    """``with_defaults`` in steps."""
    cuts = _Cuts(body, defaults)
    inside = yield from MemberScan(body).run(cuts.visit)
    added = [member for name, member in defaults.members.items() if name not in cuts.given]
    view = memoryview(body)
    parts: list[bytes | memoryview] = [view[:inside], b",".join(added)]
    if added and cuts.is_kept:
        parts.append(b",")
    copied = inside
    for start, end in cuts.places:
        parts.append(view[copied:start])
        copied = end
    parts.append(view[copied:])
    return (yield from join_steps(parts))


class _Cuts:
    """The places to cut out of a body, and the defaults that the body has a value for."""

    def __init__(self, body: bytes, defaults: RequestDefaults) -> None:
        self.places: list[tuple[int, int]] = []
        self.given: set[str] = set()
        self.is_kept = False
        """Whether any member stays."""
        self._body = body
        self._defaults = defaults

    def visit(self, member: Member) -> None:
        name = self._name(member)
        defaults, is_cut = self._defaults, False
        if name is not None:
            # OpenAI's API takes null for a value that is not given.
            is_null = self._body[member.start : min(member.end, member.start + 5)] == b"null"
            is_cut = name in defaults.dropped or (is_null and name in defaults.members)
            if not is_cut:
                self.given.add(name)
        # The comma before a member goes with it; before the first member that stays there is none.
        start = member.key if member.comma < 0 else member.comma
        if is_cut:
            self.places.append((start, member.end))
        elif not self.is_kept:
            self.is_kept = True
            if member.comma >= 0:
                self.places.append((member.comma, member.comma + 1))

    def _name(self, member: Member) -> str | None:
        """The name of the member, if there is a default for it."""
        token = self._body[member.key : min(member.key_end, member.key + _LONGEST_KEY_TOKEN + 1)]
        if len(token) > _LONGEST_KEY_TOKEN:
            return None
        try:
            name: str = orjson.loads(token)
        except orjson.JSONDecodeError:
            return None
        defaults = self._defaults
        return name if name in defaults.dropped or name in defaults.members else None
