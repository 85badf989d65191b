"""Removal of the usage event that llamactl asked a backend for, and its client did not."""

from __future__ import annotations

import orjson

MAX_HELD_BYTES = 64 * 1024
"""Of an event that has not ended; a longer one is no usage event, and goes on as it comes."""

_END = b"\n\n"
_DATA = b"data:"


class UsageEventFilter:
    """Passes a stream on without the event whose ``choices`` are empty and that has ``usage``.

    Whole events go on at once, each byte as it came. The beginning of an event waits for its end:
    the backends send each event in one piece, so that this is rare.
    """

    def __init__(self) -> None:
        self._held = b""
        self._is_in_long_event = False

    def feed(self, piece: bytes, *, is_last: bool) -> bytes:
        """What goes to the client now; ``b""`` for nothing."""
        data = self._held + piece if self._held else piece
        end = len(data) if is_last else data.rfind(_END) + len(_END)
        if end < len(_END) and len(data) > MAX_HELD_BYTES:
            self._held, self._is_in_long_event = b"", True
            return data
        if end < len(_END):
            if self._is_in_long_event:
                return data
            self._held = data
            return b""
        self._is_in_long_event = False
        self._held = data[end:]
        passed = data[:end] if self._held else data
        return _without_usage_event(passed) if b'"usage"' in passed else passed


def _without_usage_event(events: bytes) -> bytes:
    kept = [event for event in events.split(_END) if not _is_usage_event(event)]
    return _END.join(kept)


def _is_usage_event(event: bytes) -> bool:
    if b'"usage"' not in event or b'"choices"' not in event:
        return False
    lines = [line for line in event.splitlines() if line.startswith(_DATA)]
    try:
        document = orjson.loads(b"\n".join(line[len(_DATA) :] for line in lines))
    except orjson.JSONDecodeError:
        return False
    return (
        isinstance(document, dict)
        and document.get("choices") == []
        and isinstance(document.get("usage"), dict)
    )
