import json
from pathlib import Path

import pytest

from curation.demo.shipped import LLAVA, VAE
from curation.scenes.drawing import draw
from curation.scenes.scene import Split, scene
from curation.scenes.vocabulary import NOUNS
from pipelines import caption, demo_shards, latents
from pipelines.evaluate import main
from schemas.errors import UserError

COUNT = 8


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Prompts, and pictures of the very scenes that they describe, two a prompt."""
    assert main(["scene-prompts", "--count", str(COUNT), "--things", "1", "--out", str(tmp_path / "list.jsonl")]) == 0
    (tmp_path / "pictures").mkdir()
    for number in range(COUNT):
        one = scene(0, number, split=Split.TEST, things=1, square=True)
        for copy in range(2):
            draw(one, short_px=128).save(tmp_path / "pictures" / f"{number:05}_{copy}.png")
    return tmp_path


def scenes(folder: Path, *arguments: str) -> int:
    samples, truth = folder / "pictures", folder / "list.jsonl"
    return main(["scenes", "--samples", str(samples), "--truth", str(truth), *arguments])


def test_true_pictures_score_far_above_chance(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scenes(drawn, "--json", str(drawn / "score.json")) == 0
    score = json.loads((drawn / "score.json").read_text())
    assert score["pictures"] == 2 * COUNT
    assert score["aligned"]["right"]["right"] >= 12
    assert score["chance"]["right"]["right"] / score["chance"]["right"]["of"] < 0.4
    assert "by chance" in capsys.readouterr().out


def test_prompts_are_descriptions_with_all_that_is_true_of_them(drawn: Path) -> None:
    lines = [json.loads(line) for line in (drawn / "list.jsonl").read_text().splitlines()]
    assert len(lines) == COUNT
    assert all(line["prompt"] == line["description"] and len(line["things"]) == 1 for line in lines)
    assert all(line["split"] == "test" for line in lines)


def test_pictures_of_another_list_are_refused(drawn: Path) -> None:
    lines = (drawn / "list.jsonl").read_text().splitlines()
    (drawn / "list.jsonl").write_text("\n".join(lines[:3]))
    with pytest.raises(UserError, match="which has 3 prompts"):
        scenes(drawn)


def test_a_list_without_truth_is_refused_by_its_line(drawn: Path) -> None:
    (drawn / "list.jsonl").write_text('{"prompt": "a fox", "things": [{}], "ground": {"kind": "plain"}}\n' * COUNT)
    with pytest.raises(UserError, match="line 1: no truth of a scene"):
        scenes(drawn)


def test_a_file_that_is_no_picture_is_named(drawn: Path) -> None:
    (drawn / "pictures" / "00000_0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="00000_0"):
        scenes(drawn)


def test_captions_of_pictures_are_prompts_with_the_truth_of_the_same_pictures(tmp_path: Path) -> None:
    shards, captions, prompts = tmp_path / "shards", tmp_path / "captions", tmp_path / "prompts.jsonl"
    demo_shards.main(["--shards", "1", "--rows", "6", "--things", "1", "--split", "test", "--out", str(shards)])
    source = ["--shards", str(shards / "00000.tar"), "--source", "webdataset"]
    assert caption.main([*source, "--model", str(LLAVA), "--max-new-tokens", "120", "--out", str(captions)]) == 0
    truth = ["--truth", str(shards / "00000.truth.jsonl")]
    assert main(["scene-prompts", "--captions", str(captions), *truth, "--out", str(prompts)]) == 0
    lines = [json.loads(line) for line in prompts.read_text().splitlines()]
    assert 0 < len(lines) <= 4
    assert all(line["prompt"] != line["description"] for line in lines)
    for line in lines:
        assert line["things"][0]["noun"] == NOUNS[scene(0, line["number"], split=Split.TEST, things=1).label]


def test_captions_without_truth_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="belong together"):
        main(["scene-prompts", "--captions", str(tmp_path), "--out", str(tmp_path / "out.jsonl")])


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Six true pictures in a shard, their latents, and a list that asks for them."""
    size = ["--shards", "1", "--rows", "6", "--things", "1", "--square", "--broken", "0"]
    assert demo_shards.main([*size, "--out", str(tmp_path / "shards")]) == 0
    source = ["--shards", str(tmp_path / "shards" / "00000.tar"), "--source", "webdataset"]
    assert latents.main([*source, "--vae", str(VAE), "--size", "64", "--out", str(tmp_path / "latents")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "shards" / "00000.truth.jsonl").read_text().splitlines()]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps({**line, "prompt": "a scene"}) + "\n" for line in lines))
    (tmp_path / "pictures").mkdir()
    for number in range(len(lines)):
        draw(scene(7, number, split=Split.TEST, things=1), short_px=64).save(tmp_path / "pictures" / f"{number:05}.png")
    return tmp_path


def test_true_pictures_behind_the_autoencoder_are_the_ceiling(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    true = ["--true-latents", str(shards / "latents"), "--vae", str(VAE)]
    assert scenes(shards, *true, "--json", str(shards / "score.json")) == 0
    score = json.loads((shards / "score.json").read_text())
    assert score["ceiling"]["ground"]["of"] == 6
    assert score["ceiling"]["ground"]["right"] >= 5 > score["aligned"]["ground"]["right"]
    assert "true pictures" in capsys.readouterr().out


def test_latents_of_other_pictures_are_refused(shards: Path) -> None:
    lines = [json.loads(line) for line in (shards / "list.jsonl").read_text().splitlines()]
    (shards / "list.jsonl").write_text("".join(json.dumps({**line, "key": "x" + line["key"]}) + "\n" for line in lines))
    with pytest.raises(UserError, match="none of the pictures"):
        scenes(shards, "--true-latents", str(shards / "latents"), "--vae", str(VAE))


def test_latents_and_their_autoencoder_belong_together(drawn: Path) -> None:
    with pytest.raises(UserError, match="--true-latents and --vae belong together"):
        scenes(drawn, "--vae", str(VAE))
