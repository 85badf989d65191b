"""Backend options with a field of their own in the admin's form."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OptionField:
    """Form field of one backend option; every other option is written as JSON."""

    option: str
    label: str
    help_text: str
    is_text: bool = False
    """Whether a value stays text where the value looks like a number."""


MODEL = OptionField(
    "model",
    "Model",
    "Path of a model file, or a repository where the backend takes one.",
    is_text=True,
)
"""For all backends: the form has one field for each option name."""
