from pathlib import Path

import numpy as np
import pytest
import torch
from clip_model import write_clip
from PIL import Image

from schemas.errors import UserError
from training.evaluation.clip import PLAIN, Clip, clip_score, summarised

CPU = torch.device("cpu")
PROMPTS = ["a red fox", "a cow", "snow"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return Clip(write_clip(tmp_path_factory.mktemp("clip") / "tiny-clip"), CPU)


def pictures(folder: Path, count: int = 3) -> list[Path]:
    draws = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(draws.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return paths


def test_the_scores_are_those_of_the_cosines() -> None:
    score = summarised(np.array([0.4, -0.2, 0.1]), 0, PLAIN, "clip", "abc")
    assert score.cosine == pytest.approx(0.1)
    assert score.score_100 == pytest.approx(100 * 0.5 / 3)  # the negative one counts as 0, not as -0.2
    assert score.score_hessel == pytest.approx(2.5 * 0.5 / 3)
    assert score.cosine_error == pytest.approx(0.3 / 3**0.5)


def test_each_picture_is_held_against_its_own_prompt(clip: Clip, tmp_path: Path) -> None:
    paths = pictures(tmp_path)
    alone = [clip_score(clip, [path], [prompt], PLAIN, 8).cosine for path, prompt in zip(paths, PROMPTS, strict=True)]
    whole = clip_score(clip, paths, PROMPTS, PLAIN, 2)
    assert whole.cosine == pytest.approx(float(np.mean(alone)), abs=1e-6)
    assert whole.count == 3
    turned = clip_score(clip, paths, PROMPTS[::-1], PLAIN, 2)
    assert abs(turned.cosine - whole.cosine) > 1e-5


def test_the_template_is_part_of_the_text_and_of_the_record(clip: Clip, tmp_path: Path) -> None:
    paths = pictures(tmp_path)
    plain = clip_score(clip, paths, PROMPTS, PLAIN, 8)
    worded = clip_score(clip, paths, PROMPTS, "snow {prompt}", 8)
    assert worded.template == "snow {prompt}"
    assert worded.cosine == pytest.approx(clip_score(clip, paths, [f"snow {p}" for p in PROMPTS], PLAIN, 8).cosine)
    assert worded.cosine != plain.cosine
    with pytest.raises(UserError, match="has no "):
        clip_score(clip, paths, PROMPTS, "snow", 8)


def test_prompts_that_clip_does_not_read_to_their_end_are_counted(clip: Clip, tmp_path: Path) -> None:
    long = " ".join(["fox"] * 40)
    score = clip_score(clip, pictures(tmp_path), ["a cow", long, long], PLAIN, 8)
    assert score.truncated == 2


def test_what_does_not_fit_is_told(clip: Clip, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="3 pictures but 2 prompts"):
        clip_score(clip, pictures(tmp_path), PROMPTS[:2], PLAIN, 8)
    with pytest.raises(UserError, match="no such directory"):
        Clip(tmp_path / "none", CPU)
    with pytest.raises(UserError, match="no CLIP loads"):
        Clip(tmp_path, CPU)
