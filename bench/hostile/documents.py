"""Bodies at their limits: JSON of the inference and the management API, and forms."""

from __future__ import annotations

from collections.abc import Iterator

from bench.hostile.request import MANAGEMENT, MIB, Input, admin_post, post

_JSON = b"application/json"
_MULTIPART = b"multipart/form-data; boundary=b"
_URLENCODED = b"application/x-www-form-urlencoded"


def json_values(size: int) -> Iterator[tuple[str, bytes]]:
    """Values of about ``size`` bytes: those that take the most time or memory to parse."""
    yield "a text", b'"' + b"a" * size + b'"'
    yield "a text with a wide character", b'"' + b"a" * size + "😀".encode() + b'"'
    yield "a text of wide characters", b'"' + "😀".encode() * (size // 4) + b'"'
    yield "escapes", b'"' + b"\\u4e2d" * (size // 6) + b'"'
    yield "quotation marks", b'"' + b'\\"' * (size // 2) + b'"'
    yield "empty texts", b"[" + b'"",' * (size // 3) + b'""]'
    yield "short texts", b"[" + b'"ab",' * (size // 5) + b'""]'
    yield "numbers", b"[" + b"1," * (size // 2) + b"1]"
    yield "a long number", b"1" * size
    yield "floats", b"[" + b"1.5e9," * (size // 6) + b"1]"
    yield "objects", b"[" + b'{"":1},' * (size // 7) + b"{}]"
    yield "empty lists", b"[" + b"[]," * (size // 3) + b"[]]"
    yield "nested lists", b"[" * (size // 2) + b"]" * (size // 2)
    yield "nested lists of 900", (b"[" * 900 + b"]" * 900 + b",").join([b""] * (size // 1801))[1:]
    yield "nested objects", b'{"a":' * (size // 6) + b"1" + b"}" * (size // 6)
    yield "blanks", b"[" + b" " * size + b"]"
    names = b",".join(b'"%x":1' % number for number in range(size // 10))
    yield "different names", b"{" + names + b"}"
    yield "literals", b"[" + b"true," * (size // 5) + b"null]"


def inference_documents() -> Iterator[Input]:
    """Chats of 32 MiB, half of the default limit."""
    for path in (b"/v1/chat/completions", b"/v1/messages", b"/v1/embeddings"):
        for kind, value in json_values(32 * MIB):
            body = b'{"messages":' + value + b',"model":"hostile"}'
            yield post(path, _JSON, body, name=f"{kind} in JSON to {path.decode()}")
    chat = b"/v1/chat/completions"
    for kind, value in json_values(MIB):
        yield post(chat, _JSON, b'{"model":' + value + b"}", name=f"{kind} as model")
    for count in (9, 20_000):
        models = b'"model":"hostile",' * count
        yield post(chat, _JSON, b"{" + models + b'"a":1}', name=f"{count} models")


def management_documents() -> Iterator[Input]:
    """Instances, keys and commands at each size up to the limit."""
    for size in (64 * 1024, 256 * 1024, 1000 * 1024, 2 * MIB - 200, 4 * MIB - 200):
        for kind, value in json_values(size):
            name = f"{kind} of {size >> 10} KiB"
            options = b'{"backend_type":"llama_cpp","backend_options":{"model":%b}}' % value
            path = b"/api/v1/instances/hostile2"
            yield post(path, _JSON, options, name=f"{name} in an instance", key=MANAGEMENT)
            path = b"/api/v1/backends/llama-cpp/parse-command"
            command = b'{"command":%b}' % value
            yield post(path, _JSON, command, name=f"{name} in a command", key=MANAGEMENT)
        key = b'{"name":"%b","permission_mode":"allow_all"}' % (b"a" * size)
        yield post(b"/api/v1/auth/keys", _JSON, key, name=f"a key of {size}", key=MANAGEMENT)


def forms() -> Iterator[Input]:
    """Forms of the admin, with a session and without, and of the inference API."""
    for size in (16 * 1024, 32 * 1024 - 200, 256 * 1024, 2 * MIB, 4 * MIB - 200):
        for kind, content_type, body in _form_bodies(size):
            name = f"{kind} of {size >> 10} KiB"
            yield post(b"/admin/login/", content_type, body, name=f"{name} to the login")
            path = b"/admin/instances/instance/add/"
            yield admin_post(path, content_type, body, name=f"{name} to the admin")
            path = b"/admin/auth/group/add/"
            yield admin_post(path, content_type, body, name=f"{name} to the groups")
            path = b"/admin/instances/instance/"
            yield admin_post(path, content_type, body, name=f"{name} to a list")
    for kind, content_type, body in _form_bodies(16 * MIB):
        path = b"/v1/audio/transcriptions"
        yield post(path, content_type, body, name=f"{kind} to transcriptions")


def _form_bodies(size: int) -> Iterator[tuple[str, bytes, bytes]]:
    part = b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n'
    end = b"\r\n--b--\r\n"
    wide = "😀".encode()
    yield "a field", _URLENCODED, b"name=" + b"a" * size
    yield "a wide field", _URLENCODED, b"name=" + b"a" * size + b"%F0%9F%98%80"
    yield "quotation marks", _URLENCODED, b"name=" + b'"' * size
    yield "a wide variable", _URLENCODED, b"environment=" + b"a" * size + b"%F0%9F%98%80"
    yield "deep options", _URLENCODED, b"further_options=" + b"[" * size
    yield "wide options", _URLENCODED, b'further_options={"a":"' + b"a" * size + wide + b'"}'
    yield "an escaped field", _URLENCODED, b"name=" + b"%41" * (size // 3)
    yield "many fields", _URLENCODED, b"a=&" * (size // 3)
    yield "900 fields", _URLENCODED, (b"a=" + b"b" * (size // 900 - 3) + b"&") * 900
    yield "pluses", _URLENCODED, b"name=" + b"+" * size
    yield "a part", _MULTIPART, part % (b"name", b"") + b"a" * size + end
    yield "a wide part", _MULTIPART, part % (b"name", b"") + b"a" * size + wide + end
    yield "line ends", _MULTIPART, part % (b"name", b"") + b"\r\n" * (size // 2) + end
    yield "dashes", _MULTIPART, part % (b"name", b"") + b"\r\n-" * (size // 3) + end
    yield "a file", _MULTIPART, part % (b"x", b'; filename="y"') + b"a" * size + end
    yield "many parts", _MULTIPART, (part % (b"a", b"") + b"\r\n") * (size // 53) + b"--b--\r\n"
    files = part % (b"a", b'; filename="y"') + b"\r\n"
    yield "many files", _MULTIPART, files * (size // 67) + b"--b--\r\n"
    base64 = b"\r\nContent-Transfer-Encoding: base64"
    yield "base64", _MULTIPART, part % (b"name", base64) + b"QUFB" * (size // 4) + end
    yield "no boundary", _MULTIPART, b"a" * size
