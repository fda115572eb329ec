"""The small T5 reads the small world's texts."""

from pathlib import Path

from transformers import AutoTokenizer

from curation.demo.models import make_t5
from curation.scenes.scene import scene
from curation.scenes.sentences import describe

_READ = 120  # tokens of a caption, PixArt-α's limit
_UNSEEN = range(5_000, 5_100)  # scenes whose descriptions the tokenizer was not made from


def test_a_description_of_a_scene_is_read_to_its_end_and_not_spelled_in_letters(tmp_path: Path) -> None:
    make_t5(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for number in _UNSEEN:
        pieces = tokenizer.tokenize(describe(scene(0, number)))
        assert len(pieces) < _READ
        assert not [piece for piece in pieces if piece.isalpha() and piece.isascii()]
