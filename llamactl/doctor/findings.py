"""What has been found, how bad is it, and how is it told?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from llamactl.config.problems import printable
from llamactl.masking import mask_text


class DiagnosisLevel(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Worth knowing, and nothing to do."""
    WARNING = "warning"
    """It works, and may not for long."""
    PROBLEM = "problem"


_MARKS = {
    DiagnosisLevel.OK: "✓",
    DiagnosisLevel.NOTE: "·",
    DiagnosisLevel.WARNING: "!",
    DiagnosisLevel.PROBLEM: "✗",
}
_SUBJECT_WIDTH = 16


@dataclass(frozen=True)
class Diagnosis:
    severity: DiagnosisLevel
    subject: str
    message: str
    remedy: str = ""

    def to_document(self) -> dict[str, str]:
        document = {
            "severity": self.severity.value,
            "subject": self.subject,
            "message": mask_text(self.message),
        }
        return document | ({"remedy": mask_text(self.remedy)} if self.remedy else {})


def ok(subject: str, message: str) -> Diagnosis:
    return Diagnosis(DiagnosisLevel.OK, subject, message)


def note(subject: str, message: str, remedy: str = "") -> Diagnosis:
    return Diagnosis(DiagnosisLevel.NOTE, subject, message, remedy)


def warning(subject: str, message: str, remedy: str) -> Diagnosis:
    return Diagnosis(DiagnosisLevel.WARNING, subject, message, remedy)


def problem(subject: str, message: str, remedy: str) -> Diagnosis:
    return Diagnosis(DiagnosisLevel.PROBLEM, subject, message, remedy)


def exit_code(findings: Iterable[Diagnosis]) -> int:
    """1 where something doesn't work; a warning is none of that."""
    return int(any(finding.severity is DiagnosisLevel.PROBLEM for finding in findings))


def to_lines(finding: Diagnosis) -> list[str]:
    """For a person. A name or a path from outside brings no line break or escape with it."""
    head = f"{_MARKS[finding.severity]} {finding.subject:<{_SUBJECT_WIDTH}} "
    lines = [head + printable(mask_text(finding.message))]
    if finding.remedy:
        lines.append(f"{'':<{_SUBJECT_WIDTH + 3}}→ {printable(mask_text(finding.remedy))}")
    return lines


def summary(findings: Sequence[Diagnosis]) -> str:
    problems = sum(finding.severity is DiagnosisLevel.PROBLEM for finding in findings)
    warnings = sum(finding.severity is DiagnosisLevel.WARNING for finding in findings)
    if not problems and not warnings:
        return "All is well."
    return f"{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}."


def to_json(findings: Sequence[Diagnosis]) -> str:
    document = {
        "ok": not exit_code(findings),
        "findings": [finding.to_document() for finding in findings],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def size(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _counted(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


def guarded(subject: str, check: Callable[[], Iterator[Diagnosis]]) -> Iterator[Diagnosis]:
    """A check that fails itself is a finding, and no reason to stop."""
    try:
        yield from check()
    except Exception as error:
        yield problem(
            subject,
            f"could not be looked at: {type(error).__name__}: {str(error)[:200]}",
            "run this as the user that runs llamactl",
        )
