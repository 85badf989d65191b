"""The error that ends the program with one line of advice."""

from __future__ import annotations


class StartError(Exception):
    """The reason why the server can't be started, as a sentence for the operator."""
