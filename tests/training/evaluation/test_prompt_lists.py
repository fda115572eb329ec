import json
from pathlib import Path

import pytest

from schemas.errors import UserError
from training.evaluation.prompt_lists import compbench_list, geneval_list, plain_list, read_prompts

GENEVAL = [
    {"tag": "counting", "include": [{"class": "cow", "count": 2}], "prompt": "a photo of two cows"},
    {"tag": "colors", "include": [{"class": "cup", "count": 1, "color": "red"}], "prompt": "a photo of a red cup"},
]


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_a_text_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    found = plain_list(write(tmp_path / "a.txt", "a fox ", "", "a café"), 1)
    assert [(p.file, p.prompt, p.number) for p in found.pictures] == [
        ("00000.png", "a fox", 0),
        ("00001.png", "a café", 1),
    ]


def test_several_pictures_of_a_prompt_have_numbers_of_their_own(tmp_path: Path) -> None:
    found = plain_list(write(tmp_path / "a.jsonl", {"prompt": "a fox", "image_id": 3}, {"prompt": "a cow"}), 2)
    assert [p.file for p in found.pictures] == ["00000_0.png", "00000_1.png", "00001_0.png", "00001_1.png"]
    assert [p.number for p in found.pictures] == [0, 1, 2, 3]


def test_compbench_pictures_are_named_as_its_tools_read_them(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "color_val.txt", "a green bench and a blue bowl", "a red cup.\tseen"),
        write(tmp_path / "3d_spatial_val.txt", "a cow behind a tree"),
    ]
    found = compbench_list(files, 2)
    names = [p.file for p in found.pictures]
    assert names[:2] == [f"color_val/samples/a green bench and a blue bowl_00000{i}.png" for i in (0, 1)]
    assert names[2] == "color_val/samples/a red cup._000002.png"
    assert names[4] == "3d_spatial_val/samples/a cow behind a tree_000000.png"
    for picture in found.pictures:  # as BLIP_vqa.py takes a name apart
        name = Path(picture.file).name
        assert name.split("_")[0] == picture.prompt
        assert int(name.split("_")[-1].split(".")[0]) == picture.number
    assert len(compbench_list(files).pictures) == 30


@pytest.mark.parametrize("prompt", ["a cat/dog", "a cat_dog", "é" * 125])
def test_a_prompt_that_no_file_can_be_named_after_is_told(tmp_path: Path, prompt: str) -> None:
    with pytest.raises(UserError, match="cannot be a file's name"):
        compbench_list([write(tmp_path / "color_val.txt", prompt)])


def test_geneval_pictures_stand_beside_their_metadata(tmp_path: Path) -> None:
    found = geneval_list(write(tmp_path / "evaluation_metadata.jsonl", *GENEVAL))
    assert [p.file for p in found.pictures][3:5] == ["00000/samples/0003.png", "00001/samples/0000.png"]
    assert len(found.pictures) == 8
    assert [name for name, _ in found.beside] == ["00000/metadata.jsonl", "00001/metadata.jsonl"]
    assert [json.loads(text) for _, text in found.beside] == GENEVAL


def test_what_is_no_list_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 2: lacks tag, include"):
        geneval_list(write(tmp_path / "a.jsonl", GENEVAL[0], {"prompt": "a fox"}))
    with pytest.raises(UserError, match="line 1: no JSON"):
        read_prompts(write(tmp_path / "b.jsonl", "a fox"))
    with pytest.raises(UserError, match="no prompt in it"):
        read_prompts(write(tmp_path / "c.txt", " "))
    with pytest.raises(UserError, match="cannot be read"):
        read_prompts(tmp_path / "d.txt")
    with pytest.raises(UserError, match="two files of one name"):
        compbench_list([tmp_path / "a/color.txt", tmp_path / "b/color.txt"])
