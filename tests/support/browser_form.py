"""The fields of a page's form, as a browser would send them back."""

from __future__ import annotations

from html.parser import HTMLParser


class _Fields(HTMLParser):
    """Successful controls (HTML 4.10.21.4) of every form of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, str]] = []
        self._select: str | None = None
        self._options: list[tuple[str, bool]] = []
        self._area: str | None = None
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        name = given.get("name", "")
        if tag == "textarea":
            self._area, self._text = name, ""
        elif tag == "select":
            self._select, self._options = name, []
        elif tag == "option" and self._select is not None:
            self._options.append((given.get("value", ""), "selected" in given))
        elif tag == "input" and name and "disabled" not in given:
            kind = given.get("type", "text")
            if kind in ("checkbox", "radio") and "checked" in given:
                self.found.append((name, given.get("value", "on")))
            elif kind not in ("checkbox", "radio", "submit", "button", "image", "file"):
                self.found.append((name, given.get("value", "")))

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._area is not None:
            # A line break right after the tag is no part of the value; the others become CRLF.
            text = self._text.removeprefix("\n").replace("\r\n", "\n").replace("\n", "\r\n")
            self.found.append((self._area, text))
            self._area = None
        elif tag == "select" and self._select is not None:
            chosen = [value for value, is_chosen in self._options if is_chosen]
            first = [self._options[0][0]] if self._options else []
            self.found += [(self._select, value) for value in chosen or first]
            self._select = None


def browser_form(page: str, **changes: str) -> dict[str, list[str]]:
    """Return the form data of ``page`` with some fields changed, ready for a test client's post."""
    parser = _Fields()
    parser.feed(page)
    data: dict[str, list[str]] = {}
    for name, value in parser.found:
        data.setdefault(name, []).append(value)
    return data | {name: [value] for name, value in changes.items()}
