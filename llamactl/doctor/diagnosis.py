"""Diagnosis of one check: its level, message and remedy, as text and as JSON."""

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
    """Information; nothing to do."""
    WARNING = "warning"
    """It works now, and may stop working."""
    PROBLEM = "problem"
    """Something does not work."""


_MARKS = {
    DiagnosisLevel.OK: "✓",
    DiagnosisLevel.NOTE: "·",
    DiagnosisLevel.WARNING: "!",
    DiagnosisLevel.PROBLEM: "✗",
}
_SUBJECT_WIDTH = 16


@dataclass(frozen=True)
class Diagnosis:
    level: DiagnosisLevel
    subject: str
    message: str
    remedy: str = ""

    def to_document(self) -> dict[str, str]:
        document = {
            "severity": self.level.value,
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


def exit_code(diagnoses: Iterable[Diagnosis]) -> int:
    """1 if there is a problem; warnings do not count."""
    return int(any(each.level is DiagnosisLevel.PROBLEM for each in diagnoses))


def to_lines(diagnosis: Diagnosis) -> list[str]:
    """Convert to lines for a terminal, without the control characters of foreign names."""
    head = f"{_MARKS[diagnosis.level]} {diagnosis.subject:<{_SUBJECT_WIDTH}} "
    lines = [head + printable(mask_text(diagnosis.message))]
    if diagnosis.remedy:
        lines.append(f"{'':<{_SUBJECT_WIDTH + 3}}→ {printable(mask_text(diagnosis.remedy))}")
    return lines


def summary(diagnoses: Sequence[Diagnosis]) -> str:
    problems = sum(each.level is DiagnosisLevel.PROBLEM for each in diagnoses)
    warnings = sum(each.level is DiagnosisLevel.WARNING for each in diagnoses)
    if not problems and not warnings:
        return "No problems, no warnings."
    return f"{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}."


def to_json(diagnoses: Sequence[Diagnosis]) -> str:
    document = {
        "ok": not exit_code(diagnoses),
        "findings": [diagnosis.to_document() for diagnosis in diagnoses],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def size(count: float) -> str:
    """Format a number of bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _counted(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def guarded(subject: str, check: Callable[[], Iterator[Diagnosis]]) -> Iterator[Diagnosis]:
    """Run a check; an error of the check itself becomes a diagnosis."""
    try:
        yield from check()
    except Exception as error:
        yield problem(
            subject,
            f"could not be checked: {type(error).__name__}: {str(error)[:200]}",
            "run the doctor as the user that runs llamactl",
        )
