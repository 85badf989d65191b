"""Renderer of form fields that keeps a page's text narrow.

Python keeps a text in four bytes a character as soon as one character is above U+FFFF. A page of
the admin is joined several times while it is rendered, so one emoji in a form that is shown again
took 1 MB, and one in a form of 32 KiB 1.6 MB.
"""

from __future__ import annotations

from typing import Any

from django.forms.renderers import DjangoTemplates


class NarrowRenderer(DjangoTemplates):
    """Django's default renderer, with characters above U+00FF as character references.

    A browser shows the same, in the values of attributes and text areas too. No widget of the admin
    renders a script, where a reference would stay as it is.
    """

    def render(self, template_name: str, context: Any, request: Any = None) -> str:
        text = super().render(template_name, context, request)
        if text.isascii():
            return text
        return text.encode("latin-1", "xmlcharrefreplace").decode("latin-1")
