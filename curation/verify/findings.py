"""What a check found: told at once in a line each, counted by check, and never so many that they bury each other."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LISTED: Final = 20
"""Findings of one check in one dataset that are told and kept; the others are counted."""


class Severity(StrEnum):
    """`WRONG` makes a dataset unfit for use. `NOTE` is something to know: what lies about, what is accounted for."""

    WRONG = "wrong"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. `check` is the kind of check, `where` the file, sample or dataset it is about."""

    severity: Severity
    check: str
    where: str
    what: str

    @property
    def line(self) -> str:
        """The finding for a person."""
        return f"{self.severity}: {self.where}: {self.what}"


class Findings:
    """Collects findings; `tell` is handed each line as it comes. Memory is bounded by the number of checks."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self.kept: list[Finding] = []
        self.counts: dict[Severity, Counter[str]] = {severity: Counter() for severity in Severity}

    def wrong(self, check: str, where: str, what: str) -> None:
        """Something is not as it must be."""
        self._add(Finding(Severity.WRONG, check, where, what))

    def note(self, check: str, where: str, what: str) -> None:
        """Something to know that is not wrong."""
        self._add(Finding(Severity.NOTE, check, where, what))

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong so far."""
        return not self.counts[Severity.WRONG]

    def _add(self, finding: Finding) -> None:
        counter = self.counts[finding.severity]
        counter[finding.check] += 1
        if counter[finding.check] <= LISTED:
            self.kept.append(finding)
            self._tell(finding.line)
        elif counter[finding.check] == LISTED + 1:
            self._tell(f"{finding.severity}: {finding.check}: more of these are counted, not listed")
