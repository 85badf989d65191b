"""Findings of a preflight check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nodes.agent import FindingDocument


class Severity(StrEnum):
    ERROR = "error"
    """The instance can't start like this."""
    WARNING = "warning"
    """The instance may not start like this, or the option could not be checked."""


@dataclass(frozen=True)
class PreflightFinding:
    """An option that does not fit the program or the files on disk."""

    field: str
    """The option's path in the document: ``backend_options.model``, ``command_override``."""
    severity: Severity
    message: str
    """A sentence without the field's name, and without the value of a secret."""
    suggestion: str = ""
    """Advice, or an empty text."""

    @property
    def is_error(self) -> bool:
        return self.severity is Severity.ERROR

    @property
    def sentence(self) -> str:
        """Message and suggestion as one text."""
        return f"{self.message}; {self.suggestion}" if self.suggestion else self.message

    @property
    def text(self) -> str:
        """The same, with the name of the field."""
        return f"{self.field}: {self.sentence}"

    @classmethod
    def from_document(cls, document: FindingDocument) -> PreflightFinding:
        return cls(
            document["field"],
            Severity(document["severity"]),
            document["message"],
            document["suggestion"],
        )

    def to_document(self) -> FindingDocument:
        return {
            "field": self.field,
            "severity": self.severity.value,
            "message": self.message,
            "suggestion": self.suggestion,
        }


def error(field: str, message: str, suggestion: str = "") -> PreflightFinding:
    return PreflightFinding(field, Severity.ERROR, message, suggestion)


def warning(field: str, message: str, suggestion: str = "") -> PreflightFinding:
    return PreflightFinding(field, Severity.WARNING, message, suggestion)
