#!/usr/bin/env python3
"""The fake backend: a real process with real signals, a port, and knobs to make it misbehave.

It takes llama-server's ``--host``, ``--port``, ``--model`` and ``--alias`` and ignores every other
flag. It imports the standard library alone, and little of it, so that it is up within 50 ms. It
answers ``GET /health``, ``GET /v1/models``, ``GET /fake/stats`` and ``POST /v1/chat/completions``
(and, alike, any other POST), echoes WebSocket messages at ``/ws`` until it is told ``close CODE``,
and takes a JSON body that may say

``stream``  true: server-sent events; else one JSON document
``tokens``  how many tokens the answer has (default 3)
``delay``   seconds before each token (default 0)
``status``  answer with this HTTP status instead
``nonce``   a word that the log then has on a line of its own (``nonce WORD``), once for each time
            that the request was carried out; the tokens are ``WORD:1``, ``WORD:2`` and so on

A POST of a form (``multipart/form-data``) is answered with what its parts were, see ``_form``.

With LLAMA_API_KEY or VLLM_API_KEY set, everything but ``/health`` and ``/v1/models`` asks for it.

The knobs are environment variables, or parts of the model's name in lower case without ``FAKE_``
(``--model "fake?start_seconds=2&exit_code=3"``):

FAKE_BIND_SECONDS       seconds until it listens
FAKE_START_SECONDS      seconds for which ``/health`` answers 503 once it listens
FAKE_NEVER_HEALTHY      ``/health`` answers 503 for ever
FAKE_HANG               it accepts connections and answers nothing
FAKE_NO_HEALTH          ``/health`` is 404
FAKE_MODELS_NEED_KEY    ``/v1/models`` asks for the key too
FAKE_EXIT_CODE          exits with this code, at once or after FAKE_CRASH_AFTER
FAKE_CRASH_AFTER        exits so many seconds after it began to listen (code 1 unless told)
FAKE_CRASH_SIGNAL       ends by this signal number instead of an exit code
FAKE_IGNORE_SIGINT      SIGINT does nothing
FAKE_IGNORE_SIGTERM     SIGTERM does nothing
FAKE_CHILD              ``group``: starts a child; ``session``: one in a session of its own
FAKE_LOG_LINES          prints so many numbered lines
FAKE_PRINT              prints this text
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time

PIECE = " token"
_PARAMETER = re.compile(r'\b(name|filename)="([^"]*)"')


def log(line: str) -> None:
    """Print at once; a log that can't be written to is no reason to end, as in llama-server."""
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode())


class Knobs:
    """What the environment and the model's name say."""

    def __init__(self, model: str) -> None:
        self._values = {
            name.removeprefix("FAKE_").lower(): value
            for name, value in os.environ.items()
            if name.startswith("FAKE_")
        }
        for pair in model.partition("?")[2].split("&"):
            name, equals, value = pair.partition("=")
            if name:
                self._values[name.lower()] = value if equals else "1"

    def __contains__(self, name: str) -> bool:
        return self._values.get(name, "0") not in ("", "0")

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, default)

    def number(self, name: str, default: float = 0.0) -> float:
        return float(self._values.get(name, default))


