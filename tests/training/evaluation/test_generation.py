import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from schemas.errors import StorageError, UserError
from training.evaluation.generation import (
    RECORD,
    Models,
    draw_pictures,
    missing,
    open_folder,
    prompt_in,
    read_record,
    record_of,
    share_of,
)
from training.evaluation.prompt_lists import PromptList, compbench_list, geneval_list, plain_list
from training.sampling.drawing import DrawSettings

SETTINGS = DrawSettings("dpm", 20, 4.5, 8, 8)
MODELS = Models("w", "ema", "512", "t", "v", "fp32")


class FlatPictures:
    """Draws the seed as a grey level."""

    def __init__(self, ends_after: int = 10**9) -> None:
        self.left = ends_after

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], settings: DrawSettings
    ) -> tuple[NDArray[np.uint8], tuple[bool, ...]]:
        if self.left < len(prompts):
            raise KeyboardInterrupt
        self.left -= len(prompts)
        pixels = np.zeros((len(prompts), settings.height_px, settings.width_px, 3), np.uint8)
        pixels += np.array(seeds, np.uint8)[:, None, None, None]
        return pixels, tuple(len(prompt) > 12 for prompt in prompts)


def listed(tmp_path: Path, count: int = 10) -> PromptList:
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"picture {i}\n" for i in range(count)))
    return plain_list(path, 1)


def draw(out: Path, prompts: PromptList, rank: int = 0, processes: int = 1, artist: FlatPictures | None = None) -> int:
    """As the command does it; how many were drawn."""
    open_folder(out, prompts, record_of(prompts, 100, SETTINGS, MODELS))
    due = missing(out, share_of(prompts.pictures, rank, processes))
    return sum(n for n, _ in draw_pictures(artist or FlatPictures(), due, out, 100, SETTINGS, 3))


def levels(out: Path) -> dict[str, int]:
    return {str(p.relative_to(out)): int(np.asarray(Image.open(p))[0, 0, 0]) for p in sorted(out.rglob("*.png"))}


def test_each_picture_has_the_seed_of_its_number_and_says_its_prompt(tmp_path: Path) -> None:
    assert draw(tmp_path / "out", listed(tmp_path)) == 10
    assert levels(tmp_path / "out") == {f"{i:05}.png": 100 + i for i in range(10)}
    assert prompt_in(tmp_path / "out/00003.png") == "picture 3"
    with Image.open(tmp_path / "out/00003.png") as image:
        assert (image.text["seed"], image.text["guidance"]) == ("103", "4.5")


@pytest.mark.parametrize("processes", [1, 2, 3, 7, 12])
def test_any_number_of_processes_draws_the_same_pictures(tmp_path: Path, processes: int) -> None:
    prompts = listed(tmp_path)
    drawn = [draw(tmp_path / "out", prompts, rank, processes) for rank in range(processes)]
    assert sum(drawn) == 10
    assert max(drawn) - min(drawn) <= 1
    assert levels(tmp_path / "out") == {f"{i:05}.png": 100 + i for i in range(10)}


def test_what_was_drawn_before_an_interruption_is_not_drawn_again(tmp_path: Path) -> None:
    prompts, out = listed(tmp_path), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        draw(out, prompts, artist=FlatPictures(ends_after=7))
    assert len(levels(out)) == 6
    kept = (out / "00002.png").stat().st_mtime_ns
    (out / "00004.png").unlink()
    assert [draw(out, prompts, rank, 2) for rank in range(2)] == [3, 2]  # at another number of processes
    assert levels(out) == {f"{i:05}.png": 100 + i for i in range(10)}
    assert (out / "00002.png").stat().st_mtime_ns == kept
    assert not [path for path in out.iterdir() if path.suffix == ".partial"]


def test_a_folder_of_other_pictures_is_left_alone(tmp_path: Path) -> None:
    prompts, out = listed(tmp_path), tmp_path / "out"
    draw(out, prompts)
    for other in (
        record_of(prompts, 101, SETTINGS, MODELS),
        record_of(prompts, 100, replace(SETTINGS, steps=21), MODELS),
        record_of(prompts, 100, SETTINGS, replace(MODELS, weights="x")),
        record_of(listed(tmp_path, 11), 100, SETTINGS, MODELS),
    ):
        with pytest.raises(UserError, match="was begun otherwise"):
            open_folder(out, prompts, other)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.jpg").touch()
    with pytest.raises(UserError, match="holds other files"):
        draw(tmp_path / "other", prompts)
    for place in ("other/holiday.jpg", "other/holiday.jpg/new"):
        with pytest.raises(StorageError, match="cannot be written"):
            draw(tmp_path / place, prompts)


def test_a_record_of_other_versions_is_of_the_same_pictures(tmp_path: Path) -> None:
    record = record_of(listed(tmp_path), 0, SETTINGS, MODELS)
    assert not record.differences(replace(record, versions={"torch": "1.0"}))
    draw(tmp_path / "out", listed(tmp_path))
    found = read_record(tmp_path / "out")
    assert found is not None
    assert found.differences(record) == ["seed was 100, now 0"]


def test_the_layouts_of_the_benchmarks_come_out_whole(tmp_path: Path) -> None:
    (tmp_path / "color_val.txt").write_text("a red cup\na blue cow\n")
    draw(tmp_path / "comp", compbench_list([tmp_path / "color_val.txt"], 2))
    samples = sorted(p.name for p in (tmp_path / "comp/color_val/samples").iterdir())
    assert samples == [
        f"a {what}_00000{i}.png" for what, i in (("blue cow", 2), ("blue cow", 3), ("red cup", 0), ("red cup", 1))
    ]

    record = {"tag": "single_object", "include": [{"class": "cow", "count": 1}], "prompt": "a photo of a cow"}
    (tmp_path / "meta.jsonl").write_text(json.dumps(record) + "\n")
    draw(tmp_path / "gen", geneval_list(tmp_path / "meta.jsonl"))
    assert sorted(str(p.relative_to(tmp_path / "gen")) for p in (tmp_path / "gen").rglob("*") if p.is_file()) == [
        "00000/metadata.jsonl",
        *(f"00000/samples/000{k}.png" for k in range(4)),
        RECORD,
    ]
    assert json.loads((tmp_path / "gen/00000/metadata.jsonl").read_text()) == record


def test_prompts_that_are_cut_short_are_told(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("short\na prompt that is long\n")
    prompts = plain_list(path, 1)
    open_folder(tmp_path / "out", prompts, record_of(prompts, 0, SETTINGS, MODELS))
    told = list(draw_pictures(FlatPictures(), prompts.pictures, tmp_path / "out", 0, SETTINGS, 8))
    assert told == [(2, ["a prompt that is long"])]
