"""Report of an import: one entry for each instance and key."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    IMPORTED = "imported"
    UNCHANGED = "already imported"
    REFUSED = "not imported"


@dataclass
class Entry:
    """The outcome for one instance or key, and what the operator has to know of it."""

    kind: str
    name: str
    outcome: Outcome = Outcome.IMPORTED
    notes: list[str] = field(default_factory=list)

    def refuse(self, reason: str) -> None:
        self.outcome = Outcome.REFUSED
        self.notes.append(reason)

    def lines(self) -> list[str]:
        return [f"{self.kind} {self.name}: {self.outcome}", *(f"    {note}" for note in self.notes)]


@dataclass
class Report:
    """The entries of an import, in the order of the Go database."""

    instances: list[Entry] = field(default_factory=list)
    keys: list[Entry] = field(default_factory=list)

    @property
    def entries(self) -> list[Entry]:
        return [*self.instances, *self.keys]

    @property
    def has_refusals(self) -> bool:
        return any(entry.outcome is Outcome.REFUSED for entry in self.entries)

    def summary(self) -> str:
        """Return one sentence with the counts."""
        parts = [
            f"{_count(entries, outcome)} {noun}{'' if _count(entries, outcome) == 1 else 's'}"
            f" {outcome}"
            for noun, entries in (("instance", self.instances), ("key", self.keys))
            for outcome in Outcome
            if _count(entries, outcome) or outcome is Outcome.IMPORTED
        ]
        return ", ".join(parts)


def _count(entries: list[Entry], outcome: Outcome) -> int:
    return sum(entry.outcome is outcome for entry in entries)
