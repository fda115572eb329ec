"""The command itself, and the way from pictures to latents of what was selected."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from dataset_files import data_of
from PIL import Image

from curation.demo.models import make_tiny_models
from pipelines import caption, latents, measure, nouns, select, text, verify
from pipelines.command import run
from schemas.reading import open_dataset
from schemas.selection import read_selection
from schemas.table import TableSchema
from schemas.tables import CAPTIONS, LATENTS_INDEX, MEASURES, TEXT_INDEX


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    table = pa.table({"shard": ["s1", "s0", "s0"], "key": ["b", "a", "c"], "clip": [0.3, 0.2, 0.1]})
    pq.write_table(table, tmp_path / "scores.parquet")
    return tmp_path / "scores.parquet"


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and what was said on stderr."""
    with pytest.raises(SystemExit) as exit_:
        run(select.main, arguments)
    return int(exit_.value.code or 0), capsys.readouterr().err


def test_thresholds_on_the_command_line_make_a_selection_with_its_funnel_inside(
    scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, summary = tmp_path / "keep.parquet", tmp_path / "summary.json"
    given = ["--table", str(scores), "--min", "clip=0.15", "--max", "clip=0.9", "--out", str(out)]
    assert select.main([*given, "--summary-json", str(summary)]) == 0
    printed = capsys.readouterr().out
    assert "3 samples, 2 selected (66.7%)" in printed
    assert "0.15 <= clip <= 0.9" in printed
    selection = read_selection(str(out))
    assert selection.rows.to_pylist() == [{"shard": "s0", "key": "a"}, {"shard": "s1", "key": "b"}]
    assert selection.about == json.loads(summary.read_text())
    (row,) = selection.about["funnel"]
    assert (row["total"], row["marginal"], row["unique"], row["left"]) == (1, 1, 1, 2)
    first = out.read_bytes()
    assert select.main(given) == 0
    assert out.read_bytes() == first


def test_what_if_prints_and_writes_nothing(scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert select.main(["--table", str(scores), "--min", "clip=9", "--what-if"]) == 0
    assert "3 samples, 0 selected (0.0%)" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--min", "clip=0"], "give either --out FILE for the selection, or --what-if"),
        (["--min", "clip=0", "--what-if", "--out", "x"], "give either --out FILE"),
        (["--what-if"], "nothing says what to keep"),
        (["--what-if", "--min", "clip"], "--min clip: not COLUMN=VALUE"),
        (["--what-if", "--max", "clip=nan"], "--max clip=nan: not COLUMN=VALUE"),
        (["--what-if", "--min", "beauty=3"], "no column beauty; there are samples.key, samples.shard, scores.clip"),
        (["--what-if", "--recipe", "nowhere.toml"], "--recipe nowhere.toml: cannot be read"),
        (["--min", "clip=9", "--out", "x"], "nothing of 3 samples is left"),
        (["--min", "clip=0", "--out", "/proc/none/x"], "--out /proc/none/x: cannot be written"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(
    scores: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = fails(["--table", str(scores), *more], capsys)
    assert code in {2, 4}
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1


def test_help_does_not_import_the_table_libraries() -> None:
    code = "import sys; from pipelines import select\ntry: select.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('pyarrow', 'numpy', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


RECIPE = """
[[filter]]
column = "captions.finish_reason"
in = ["stop", "length"]
[[filter]]
column = "measures.min_side"
min = 64
[[filter]]
column = "measures.aesthetic"
min = 5.0
[[filter]]
column = "measures.phash"
within = 4
prefer = "measures.pixels"
[[filter]]
column = "nouns.distinct"
cap = 100
"""


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    """Two shards: a poor picture, one with a smaller copy, a small one, a broken one, one
    whose caption has no noun, and one without a score."""

    def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))

    def scene(seed: int, side: int) -> bytes:
        small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
        return buffer.getvalue()

    rows: list[tuple[str, str, bytes, dict[str, Any]]] = [
        ("s-000", "good", scene(1, 200), {"aesthetic": 6.5}),
        ("s-000", "poor", scene(2, 200), {"aesthetic": 4.0}),
        ("s-000", "small", scene(3, 40), {"aesthetic": 7.0}),
        ("s-000", "torn", b"\xff\xd8\xff broken", {"aesthetic": 7.0}),
        ("s-001", "copy", scene(1, 120), {"aesthetic": 6.0}),
        ("s-001", "fine", scene(4, 120), {"aesthetic": 5.0}),
        ("s-001", "mute", scene(6, 120), {"aesthetic": 9.0}),
        ("s-001", "unknown", scene(5, 120), {}),
    ]
    for shard in ("s-000", "s-001"):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for _, key, picture, extra in (row for row in rows if row[0] == shard):
                add(tar, f"{key}.jpg", picture)
                add(tar, f"{key}.json", json.dumps(extra).encode())
                add(tar, f"{key}.txt", b"a red barn by the river" if key != "mute" else b"how very nice")
    return ["--shards", str(tmp_path / "s-{000..001}.tar"), "--source", "webdataset"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    return make_tiny_models(tmp_path_factory.mktemp("models"))


KEPT = [("s-000", "good"), ("s-001", "fine")]


def samples_of(url: str, schema: TableSchema, folder: str = "") -> list[tuple[str, str]]:
    """Shard and key of every row of a whole dataset."""
    tables = open_dataset(url, schema.kind).require_whole().tables(schema, folder=folder)
    return [(row["shard"], row["key"]) for table in tables for row in table.to_pylist()]


def test_pictures_are_measured_captioned_counted_selected_and_encoded(
    shards: list[str], models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(name: str) -> str:
        return str(tmp_path / name)

    assert measure.main([*shards, "--out", made("measures")]) == 0
    model = ["--model", str(models["llava"]), "--max-new-tokens", "2"]
    assert caption.main([*shards, *model, "--out", made("captions")]) == 0
    assert nouns.main(["--captions", made("captions"), "--columns", "raw_caption", "--out", made("nouns")]) == 0
    (tmp_path / "recipe.toml").write_text(RECIPE)
    tables = ["--table", made("captions"), made("measures"), made("nouns"), "--noun-column", "raw_caption"]
    chosen = made("keep.parquet")
    assert select.main([*tables, "--recipe", made("recipe.toml"), "--out", chosen]) == 0
    selection = read_selection(chosen)
    assert [tuple(row.values()) for row in selection.rows.to_pylist()] == KEPT
    taken = {row["name"]: row["marginal"] for row in selection.about["funnel"]}
    assert list(taken.values()) == [0, 1, 2, 1, 1]
    assert selection.about["nouns"][0]["after"]["top"] == [["barn", 2], ["river", 2]]

    encode = [*shards, "--vae", str(models["vae"]), "--size", "64", "--batch-size", "2", "--select", chosen]
    assert latents.main([*encode, "--out", made("latents"), "--max-rejected", "0%"]) == 0
    assert samples_of(made("latents"), LATENTS_INDEX, "index") == KEPT
    assert latents.main([*encode, "--out", made("on-ray"), "--executor", "ray"]) == 0
    assert data_of(tmp_path / "latents") == data_of(tmp_path / "on-ray")

    embed = ["--captions", made("captions"), "--t5", str(models["t5"]), "--column", "raw_caption"]
    assert text.main([*embed, "--out", made("text"), "--select", chosen]) == 0
    assert samples_of(made("text"), TEXT_INDEX, "index") == KEPT
    assert verify.main([made("latents"), made("text"), "--captions", made("captions")]) == 0
    assert caption.main([*shards, *model, "--out", made("some-captions"), "--select", chosen]) == 0
    assert samples_of(made("some-captions"), CAPTIONS) == KEPT
    assert measure.main([*shards, "--out", made("some-measures"), "--select", chosen]) == 0
    assert samples_of(made("some-measures"), MEASURES) == KEPT

    assert select.main([*tables, "--recipe", made("recipe.toml"), "--max", "aesthetic=6", "--out", chosen]) == 0
    capsys.readouterr()
    assert latents.main([*encode, "--out", made("latents"), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "s-000: due, the selection changed (4 rows)" in said
    assert "2 due, 0 whole and current" in said  # the copy is the best of its kind now, so s-001 changed as well
