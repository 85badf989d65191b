"""A WebSocket connection that echoes every message, until a text says ``close CODE``."""

from __future__ import annotations

import socket

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol


def echo(connection: socket.socket, data: bytes) -> None:
    """Serve a blocking socket until it is closed; ``data`` is the handshake, already read."""
    protocol = ServerProtocol()
    while True:
        protocol.receive_data(data) if data else protocol.receive_eof()
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Frame):
                _answer(protocol, event)
        for piece in protocol.data_to_send():
            if not piece:
                return
            connection.sendall(piece)
        data = connection.recv(65536)


def _answer(protocol: ServerProtocol, frame: Frame) -> None:
    content = bytes(frame.data)
    if frame.opcode is Opcode.TEXT and content.startswith(b"close "):
        protocol.send_close(int(content[6:]), "as you like it")
    elif frame.opcode is Opcode.TEXT:
        protocol.send_text(content)
    elif frame.opcode is Opcode.BINARY:
        protocol.send_binary(content)
