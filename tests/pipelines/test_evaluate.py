import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_model import write_clip
from drawing_models import write_drawing_models
from PIL import Image
from torch import Tensor, nn
from torch.distributed.run import get_args_parser

from pipelines.evaluate import main
from schemas.errors import ExitCode, UserError
from training.evaluation.statistics import load_moments

PROMPTS = ["a red fox", "a harbour in snow", "a fox"]


class Colour(nn.Module):
    """Mean and spread of each colour."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, two folders of pictures, a feature network and a CLIP."""
    root = write_drawing_models(tmp_path_factory.mktemp("world"))
    (root / "prompts.txt").write_text("\n".join(PROMPTS))
    draws = np.random.default_rng(0)
    for name, high in (("real", 256), ("dark", 128)):
        (root / name).mkdir()
        for i in range(12):
            Image.fromarray(draws.integers(0, high, (40, 30 + i, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    torch.jit.save(torch.jit.script(Colour()), str(root / "colour.pt"))
    write_clip(root / "clip")
    return root


def generate(world: Path, out: Path, *arguments: str) -> int:
    models = ["--run", f"{world}/run", "--t5", f"{world}/t5", "--vae", f"{world}/vae"]
    return main(["generate", *models, "--steps", "2", "--device", "cpu", "--out", str(out), *arguments])


def score(world: Path, samples: str, *arguments: str) -> int:
    return main(["score", "--samples", str(world / samples), "--device", "cpu", *arguments])


def frechet(world: Path, *arguments: str) -> list[str]:
    return ["--features", f"{world}/colour.pt", "--input", "16", *arguments]


def test_prompts_of_coco_are_chosen_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [{"id": i, "file_name": f"COCO_val2014_{i}.jpg"} for i in range(8)]
    captions = [{"id": 100 + i, "image_id": i // 2, "caption": f"caption {i}"} for i in range(16)]
    (tmp_path / "captions_val2014.json").write_text(json.dumps({"images": images, "annotations": captions}))
    out = tmp_path / "lists" / "coco.jsonl"
    arguments = ["--coco", str(tmp_path / "captions_val2014.json"), "--count", "5", "--out", str(out)]
    assert main(["prompts", *arguments]) == ExitCode.OK
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 5
    assert set(lines[0]) == {"prompt", "image_id", "caption_id", "file_name"}
    record = json.loads((tmp_path / "lists" / "coco.record.json").read_text())
    assert (record["prompts"], record["pictures"], record["captions"], record["seed"]) == (5, 8, 16, 0)
    assert "xxh64" in record["rule"]
    assert "5 prompts" in capsys.readouterr().out


def test_pictures_are_drawn_once_and_scored_by_what_they_say(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert generate(world, out, "--prompts", f"{world}/prompts.txt") == ExitCode.OK
    assert sorted(p.name for p in out.iterdir()) == ["00000.png", "00001.png", "00002.png", "generation.json"]
    assert "3 pictures of prompts.txt drawn, 0 were there" in capsys.readouterr().out
    generate(world, out, "--prompts", f"{world}/prompts.txt")
    assert "nothing to do" in capsys.readouterr().out

    found = tmp_path / "score.json"
    main(["score", "--samples", str(out), "--clip", f"{world}/clip", "--device", "cpu", "--json", str(found)])
    printed = capsys.readouterr().out
    assert "N = 3" in printed
    assert "dpm, 2 steps, guidance 4.5, seeds from 0" in printed
    result = json.loads(found.read_text())
    assert result["clip"]["count"] == 3
    assert result["generation"]["models"]["kind"] == "ema"
    assert result["frechet"] is None

    (out / "00001.png").unlink()
    main(["score", "--samples", str(out), "--clip", f"{world}/clip", "--device", "cpu"])
    assert "warning: 2 of 3 pictures are drawn" in capsys.readouterr().out


def test_two_processes_draw_what_one_draws(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(world, tmp_path / "one", "--prompts", f"{world}/prompts.txt", "--batch", "2")
    for rank in ("1", "0"):  # as torchrun tells them; they need not even run at the same time
        for name, value in (("RANK", rank), ("WORLD_SIZE", "2"), ("LOCAL_RANK", rank)):
            monkeypatch.setenv(name, value)
        generate(world, tmp_path / "shared", "--prompts", f"{world}/prompts.txt")
    printed = capsys.readouterr().out
    assert "1 pictures of prompts.txt drawn, 0 were there" in printed
    assert "(process 1 of 2)" in printed
    for name in ("00000.png", "00001.png", "00002.png"):
        one, other = (np.asarray(Image.open(tmp_path / run / name)).astype(int) for run in ("one", "shared"))
        assert np.abs(one - other).max() <= 1  # sums over other batches round otherwise


def test_torchrun_takes_no_option_for_one_of_its_own() -> None:
    """It looks for abbreviations of its options also among those of the program that it starts."""
    printed = subprocess.run(
        [sys.executable, "-m", "pipelines.evaluate", "generate", "--help"], capture_output=True, text=True, check=True
    ).stdout
    options = sorted(set(re.findall(r"(--[a-z][a-z0-9-]*)", printed)) - {"--run"})
    assert "--from-run" in options
    parsed = get_args_parser().parse_args(["--nproc-per-node", "2", "-m", "pipelines.evaluate", "generate", *options])
    assert parsed.training_script_args == ["generate", *options]


def test_the_distance_is_that_of_the_features(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "score.json"
    score(world, "dark", *frechet(world, "--reference", f"{world}/real", "--json", str(found)))
    printed = capsys.readouterr().out
    result: dict[str, Any] = json.loads(found.read_text())["frechet"]
    assert result["means"] == pytest.approx(3 * 64**2, rel=0.2)  # the means of the colours differ by 64
    assert result["distance"] == pytest.approx(result["means"] + result["covariances"])
    assert result["name"] == "Fréchet distance (colour.pt)"
    assert "FID" not in printed
    assert "antialiased bicubic in float32, as clean-fid to 16 px" in printed
    assert "warning: samples: 12 pictures are fewer than 2,048" in printed
    assert (result["samples"]["count"], result["reference"]["count"]) == (12, 12)

    score(world, "real", *frechet(world, "--reference", f"{world}/real", "--json", str(found)))
    assert json.loads(found.read_text())["frechet"]["distance"] < 1e-6


def test_kept_statistics_give_the_same_distance_and_fit_nothing_else(world: Path, tmp_path: Path) -> None:
    kept, found = tmp_path / "real.npz", tmp_path / "score.json"
    assert main(["score", *frechet(world, "--reference", f"{world}/real", "--save-statistics", str(kept))]) == 0
    assert load_moments(kept)[0].count == 12
    results = []
    for reference in (["--reference-statistics", str(kept)], ["--reference", f"{world}/real"]):
        score(world, "dark", *frechet(world, *reference, "--json", str(found)))
        results.append(json.loads(found.read_text())["frechet"])
    assert results[0] == results[1]
    for other in (["--resize", "legacy"], ["--square", "24"], ["--input", "17"]):
        with pytest.raises(UserError, match=r"real\.npz: its features are prepared as"):
            score(world, "dark", *frechet(world, "--reference-statistics", str(kept), *other))
    with pytest.raises(UserError, match=r"called 'colour\.pt', not 'vae-latents:vae'"):
        score(world, "dark", "--features", f"vae-latents:{world}/vae", "--reference-statistics", str(kept))


def test_features_of_the_vae_need_one_size(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    latents = ["--features", f"vae-latents:{world}/vae", "--reference", f"{world}/real"]
    with pytest.raises(UserError, match="--square"):
        score(world, "dark", *latents)
    score(world, "dark", *latents, "--square", "16", "--unbiased")
    printed = capsys.readouterr().out
    assert "Fréchet distance (vae-latents:vae)" in printed
    assert "for N → ∞" in printed


def test_a_reference_may_be_the_pictures_of_a_list(world: Path, tmp_path: Path) -> None:
    some = tmp_path / "some.jsonl"
    some.write_text("".join(json.dumps({"prompt": "a", "file_name": f"{i}.png"}) + "\n" for i in range(5)))
    found = tmp_path / "score.json"
    arguments = ["--reference", f"{world}/real", "--reference-list", str(some), "--json", str(found)]
    score(world, "dark", *frechet(world, *arguments))
    assert json.loads(found.read_text())["frechet"]["reference"]["count"] == 5
    some.write_text(json.dumps({"file_name": "none.png"}) + "\n")
    with pytest.raises(UserError, match=r"none\.png and 0 more"):
        score(world, "dark", *frechet(world, *arguments))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to measure"),
        (["--features", "a.pt"], "needs --features and a --reference"),
        (["--clip", "clip", "--save-statistics", "a.npz"], "give one"),
    ],
)
def test_arguments_that_do_not_go_together_are_told(world: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        score(world, "real", *arguments)


def test_pictures_that_do_not_say_their_prompt_need_a_list(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not say its prompt"):
        score(world, "real", "--clip", f"{world}/clip")
    prompts = tmp_path / "p.txt"
    prompts.write_text("a fox\n" * 12)
    assert score(world, "real", "--clip", f"{world}/clip", "--prompts", str(prompts)) == ExitCode.OK
