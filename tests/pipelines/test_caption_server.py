"""`pipelines.caption --engine server` against a small server of the test's own."""

import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from dataset_files import data_of
from stub_server import StubServer

from curation.demo.models import make_llava
from curation.scenes.shards import write_laion_shards
from pipelines import caption
from pipelines.command import run
from schemas.errors import ExitCode

STUB = str(Path(__file__).parents[1] / "support/stub_server.py")
OWN = f"{sys.executable} {STUB} --port {{port}} --model {{model}}"
PICTURES = ("--picture-px", "64", "--picture-pad", "yes")

Change = Callable[[str, Path], list[str]]


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """Arguments of a job of six units, fourteen readable pictures, without a server."""
    write_laion_shards(tmp_path / "shards", shards=2, rows=10, broken=3)
    given = ["--shards", str(tmp_path / "shards" / "*.tar"), "--source", "webdataset", "--engine", "server"]
    return [
        *given,
        "--model",
        "stub",
        "--out",
        str(tmp_path / "captions"),
        "--unit-rows",
        "4",
        "--max-new-tokens",
        "30",
    ]


def ends(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, str]:
    """The exit code and what was said on stderr."""
    with pytest.raises(SystemExit) as exit_:
        run(caption.main, arguments)
    return int(exit_.value.code or 0), capsys.readouterr().err


