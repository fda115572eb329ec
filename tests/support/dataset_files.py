"""What a dataset directory holds, for comparing two of them to the byte."""

import contextlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq

Files = Mapping[str, bytes]
"""The content of files by their path in a dataset."""


def data_of(root: Path) -> dict[str, bytes]:
    """Every file of a dataset except the runs' summaries; of ledger entries, all but how the run went."""
    data = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = str(path.relative_to(root))
        if not name.startswith("runs/"):
            data[name] = without_run(name, path.read_bytes())
    return data


def without_run(name: str, content: bytes) -> bytes:
    """Of a ledger entry, all but how the run went; of another file, all."""
    if not name.startswith("ledger/"):
        return content
    return json.dumps({k: v for k, v in json.loads(content).items() if k != "run"}).encode()


@dataclass(frozen=True, slots=True)
class Difference:
    """How a dataset differs from that of an undisturbed run: input keys without a row or with several, bytes (of
    missing and of additional files all), and the files that differ."""

    lost: int = 0
    twice: int = 0
    bytes: int = 0
    files: tuple[str, ...] = ()


def difference(data: Files, expected: Files, keys: Sequence[str]) -> Difference:
    """Compare `data` with what it must be, and its rows, kept or rejected, with the input's `keys`."""
    tables = [name for name in data if re.fullmatch(r"(rejects/)?[^/]+\.parquet", name)]
    rows = Counter(key for name in tables for key in pq.read_table(io.BytesIO(data[name]))["key"].to_pylist())
    asked = Counter(keys)
    files = tuple(name for name in sorted({*data, *expected}) if data.get(name) != expected.get(name))
    differing = sum(_differing_bytes(data.get(name, b""), expected.get(name, b"")) for name in files)
    return Difference((asked - rows).total(), (rows - asked).total(), differing, files)


def _differing_bytes(one: bytes, other: bytes) -> int:
    # The bytes that only the longer one has count as well.
    return sum(a != b for a, b in zip(one, other, strict=False)) + abs(len(one) - len(other))


def broken_promises(root: Path, expected: Files) -> list[str]:
    """What a reader would find wrong now with what ledger entries vouch for; other processes may be writing."""
    entries = [content for path in (root / "ledger").glob("*.json") if (content := _read(path)) is not None]
    return broken_among(entries, lambda path: _read(root / path), expected)


def broken_among(entries: Iterable[bytes], read: Callable[[str], bytes | None], expected: Files) -> list[str]:
    """See `broken_promises`; `read` gives a file's content, or None where there is none."""
    wrong = []
    for output in [output for entry in entries for output in json.loads(entry)["outputs"]]:
        content = read(output["path"])
        if content is None:
            wrong.append(f"{output['path']} is not there")
        elif len(content) != output["bytes"] or content != expected.get(output["path"]):
            wrong.append(f"{output['path']} is not that of the undisturbed run")
    return wrong


def units_done(root: Path) -> int:
    """How many units have a ledger entry."""
    return len(list((root / "ledger").glob("*.json")))


def units_in_flight(root: Path, *, of_dead: bool = True) -> set[str]:
    """Units that were begun and have no ledger entry: by files under a temporary name, or in place already.

    With `of_dead`, those that no living process works at.
    """
    dead, living, placed = set(), set(), set()
    for path in [path for folder in ("", "rejects", "ledger") for path in (root / folder).glob("*")]:
        name, _, process = path.name.lstrip(".").partition(".tmp-")
        found = re.match(r"(.+-\d{5})\.", f"{name}.")
        if found is not None:
            kind = (living if _lives(int(process.split("-")[1])) else dead) if process else placed
            kind.add(found[1])
    placed -= {path.stem for path in (root / "ledger").glob("*.json")} | living
    return dead | placed if of_dead else dead | placed | living


def _lives(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _read(path: Path) -> bytes | None:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return None
