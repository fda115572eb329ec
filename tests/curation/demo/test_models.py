"""The small T5 reads the small world's texts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from transformers import AutoTokenizer, T5EncoderModel

from curation.demo.models import make_t5
from curation.scenes.scene import scene
from curation.scenes.sentences import describe
from curation.scenes.vocabulary import COLOURS

_READ = 120  # tokens of a caption, PixArt-α's limit
_UNSEEN = range(5_000, 5_100)  # scenes whose descriptions the tokenizer was not made from


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    make_t5(directory)
    return directory


def test_a_description_of_a_scene_is_read_to_its_end_and_not_spelled_in_letters(t5: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(t5)
    for number in _UNSEEN:
        pieces = tokenizer.tokenize(describe(scene(0, number)))
        assert len(pieces) < _READ
        assert not [piece for piece in pieces if piece.isalpha() and piece.isascii()]


def test_a_linear_layer_reads_the_colour_of_a_noun_off_its_embedding(t5: Path) -> None:
    """With attention all over the text it is right about one in four."""
    tokenizer: Any = AutoTokenizer.from_pretrained(t5)
    model: Any = T5EncoderModel.from_pretrained(t5)
    states, colours = list[Tensor](), list[int]()
    for number in range(450):
        thing, text = scene(0, number).things[0], describe(scene(0, number))
        pieces = tokenizer.tokenize(text)
        if f"▁{thing.noun}" in pieces:
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].detach()
            states.append(hidden[pieces.index(f"▁{thing.noun}")])
            colours.append(list(COLOURS).index(thing.colour))
    x, y = torch.stack(states), torch.tensor(colours)
    seen = len(x) * 2 // 3
    gram = x[:seen].T @ x[:seen] + torch.eye(x.shape[1])
    layer = torch.linalg.solve(gram, x[:seen].T @ one_hot(y[:seen], len(COLOURS)).float())
    assert ((x[seen:] @ layer).argmax(1) == y[seen:]).float().mean() > 0.8
