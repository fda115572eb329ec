import json
from pathlib import Path
from typing import Any

import pytest
import xxhash

from schemas.errors import UserError
from training.evaluation.coco import choose, to_jsonl
from training.evaluation.prompt_lists import read_prompts


def annotations(pictures: int = 20, captions: int = 5) -> dict[str, Any]:
    return {
        "images": [{"id": 7 * i, "file_name": f"COCO_val2014_{7 * i:012}.jpg"} for i in range(pictures)],
        "annotations": [
            {"id": 1000 + i * captions + k, "image_id": 7 * i, "caption": f"Caption  {k} of\npicture {i}. "}
            for i in range(pictures - 1)
            for k in range(captions)
        ],
    }


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_each_picture_gives_one_caption_and_white_space_is_tidied(tmp_path: Path) -> None:
    chosen = choose(write(tmp_path / "captions_val2014.json", annotations()), 12, seed=0)
    assert len(chosen.prompts) == len({p.image_id for p in chosen.prompts}) == 12
    assert (chosen.pictures, chosen.captions) == (19, 95)  # one picture has no caption
    for one in chosen.prompts:
        caption = one.caption_id - 1000 - one.image_id // 7 * 5
        assert one.prompt == f"Caption {caption} of picture {one.image_id // 7}."
        assert one.file_name == f"COCO_val2014_{one.image_id:012}.jpg"
    assert len({p.prompt.split()[1] for p in chosen.prompts}) > 1  # not always the first caption


def test_the_choice_is_the_rule_that_is_written_down(tmp_path: Path) -> None:
    found = annotations()
    chosen = choose(write(tmp_path / "a.json", found), 5, seed=3)

    def value(kind: str, number: int) -> int:
        return xxhash.xxh64_intdigest(f"3/{kind}/{number}".encode())

    images = sorted({a["image_id"] for a in found["annotations"]}, key=lambda i: value("image", i))[:5]
    assert [p.image_id for p in chosen.prompts] == images
    for one in chosen.prompts:
        own = [a["id"] for a in found["annotations"] if a["image_id"] == one.image_id]
        assert one.caption_id == min(own, key=lambda i: value("caption", i))


def test_the_order_of_the_file_does_not_matter_but_the_seed_does(tmp_path: Path) -> None:
    found = annotations()
    turned = {"images": found["images"][::-1], "annotations": found["annotations"][::-1]}
    one = choose(write(tmp_path / "a.json", found), 12, seed=0)
    other = choose(write(tmp_path / "b.json", turned), 12, seed=0)
    assert one.prompts == other.prompts
    assert one.prompts != choose(tmp_path / "a.json", 12, seed=1).prompts
    assert choose(tmp_path / "a.json", 6, seed=0).prompts == one.prompts[:6]  # fewer are a part of more


def test_the_list_is_read_as_prompts(tmp_path: Path) -> None:
    chosen = choose(write(tmp_path / "a.json", annotations()), 4, seed=0)
    (tmp_path / "p.jsonl").write_text(to_jsonl(chosen))
    assert read_prompts(tmp_path / "p.jsonl") == [p.prompt for p in chosen.prompts]


def test_what_cannot_be_chosen_from_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 19 pictures with captions, not 20"):
        choose(write(tmp_path / "a.json", annotations()), 20, seed=0)
    with pytest.raises(UserError, match="not COCO's captions"):
        choose(write(tmp_path / "b.json", {"images": [], "annotations": [{"id": 1, "bbox": []}]}), 1, seed=0)
    with pytest.raises(UserError, match="does not list"):
        choose(write(tmp_path / "c.json", annotations() | {"images": []}), 1, seed=0)
    with pytest.raises(UserError, match="cannot be read"):
        choose(tmp_path / "d.json", 1, seed=0)
