"""The canary: the first captions of a run are judged before the rest is paid for.

A wrong prompt, chat template or checkpoint shows in the first few hundred captions. Each worker looks at the first
captions that it makes; past a limit it stops the whole job and shows what it saw, so a broken prompt costs at most that
many captions a worker. A dataset that already holds as many captions made under the same settings has passed, so a job
that goes on is never stopped by a few odd pictures, and neither is one whose worker was replaced.
"""

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from curation.captions.quality_text import text_hash
from curation.shards.target import Target
from schemas.errors import GuardError
from schemas.reading import read_ledger
from schemas.status import CaptionStatus as S

CANARY_LIMITS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "truncated": 0.20,  # or trimmed: what counts is that the engine ran into its limit
        "repetition": 0.10,
        "duplicate": 0.05,  # the text of another picture of the run
        "non_english": 0.05,
        "too_short": 0.20,
        "refusal": 0.02,
        "leak": 0.02,
        "empty": 0.02,
        "engine_error": 0.05,
    }
)
"""Above which share of the first captions the job stops. Good captioners stay far below; a broken prompt far above."""

_SHOWN: Final = 8
_SHOWN_CHARACTERS: Final = 300
_KIND: Final = {S.TRIMMED.value: "truncated"}


class Canary:
    """Judges the first `rows` captions of one worker; `target` and `fingerprint` are those of the dataset it makes."""

    def __init__(self, rows: int, target: Target, fingerprint: str) -> None:
        self._rows, self._target, self._fingerprint = rows, target, fingerprint
        self._seen: dict[str, dict[str, Any]] = {}  # by key: a unit that is tried again is not counted twice

    def see(self, row: Mapping[str, Any]) -> None:
        """Look at one finished row of the captions table. Raises `GuardError` if the first ones are too bad.

        The error's notes are lines to show: limits passed, and up to 8 bad captions with key and status.
        """
        if len(self._seen) >= self._rows:
            return
        self._seen[f"{row['shard']}/{row['key']}"] = {name: row[name] for name in ("status", "generated")}
        if len(self._seen) == self._rows:
            self._judge()

    def _judge(self) -> None:
        kinds = self._kinds()
        counts = Counter(kind for kind in kinds.values() if kind)
        past = [kind for kind, limit in CANARY_LIMITS.items() if counts[kind] > limit * self._rows]
        if not past or _rows_made(self._target, self._fingerprint) >= self._rows:
            return
        found = ", ".join(f"{counts[k] / self._rows:.0%} {k} (limit {CANARY_LIMITS[k]:.0%})" for k in past)
        error = GuardError(
            f"canary: of the first {self._rows:,} captions {found}. Is the prompt, the model or its chat template "
            f"wrong? Nothing of them was published; mend it, or run with --canary 0."
        )
        bad = [name for name, kind in kinds.items() if kind in past]
        for name in sorted(bad, key=lambda name: CANARY_LIMITS[kinds[name]])[:_SHOWN]:
            text = " ".join(self._seen[name]["generated"].split())[:_SHOWN_CHARACTERS]
            error.add_note(f"  {name}  {kinds[name]}  {text!r}")
        raise error

    def _kinds(self) -> dict[str, str]:
        """What is bad about each caption, as `CANARY_LIMITS` names it; empty if nothing is."""
        first: dict[int, str] = {}
        kinds = {}
        for name, row in self._seen.items():
            kind = _KIND.get(row["status"], row["status"])
            text = text_hash(row["generated"])
            if kind == S.OK.value and text is not None and first.setdefault(text, name) != name:
                kind = "duplicate"
            kinds[name] = kind if kind in CANARY_LIMITS else ""
        return kinds


def _rows_made(target: Target, fingerprint: str) -> int:
    """Rows in whole units of the dataset that were made under the same settings."""
    return sum(entry.rows_kept for entry in read_ledger(target.url).entries if entry.fingerprint == fingerprint)
