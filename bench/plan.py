"""The plan of one run of the load generator: address, requests, rate and duration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Self
from urllib.parse import urlsplit

Mode = Literal["requests", "streams", "held"]


@dataclass(frozen=True)
class LoadPlan:
    """One run against one system.

    base_url         http://host:port of the system, with a path before /v1 if it has one
    keys             API keys, dealt out to the clients in turn; empty: send none
    mode             "requests": each client asks again when answered; "streams": the same with
                     server-sent events; "held": each client opens one stream before the window,
                     which is to last until after it
    clients          connections that are busy all the time
    body             the JSON document of each request
    seconds          length of the measured window
    warm_up_seconds  load before the window, not measured
    tokens, tps      of one stream: token events, and token events per second
    ramp_seconds     the clients begin spread over this time, before the warm-up
    rate             requests per second in total, sent when they are due whether or not the one
                     before is answered in time (open loop); 0: as fast as the answers come
    probes           requests per second without a stream, beside the held streams
    backend_url      http://host:port of the backend itself, which tells how long it takes to notice
                     that the clients of all held streams leave at once, after the window; "": they
                     leave unobserved
    """

    base_url: str
    keys: tuple[str, ...]
    mode: Mode
    clients: int
    body: Mapping[str, object]
    seconds: float
    warm_up_seconds: float
    tokens: int = 0
    tps: float = 0.0
    ramp_seconds: float = 0.0
    rate: float = 0.0
    probes: float = 0.0
    backend_url: str = ""

    def to_json(self) -> str:
        """One line, for the generator's standard input."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """The inverse of `to_json`."""
        document = json.loads(line)
        document["keys"] = tuple(document["keys"])
        return cls(**document)

    def address(self) -> tuple[str, int]:
        """Host and TCP port of the system. Raises ValueError unless the URL is plain http."""
        url = urlsplit(self.base_url)
        if url.scheme != "http" or url.hostname is None:
            raise ValueError(f"{self.base_url!r}: only http://host:port is measured")
        return url.hostname, url.port or 80

    def request_bytes(self, client: int) -> bytes:
        """The whole HTTP request that client number `client` sends again and again."""
        return self._request(client, self.body)

    def probe_bytes(self) -> bytes:
        """The same request, but for an answer in one piece."""
        body = {name: value for name, value in self.body.items() if name not in ("stream", "tps")}
        return self._request(0, body)

    def _request(self, client: int, document: Mapping[str, object]) -> bytes:
        url = urlsplit(self.base_url)
        body = json.dumps(document, separators=(",", ":")).encode()
        lines = [
            f"POST {url.path.rstrip('/')}/v1/chat/completions HTTP/1.1",
            f"Host: {url.netloc}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        if self.keys:
            lines.append(f"Authorization: Bearer {self.keys[client % len(self.keys)]}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
