"""The real img2dataset against a server on loopback that serves photographs, well and badly.

It needs img2dataset: in this environment, or in one of its own that LATENTMILL_IMG2DATASET_PYTHON names (make it with
`python -m pipelines.ingest --make-environment DIR`).
"""

import importlib.util
import io
import os
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from picture_server import (
    HTML,
    Answer,
    PictureServer,
    after,
    body,
    cut_short,
    half_without_length,
    hang_up,
    redirect,
    serving,
    silent,
    status,
)

from pipelines.ingest import main
from schemas.reading import Dataset, open_dataset
from schemas.tables import IMAGES, REJECTS

PYTHON = os.environ.get("LATENTMILL_IMG2DATASET_PYTHON") or (
    sys.executable if importlib.util.find_spec("img2dataset") else None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        PYTHON is None, reason="no img2dataset here: name its interpreter in LATENTMILL_IMG2DATASET_PYTHON"
    ),
]


@dataclass(slots=True)
class Web:
    """A server, the rows of the metadata that point at it, and what should become of each."""

    server: PictureServer
    rows: list[dict[str, object]] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)

    def add(self, url: str, expected: str, picture: bytes = b"") -> None:
        key = f"{len(self.rows):09d}"
        self.rows.append({"URL": url, "TEXT": f"caption of {key}", "similarity": 0.3, "punsafe": 0.01})
        self.expected.append(expected)
        if picture:
            self.pictures[key] = picture

    def serve(self, answer: Answer, expected: str, picture: bytes = b"") -> str:
        url = self.server.put(f"/{len(self.rows)}.jpg", answer)
        self.add(url, expected, picture)
        return url


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of the command left: what became of each row, which paths were asked for, and the first tar."""

    dataset: Dataset
    outcome: dict[str, str]
    asked: Counter[str]
    tar: bytes


@dataclass(frozen=True, slots=True)
class Runs:
    """Two runs of one command; before the second, the server answers in time where it had not."""

    web: Web
    first: Run
    second: Run
    out: Path


def fill(web: Web, photographs: list[bytes]) -> None:
    """Seven photographs, and one of each thing that goes wrong."""
    server = web.server
    first = web.serve(body(photographs[0]), "kept", photographs[0])
    for photograph in photographs[1:4]:
        web.serve(body(photograph), "kept", photograph)
    web.serve(status(404), "http_404")
    web.serve(silent(60), "timeout")
    web.serve(after(0.3, body(photographs[4])), "kept", photographs[4])
    web.serve(cut_short(photographs[5]), "truncated")
    web.serve(half_without_length(photographs[5]), "corrupt")
    web.serve(body(HTML), "not_an_image")
    web.serve(body(b""), "empty_file")
    web.serve(redirect("/elsewhere"), "kept", photographs[6])
    server.put("/elsewhere", body(photographs[6]))
    web.serve(redirect(f"/{len(web.rows)}.jpg"), "bad_redirect")
    web.add(first, "dropped")
    web.serve(status(503), "http_5xx")
    web.serve(hang_up, "connection")
    web.serve(body(photographs[7], headers={"X-Robots-Tag": "noai"}), "opted_out")
    web.add("http://127.0.0.1:9/closed.jpg", "connection")
    web.add("file:///etc/hostname", "dropped")
    server.put("/a%20b%C3%A9.jpg", body(photographs[7]))
    web.add(f"{server.url}/a bé.jpg", "kept", photographs[7])


@pytest.fixture(scope="module")
def runs(
    data_folder: Path, read_tar: Callable[[Path], dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("ingest")
    photographs = [data for _, data in sorted(read_tar(data_folder / "coco-photos/coco-photos.dev.tar").items())][:8]
    with serving() as server:
        web = Web(server)
        fill(web, photographs)
        pq.write_table(pa.Table.from_pylist(web.rows), folder / "part-0.parquet")
        first = ingest(web, folder)
        server.put(f"/{web.expected.index('timeout')}.jpg", body(photographs[0]))
        yield Runs(web, first, ingest(web, folder), folder / "images")


def ingest(web: Web, folder: Path) -> Run:
    web.server.asked.clear()
    out = folder / "images"
    given = ["--metadata", str(folder / "part-0.parquet"), "--out", str(out), "--img2dataset", str(PYTHON)]
    assert main([*given, "--min-similarity", "0.2", "--timeout", "6", "--tries", "1", "--threads", "8"]) == 0
    dataset = open_dataset(str(out), "images").require_whole()
    rejected = [row for table in dataset.tables(REJECTS, folder="rejects") for row in table.to_pylist()]
    kept = [row for table in dataset.tables(IMAGES) for row in table.to_pylist()]
    assert len(rejected) + len(kept) == sum(entry.rows_in for entry in dataset.entries)
    outcome = {row["key"]: row["reason"] for row in rejected} | {row["key"]: "kept" for row in kept}
    return Run(dataset, outcome, Counter(web.server.asked), (out / "part-0-00000.tar").read_bytes())


def test_each_failure_has_its_reason(runs: Runs) -> None:
    planned = {f"{n:09d}": expected for n, expected in enumerate(runs.web.expected) if expected != "dropped"}
    assert runs.first.outcome == planned


def test_photographs_arrive_to_the_byte(runs: Runs) -> None:
    with tarfile.open(fileobj=io.BytesIO(runs.first.tar)) as tar:
        pictures = {m.name[:9]: tar.extractfile(m).read() for m in tar if m.name.endswith(".jpg")}
    assert pictures == runs.web.pictures


def test_a_url_that_repeats_is_asked_for_once_and_a_file_of_this_machine_never(runs: Runs) -> None:
    (entry,) = runs.first.dataset.entries
    assert entry.counts["dropped: url_seen_before"] == entry.counts["dropped: no_url"] == 1
    assert runs.first.asked["/0.jpg"] == 1


def test_the_next_run_asks_only_for_what_failed(runs: Runs) -> None:
    failed = {f"/{int(key)}.jpg" for key, outcome in runs.first.outcome.items() if outcome != "kept"}
    assert set(runs.second.asked) == failed & set(runs.web.server.answers)


def test_the_next_run_keeps_what_it_has_and_adds_what_came(runs: Runs) -> None:
    mended = f"{runs.web.expected.index('timeout'):09d}"
    assert runs.second.outcome == runs.first.outcome | {mended: "kept"}
    assert runs.second.tar == runs.first.tar
    assert (runs.out / "part-0-00000-retry1.tar").exists()
