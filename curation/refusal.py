"""Why a row was refused: the record that every part of curation hands back instead of raising."""

import re
from dataclasses import dataclass
from typing import Final

from schemas.status import RejectReason

_LONGEST_DETAIL: Final = 200
_ADDRESS: Final = re.compile(r"\b0x[0-9a-fA-F]{6,}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused row: a stable reason code, and one line for a person.

    `detail` is made one line of at most 200 characters, with memory addresses masked, so that the same bytes give the
    same rejects table in every run.
    """

    reason: RejectReason
    detail: str

    def __post_init__(self) -> None:
        line = " ".join(_ADDRESS.sub("0x…", self.detail).split())
        if len(line) > _LONGEST_DETAIL:
            line = line[: _LONGEST_DETAIL - 1] + "…"
        object.__setattr__(self, "detail", line)
