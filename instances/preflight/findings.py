"""What is said about an option that does not fit what is really there?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nodes.agent import FindingDocument


class Severity(StrEnum):
    ERROR = "error"
    """It can't start like this."""
    WARNING = "warning"
    """It may not start like this, or could not be checked."""


@dataclass(frozen=True)
class PreflightFinding:
    """One thing that was found."""

    field: str
    """As the options document names it: ``backend_options.model``, ``command_override``."""
    severity: Severity
    message: str
    """A sentence without the field's name; no value of a secret is in it."""
    suggestion: str = ""
    """What to do instead, or an empty text."""

    @property
    def is_error(self) -> bool:
        return self.severity is Severity.ERROR

    @property
    def sentence(self) -> str:
        """Message and suggestion as one text for people."""
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