def rows_of(out: Path) -> list[dict[str, object]]:
    return [row for path in sorted(out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_every_readable_picture_has_one_row_in_the_order_of_its_shard(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "captions"
    with StubServer() as server:
        code, said = ends(capsys, [*given, *PICTURES, "--server-url", server.url])
        assert (code, "20 in = 14 kept + 6 rejected" in said) == (0, True)
        pictures = {asked.picture.size for asked in server.asked if asked.picture.size[0] == asked.picture.size[1]}
    assert (64, 64) in pictures
    rows = rows_of(out)
    keys = [str(row["key"]) for row in rows]
    assert keys == sorted(keys)
    assert len(set(keys)) == 14
    assert {row["error"] for row in rows} == {None}


def test_an_estimate_asks_a_server_for_some_pictures_and_writes_nothing(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StubServer() as server:
        assert caption.main([*given, *PICTURES, "--server-url", server.url, "--concurrency", "64", "--estimate"]) == 0
    said = capsys.readouterr().out
    assert "from 14 pictures of 2 shards in 4 parts" in said
    assert "the engine runs empty, so the job is faster" in said
    assert not (tmp_path / "captions").exists()


def test_a_refused_picture_has_its_row_with_the_reason(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused: list[bytes] = []

    def trouble(asked: object) -> str | None:
        refused.append(b"")
        return "400" if len(refused) == 12 else None  # the checks ask nine times

    with StubServer(trouble=trouble) as server:
        code, said = ends(capsys, [*given, *PICTURES, "--server-url", server.url, "--concurrency", "1"])
    assert (code, "14 kept" in said, "engine_error" in said) == (0, True, True)
    (row,) = [row for row in rows_of(tmp_path / "captions") if row["error"]]
    assert (row["status"], row["error"]) == ("engine_error", "HTTP 400: trouble 400")


def test_how_the_server_is_reached_is_no_reason_to_ask_again_but_what_is_sent_is(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "captions"
    with StubServer() as first, StubServer() as second:
        code, _ = ends(capsys, [*given, *PICTURES, "--server-url", first.url, "--concurrency", "1"])
        assert code == 0
        before = data_of(out)
        other = ["--server-url", f"{second.url}/v1/,{first.url}", "--concurrency", "7", "--retries", "1"]
        code, said = ends(capsys, [*given, *PICTURES, *other, "--request-timeout", "9", "--decode-threads", "0"])
        assert (code, "all 6 are whole and current" in said, second.asked) == (0, True, [])
        assert data_of(out) == before
        (out / "00001-00000.parquet").unlink()
        code, said = ends(capsys, [*given, *PICTURES, *other])
        assert (code, "1 done, 5 already current" in said) == (0, True)
        assert data_of(out) == before
        for change in (
            ["--picture-px", "48"],
            ["--picture-pad", "no"],
            ["--picture-format", "jpeg"],
            ["--revision", "x"],
        ):
            code, said = ends(capsys, [*given, *PICTURES, *other, *change, "--dry-run"])
            assert (code, "6 due, 0 whole" in said) == (0, True), said


@pytest.mark.slow
def test_two_workers_with_a_server_each_write_the_bytes_of_one(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = tmp_path / "starts"
    with StubServer() as server:
        ends(capsys, [*given, *PICTURES, "--server-url", server.url, "--temperature", "0.5"])
    before = data_of(tmp_path / "captions")
    own = ["--server-command", f"{OWN} --starts {starts}", "--temperature", "0.5", "--workers", "2"]
    code, said = ends(capsys, [*given, *PICTURES, *own, "--out", str(tmp_path / "two")])
    assert (code, "14 kept" in said) == (0, True)
    assert data_of(tmp_path / "two") == before
    assert len(starts.read_text().split()) == 2


def test_a_local_checkpoint_says_how_its_pictures_are_sent(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_llava(tmp_path / "llava", image_px=28)
    given[given.index("--model") + 1] = str(tmp_path / "llava")
    capsys.readouterr()
    with StubServer(model=str(tmp_path / "llava")) as server:
        code, said = ends(capsys, [*given, "--server-url", server.url])
    assert (code, said.count("14 kept")) == (0, 1)
    assert {asked.picture.size for asked in server.asked} == {(28, 28)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda url, p: [*PICTURES], "needs either --server-url or --server-command"),
        (lambda url, p: [*PICTURES, "--server-url", url, "--server-command", OWN], "needs either"),
        (lambda url, p: [*PICTURES, "--server-url", "localhost:8000"], "no URL of a server"),
        (lambda url, p: [*PICTURES, "--server-url", ","], "--server-url: empty"),
        (lambda url, p: [*PICTURES, "--server-command", "vllm serve {model}"], "has no {port}"),
        (lambda url, p: [*PICTURES, "--server-url", url, "--batch-size", "8"], "belongs to --engine transformers"),
        (lambda url, p: [*PICTURES, "--server-url", url, "--concurrency", "0"], "--concurrency must be"),
        (lambda url, p: [*PICTURES, "--server-url", url, "--request-timeout", "nan"], "--request-timeout"),
        (lambda url, p: [*PICTURES, "--server-url", url, "--picture-format", "webp"], "no such format"),
        (lambda url, p: ["--server-url", url], "Give --picture-px and --picture-pad"),
        (lambda url, p: ["--server-url", url, "--picture-px", "64"], "Give --picture-px and --picture-pad"),
        (lambda url, p: [*PICTURES, "--server-command", OWN, "--model", str(p / "absent")], "no such directory"),
        (lambda url, p: ["--engine", "transformers", "--concurrency", "4"], "belongs to --engine server"),
    ],
)
def test_bad_input_ends_in_one_line_and_writes_nothing(
    change: Change, says: str, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = ends(capsys, [*given, *change("http://127.0.0.1:9", tmp_path)])
    assert code == ExitCode.BAD_INPUT
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "captions").exists()


def test_no_server_stops_the_job_with_one_line_and_the_job_goes_on_once_there_is_one(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StubServer() as server:
        port = server.server_address[1]
    arguments = [*given, *PICTURES, "--server-url", server.url]
    code, said = ends(capsys, arguments)
    assert code == ExitCode.STOPPED
    assert "connection failed" in said.splitlines()[-1]
    assert "Traceback" not in said
    with StubServer(port):
        code, said = ends(capsys, arguments)
    assert (code, "14 kept" in said) == (0, True)
