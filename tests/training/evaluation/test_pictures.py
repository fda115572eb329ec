from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from schemas.errors import UserError
from training.evaluation.pictures import CLEAN, LEGACY, NONE, Preparation, batches, centre_square, picture_files

NOISE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def write(path: Path, pixels: np.ndarray = NOISE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_clean_is_antialiased_and_neither_rounded_nor_clipped(tmp_path: Path) -> None:
    """Each output pixel is a cubic average over its whole footprint, so noise loses its spread."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    path = write(tmp_path / "a.png", stripes)
    clean, legacy = (Preparation(0, resize, 16).read(path) for resize in (CLEAN, LEGACY))
    assert clean.shape == legacy.shape == (3, 16, 16)
    assert clean.dtype == torch.float32
    assert clean[:, 4:12, 4:12].std() < 0.5
    assert abs(float(clean[:, 4:12, 4:12].mean()) - 127.5) < 0.5
    edge = np.zeros((64, 64, 3), np.uint8)
    edge[:, 32:] = 255
    beyond = Preparation(0, CLEAN, 16).read(write(tmp_path / "edge.png", edge))
    assert beyond.min() < 0
    assert beyond.max() > 255
    assert not torch.equal(beyond, beyond.round())


def test_legacy_skips_pixels(tmp_path: Path) -> None:
    """Bilinear without antialiasing looks at two neighbours a side only, here columns 4 i + 1 and 4 i + 2."""
    columns = np.zeros((64, 64, 3), np.uint8)
    columns[:, 0::4] = columns[:, 3::4] = 255
    assert Preparation(0, LEGACY, 16).read(write(tmp_path / "a.png", columns)).max() == 0


def test_the_centre_square_is_cut_and_rounded_before_the_network(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    square = Preparation(40, NONE, 0).read(path)
    expected = Image.fromarray(NOISE[:, 15:75]).resize((40, 40), Image.Resampling.LANCZOS)
    assert np.array_equal(square.permute(1, 2, 0).numpy(), np.asarray(expected))
    assert centre_square(Image.fromarray(NOISE), 60).tobytes() == Image.fromarray(NOISE[:, 15:75]).tobytes()


def test_preparations_are_told_apart_by_their_words() -> None:
    different = [Preparation(0, CLEAN, 299), Preparation(256, CLEAN, 299), Preparation(256, LEGACY, 299)]
    different += [Preparation(256, CLEAN, 64), Preparation(256, NONE, 0), Preparation(512, NONE, 0)]
    assert len({one.describe() for one in different}) == len(different)
    with pytest.raises(UserError, match="go together"):
        Preparation(0, CLEAN, 0)
    with pytest.raises(UserError, match="unknown"):
        Preparation(0, "nearest", 299)


def test_batches_hold_all_pictures_in_order(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i:02}.png", np.full((8, 8, 3), i, np.uint8)) for i in range(11)]
    got = list(batches(paths, Preparation(0, NONE, 0), batch=4, threads=3))
    assert [len(batch) for batch in got] == [4, 4, 3]
    assert torch.cat(got)[:, 0, 0, 0].tolist() == list(range(11))


def test_pictures_of_two_sizes_need_a_resize(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.png"), write(tmp_path / "b.png", NOISE[:30])]
    with pytest.raises(UserError, match=r"60x90 px and .*b\.png is 30x90.*--square"):
        list(batches(paths, Preparation(0, NONE, 0), 2, 1))
    assert next(batches(paths, Preparation(0, CLEAN, 8), 2, 1)).shape == (2, 3, 8, 8)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"a\.png: no readable picture"):
        list(batches([tmp_path / "a.png"], Preparation(0, CLEAN, 8), 2, 1))


def test_grids_and_other_files_are_no_samples(tmp_path: Path) -> None:
    for name in ("b/0001.PNG", "a/0000.jpg", "grid.png", "b/grid.png"):
        write((tmp_path / name).with_suffix(".png")).rename(tmp_path / name)
    (tmp_path / "samples.json").write_text("{}")
    assert [str(path.relative_to(tmp_path)) for path in picture_files(tmp_path)] == ["a/0000.jpg", "b/0001.PNG"]
    with pytest.raises(UserError, match="no such directory"):
        picture_files(tmp_path / "c")
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="no pictures"):
        picture_files(tmp_path / "c")
