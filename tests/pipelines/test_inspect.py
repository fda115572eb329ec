import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.command import run
from pipelines.inspect import main
from schemas.errors import ExitCode
from schemas.selection import make_selection, write_selection

Write = Callable[..., Any]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where joined data sets are kept; not where other temporary files are."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def data(write_features: Write) -> list[str]:
    made = write_features(buckets={(64, 64): 30, (32, 96): 12}, max_tokens=25)
    return ["--latents", str(made.latents), "--text", str(made.text), "--global-batch", "4"]


def looked(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == ExitCode.OK
    return json.loads(capsys.readouterr().out)


def test_it_tells_buckets_bytes_lengths_and_the_plan(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = looked(data, capsys)
    contents = found["contents"]
    assert [(b["size"], b["samples"]) for b in contents["buckets"]] == [("32x96", 12), ("64x64", 30)]
    assert sum(b["share"] for b in contents["buckets"]) == pytest.approx(1)
    (caption,) = contents["captions"]
    assert sum(caption["lengths"].values()) == caption["samples"] == 42
    assert list(caption["truncated"].values()) == [0.0]
    size = sum(b["latent_bytes"] for b in contents["buckets"]) + caption["bytes"]
    assert contents["bytes_a_sample"] == pytest.approx(size / 42)
    assert found["plan"]["batches_first_epoch"] == 30 // 4 + 12 // 4
    assert main(data) == ExitCode.OK
    text = capsys.readouterr().out
    assert "42 samples" in text
    assert "shuffled as a whole" in text


def test_a_key_is_in_the_batches_that_it_names(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = looked([*data, "--key", "shard-1/folder/picture-0005", "--epoch", "2"], capsys)["key"]
    (step,) = found["steps"]
    (batch,) = looked([*data, "--step", str(step)], capsys)["batches"]
    assert batch["bucket"] == found["bucket"]
    assert batch["samples"] == 4
    batches = looked([*data, "--step", str(step), "--batches", "3"], capsys)["batches"]
    assert [b["step"] for b in batches] == [step, step + 1, step + 2]
    assert batches[0] == batch


def test_the_quality_of_the_shuffle_is_measured(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    quality = looked([*data, "--quality", "--step", "0"], capsys)["quality"]
    assert quality["batches"] == 10
    assert abs(quality["position_correlation"]) < 5 * quality["position_correlation_shuffled"]
    assert 0 <= quality["neighbours_together"] <= 1
    assert quality["files"] == 6


def test_a_mixture_tells_weights_and_uses(
    write_features: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write_features(folder="one"), write_features(folder="two", seed=3, buckets={(64, 64): 8})
    for name in ("null.text.npy", "dataset.json"):  # both of one T5
        (two.text / name).write_bytes((one.text / name).read_bytes())
    selection = tmp_path / "kept.parquet"
    write_selection(
        str(selection), make_selection(pa.table({"shard": ["shard-0", "x"], "key": ["folder/picture-0002", "y"]}))
    )
    (tmp_path / "mixture.toml").write_text(
        '[[dataset]]\nname = "a"\nlatents = "one/latents"\ntext = ["one/text", {dir = "one/text", weight = 3}]\n'
        '[[dataset]]\nname = "b"\nlatents = "two/latents"\ntext = "two/text"\nweight = 2.5\nselect = "kept.parquet"\n'
    )
    contents = looked(["--data", str(tmp_path / "mixture.toml")], capsys)["contents"]
    assert [(d["name"], d["samples"], d["weight"]) for d in contents["datasets"]] == [("a", 12, 1.0), ("b", 1, 2.5)]
    assert contents["datasets"][0]["captions"] == [1.0, 3.0]
    assert contents["datasets"][1]["share_of_uses"] == pytest.approx(2.5 / 14.5)
    assert (contents["selected"], contents["selected_but_absent"]) == (2, 1)
    assert [c["samples"] for c in contents["captions"]] == [13, 12]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--key", "shard-0/nothing"], "shard-0/nothing: no such sample"),
        (["--step", "-1"], "--step, --epoch and --batches count from"),
        (["--step", "99999999999999999999"], "go up to 1,000,000,000. Give less"),
        (["--seed", "-1"], "--seed -1 does not fit"),
        (["--tokens-per-batch", "10"], "two ways to say"),
        (["--flip", "0.3"], "--flip needs --latents-flipped"),
        (["--select", "/nowhere"], "no such file"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    data: list[str], capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(main, [*data, *more])
    assert ended.value.code == ExitCode.BAD_INPUT
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
