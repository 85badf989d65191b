"""Django's request, with a parser of urlencoded forms that takes little memory.

``urllib.parse.unquote`` makes two objects for each percent sign: 2 MiB of ``%41`` take 150 MB, and
the login page parses forms of clients without an account.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from django.conf import settings
from django.core.exceptions import TooManyFieldsSent
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

from llamactl.core.host_request import HostRequest

STEP_BYTES = 3 * 1024


class FormRequest(HostRequest):
    """The request of ``llamactl.asgi``."""

    def _load_post_and_files(self) -> None:
        is_form = self.content_type == "application/x-www-form-urlencoded"
        is_readable = hasattr(self, "_body") or not getattr(self, "_read_started", False)
        if self.method == "POST" and is_form and is_readable and self.encoding in (None, "utf-8"):
            self._post = form_values(self.body)
            self._files: MultiValueDict[str, object] = MultiValueDict()
        else:
            super()._load_post_and_files()


def form_values(body: bytes) -> QueryDict:
    """The fields of an urlencoded form. Raises TooManyFieldsSent."""
    limit = settings.DATA_UPLOAD_MAX_NUMBER_FIELDS
    if limit is not None and body.count(b"&") + 1 > limit:
        raise TooManyFieldsSent(f"The number of GET/POST parameters exceeded {limit}.")
    try:
        body.decode()
    except UnicodeDecodeError:
        body = body.decode("latin-1").encode()  # as in Django
    values = QueryDict(encoding="utf-8", mutable=True)
    for field in body.split(b"&"):
        if field:
            name, _, value = field.partition(b"=")
            values.appendlist(unquoted(name), unquoted(value))
    values._mutable = False  # as Django's own parser does
    return values


def unquoted(text: bytes) -> str:
    """A name or value in plain text."""
    text = text.replace(b"+", b" ")
    if b"%" in text:
        plain = bytearray()
        at = 0
        while at < len(text):
            end = at + STEP_BYTES
            # A step must not end within a percent sequence.
            cut = text.rfind(b"%", end - 2, end)
            end = end if cut == -1 else cut
            plain += unquote_to_bytes(text[at:end])
            at = end
        return plain.decode("utf-8", "replace")
    return text.decode("utf-8", "replace")