class Stats:
    """What ``GET /fake/stats`` tells: counts since the start of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = {"connections": 0, "requests": 0, "in_flight": 0, "aborted": 0, "tokens": 0}

    def add(self, name: str, number: int = 1) -> None:
        with self._lock:
            self._counts[name] += number

    def to_json(self) -> bytes:
        with self._lock:
            return json.dumps(self._counts).encode()


class Server:
    """Answers HTTP/1.1, one thread a connection."""

    def __init__(self, knobs: Knobs, alias: str) -> None:
        self._knobs = knobs
        self._alias = alias
        self._key = os.environ.get("LLAMA_API_KEY") or os.environ.get("VLLM_API_KEY") or ""
        self._healthy_at = time.monotonic() + knobs.number("start_seconds")
        self._stats = Stats()

    def serve_forever(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._stats.add("connections")
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            if "hang" in self._knobs:
                threading.Event().wait()
            try:
                while self._answer_one(connection, reader):
                    pass
            except OSError:
                return

    def _answer_one(self, connection: socket.socket, reader: object) -> bool:
        """One request; ``False`` once the client has closed the connection."""
        readline, read = reader.readline, reader.read  # type: ignore[attr-defined]
        head = [readline()]
        first = head[0].decode("latin-1").split()
        if len(first) < 2:
            return False
        headers = {}
        while (line := readline().strip()) != b"":
            head.append(line + b"\r\n")
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        body = read(int(headers.get(b"content-length", b"0")))
        self._stats.add("requests")
        method, path = first[0], first[1].partition("?")[0]
        is_open = path == "/health" or (
            path == "/v1/models" and "models_need_key" not in self._knobs
        )
        if (
            self._key
            and not is_open
            and headers.get(b"authorization") != (f"Bearer {self._key}".encode())
        ):
            _send(connection, 401, b'{"error":{"message":"Invalid API Key","code":401}}')
        elif path == "/ws" and b"sec-websocket-key" in headers:
            _echo(connection, b"".join((*head, b"\r\n")))
            return False
        elif method == "GET":
            self._get(connection, path)
        elif headers.get(b"content-type", b"").startswith(b"multipart/form-data"):
            _send(connection, 200, _form(headers[b"content-type"], body))
        else:
            self._chat(connection, body)
        is_last = headers.get(b"connection", b"").lower() == b"close"
        return not is_last

    def _get(self, connection: socket.socket, path: str) -> None:
        if path == "/health" and "no_health" not in self._knobs:
            is_late = time.monotonic() < self._healthy_at
            if is_late or "never_healthy" in self._knobs:
                _send(connection, 503, b'{"error":{"message":"Loading model","code":503}}')
            else:
                _send(connection, 200, b'{"status":"ok"}')
        elif path == "/v1/models":
            model = {"id": self._alias, "object": "model", "created": 1, "owned_by": "fake"}
            _send(connection, 200, json.dumps({"object": "list", "data": [model]}).encode())
        elif path == "/fake/stats":
            _send(connection, 200, self._stats.to_json())
        else:
            _send(connection, 404, b'{"error":{"message":"File Not Found","code":404}}')

    def _chat(self, connection: socket.socket, body: bytes) -> None:
        try:
            request = json.loads(body)
            tokens = int(request.get("tokens", 3))
            delay = float(request.get("delay", 0))
            status = int(request.get("status", 200))
            nonce = str(request.get("nonce", ""))
            model = request.get("model", self._alias)
            is_stream = request.get("stream", False) is True
        except (ValueError, TypeError, AttributeError):
            _send(connection, 400, b'{"error":{"message":"bad request","code":400}}')
            return
        if status != 200:
            _send(connection, status, b'{"error":{"message":"as you like it"}}')
            return
        if nonce:
            log(f"nonce {nonce}")
        pieces = [f" {nonce}:{number + 1}" if nonce else PIECE for number in range(tokens)]
        self._stats.add("in_flight")
        try:
            if is_stream:
                self._stream(connection, model, pieces, delay)
            else:
                time.sleep(tokens * delay)
                self._stats.add("tokens", tokens)
                _send(connection, 200, _document(model, "".join(pieces)))
        except OSError:
            self._stats.add("aborted")
            raise
        finally:
            self._stats.add("in_flight", -1)

    def _stream(
        self, connection: socket.socket, model: str, pieces: list[str], delay: float
    ) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for piece in pieces:
            self._wait_for_client(connection, delay)
            connection.sendall(_chunk(b"data: " + _event(model, piece) + b"\n\n"))
            self._stats.add("tokens")
        connection.sendall(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def _wait_for_client(self, connection: socket.socket, seconds: float) -> None:
        """Sleep, but notice a client that hangs up meanwhile (raises ConnectionError)."""
        connection.settimeout(seconds if seconds > 0 else 0.000001)
        try:
            if connection.recv(1, socket.MSG_PEEK) == b"":
                raise ConnectionResetError
        except TimeoutError:
            pass
        finally:
            connection.settimeout(None)


def _echo(connection: socket.socket, head: bytes) -> None:
    """Speak WebSocket on the connection until either side closes it."""
    # Only here: it takes longer to import than everything else.
    from websockets.frames import Frame, Opcode
    from websockets.http11 import Request
    from websockets.server import ServerProtocol

    protocol = ServerProtocol()
    data = head
    while True:
        protocol.receive_data(data) if data else protocol.receive_eof()
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Frame):
                content = bytes(event.data)
                if event.opcode is Opcode.TEXT and content.startswith(b"close "):
                    protocol.send_close(int(content[6:]), "as you like it")
                elif event.opcode is Opcode.TEXT:
                    protocol.send_text(content)
                elif event.opcode is Opcode.BINARY:
                    protocol.send_binary(content)
        for piece in protocol.data_to_send():
            if not piece:
                return
            connection.sendall(piece)
        data = connection.recv(65536)


def _form(content_type: bytes, body: bytes) -> bytes:
    """A transcription whose ``text`` names the fields, with each part of the form beside it."""
    boundary = content_type.partition(b"boundary=")[2].strip(b'"')
    parts = []
    # The first piece is what stands before the first boundary, the last what is after the end.
    for piece in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        names = dict(_PARAMETER.findall(head.decode()))
        is_file = "filename" in names
        names["value"] = hashlib.sha256(content).hexdigest() if is_file else content.decode()
        parts.append(names)
    text = " ".join(part["name"] for part in parts)
    return json.dumps({"text": text, "parts": parts}).encode()


def _send(connection: socket.socket, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    connection.sendall(head.encode() + b"\r\n\r\n" + body)


def _chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _event(model: str, piece: str) -> bytes:
    choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
    return json.dumps(
        {"id": "fake", "object": "chat.completion.chunk", "model": model, "choices": [choice]}
    ).encode()


def _document(model: str, text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps(
        {"id": "fake", "object": "chat.completion", "model": model, "choices": [choice]}
    ).encode()


def _end(knobs: Knobs) -> None:
    if "crash_signal" in knobs:
        number = int(knobs.number("crash_signal"))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(int(knobs.number("exit_code", 1)))


def _start_child(kind: str) -> None:
    """A child that outlives this process unless somebody ends it."""
    if os.fork() == 0:
        if kind == "session":
            os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(600)
        os._exit(0)


def _option(arguments: list[str], name: str, default: str) -> str:
    for at, word in enumerate(arguments):
        if word == name and at + 1 < len(arguments):
            return arguments[at + 1]
        if word.startswith(name + "="):
            return word.partition("=")[2]
    return default


def main() -> None:
    arguments = sys.argv[1:]
    if "--help" in arguments:
        print(__doc__)
        return
    model = _option(arguments, "--model", "fake")
    knobs = Knobs(model)
    for number, knob in ((signal.SIGINT, "ignore_sigint"), (signal.SIGTERM, "ignore_sigterm")):
        ignored = knob in knobs
        signal.signal(number, signal.SIG_IGN if ignored else lambda *_: os._exit(0))
    for line in range(int(knobs.number("log_lines"))):
        log(f"line {line}")
    if "print" in knobs:
        log(knobs.text("print"))
    if "child" in knobs:
        _start_child(knobs.text("child"))
    exits_at_once = "exit_code" in knobs or "crash_signal" in knobs
    if exits_at_once and "crash_after" not in knobs:
        _end(knobs)
    time.sleep(knobs.number("bind_seconds"))
    host, port = _option(arguments, "--host", "127.0.0.1"), _option(arguments, "--port", "8080")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, int(port)), family=family, backlog=512)
    except OSError as error:
        log(f"couldn't bind HTTP server socket, hostname: {host}, port: {port}: {error}")
        sys.exit(1)
    if "crash_after" in knobs:
        timer = threading.Timer(knobs.number("crash_after"), _end, (knobs,))
        timer.daemon = True
        timer.start()
    log(f"main: server is listening on http://{host}:{port}")
    Server(knobs, _option(arguments, "--alias", model)).serve_forever(listener)


if __name__ == "__main__":
    main()
