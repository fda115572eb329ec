import gzip
import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import spacy
from spacy.attrs import ORTH
from spacy.language import Language

from curation.nouns.network import TaggingNetwork
from curation.nouns.tagger import SHIPPED_TAGGER, Normalisation, load_tagger

CAPTIONS = (
    "The image features a brown dog running across a lush green field, with a red frisbee in its mouth.",
    "dog",
    "Rolex  Submariner 116610LN \n Men's Watch (40mm) – NEW!",
    "A man in a blue shirt isn't standing near 2 well-known cars; he's walking.",
    "écureuil 名古屋 😀 x",
    "word " * 700,
)


@pytest.fixture(scope="module")
def shipped() -> Language:
    return spacy.load(SHIPPED_TAGGER)


@pytest.fixture(scope="module")
def real_captions(data_folder: Path) -> list[str]:
    """A few hundred of machines, of people and of the web."""
    sources = (
        ("dense-captions/opera-coco-machine.dev.jsonl.gz", "caption", 100),
        ("captions-human/flickr8k-expert-judgements.dev.jsonl.gz", "caption", 300),
        ("alt-text/laion2b-capsfusion.dev.jsonl.gz", "alt_text", 300),
    )
    out: list[str] = []
    for name, column, number in sources:
        with gzip.open(data_folder / name, "rt", encoding="utf-8") as lines:
            out += [json.loads(line)[column] for line in islice(lines, number)]
    return out


def words_of(nlp: Language, captions: Sequence[str]) -> tuple[npt.NDArray[np.uint64], list[int]]:
    docs = [nlp.make_doc(caption) for caption in captions]
    return np.concatenate([doc.to_array([ORTH]) for doc in docs]), [len(doc) for doc in docs]


def network_of(nlp: Language) -> TaggingNetwork:
    network = TaggingNetwork.of(nlp)
    assert network is not None
    return network


def test_tags_are_those_that_spacy_gives(shipped: Language) -> None:
    words, lengths = words_of(shipped, CAPTIONS)
    expected = [token.pos for doc in shipped.pipe(CAPTIONS) for token in doc]
    assert network_of(shipped).tags(words, np.array(lengths)).tolist() == expected


def test_tags_of_real_captions_are_those_that_spacy_gives(shipped: Language, real_captions: Sequence[str]) -> None:
    words, lengths = words_of(shipped, real_captions)
    expected = [token.pos for doc in shipped.pipe(real_captions) for token in doc]
    assert network_of(shipped).tags(words, np.array(lengths)).tolist() == expected


def test_a_caption_does_not_see_its_neighbours(shipped: Language) -> None:
    network = network_of(shipped)
    words, lengths = words_of(shipped, CAPTIONS)
    together = network.tags(words, np.array(lengths)).tolist()
    alone: list[int] = []
    for caption in CAPTIONS:
        words, lengths = words_of(shipped, [caption])
        alone += network.tags(words, np.array(lengths)).tolist()
    assert together == alone


def test_what_is_remembered_of_a_word_does_not_depend_on_the_words_before(shipped: Language) -> None:
    fresh, used = network_of(shipped), network_of(shipped)
    for number in range(5):
        words, lengths = words_of(shipped, [f"other{number} words{number} came first"])
        used.tags(words, np.array(lengths))
    words, lengths = words_of(shipped, CAPTIONS)
    for network in (fresh, used):
        network.tags(words, np.array(lengths))
    for word in np.unique(words).tolist():
        assert np.array_equal(fresh._features[fresh._rows[word]], used._features[used._rows[word]])


def test_words_are_forgotten_before_they_are_too_many(shipped: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.nouns.network._WORDS", 20)
    network = network_of(shipped)
    captions = [f"a dog{i} and a cat{i}" for i in range(30)]
    expected = [token.pos for doc in shipped.pipe(captions) for token in doc]
    found = [tag for c in captions for tag in network.tags(words_of(shipped, [c])[0], np.array([5])).tolist()]
    assert found == expected
    assert len(network._rows) <= 20
    words, lengths = words_of(shipped, captions)
    assert network.tags(words, np.array(lengths)).tolist() == expected, "more words in one batch than are remembered"


def test_no_tokens_have_no_tags(shipped: Language) -> None:
    assert network_of(shipped).tags(np.zeros(0, np.uint64), np.array([0, 0])).tolist() == []
    assert [c.tokens for c in load_tagger(None).tag(["", "a", ""])] == [0, 1, 0]


def added_pipe(nlp: Language) -> None:
    nlp.add_pipe("attribute_ruler")


def other_feature(nlp: Language) -> None:
    nlp.config["components"]["tok2vec"]["model"]["embed"]["attrs"] = ["NORM", "PREFIX", "SUFFIX", "SHAPE"]


def wider_window(nlp: Language) -> None:
    nlp.config["components"]["tok2vec"]["model"]["encode"]["window_size"] = 2


@pytest.mark.parametrize("change", [added_pipe, other_feature, wider_window])
def test_a_pipeline_of_another_shape_is_left_to_spacy(change: Callable[[Language], None]) -> None:
    nlp = spacy.load(SHIPPED_TAGGER)
    change(nlp)
    assert TaggingNetwork.of(nlp) is None


def test_a_pipeline_without_a_network_is_left_to_spacy(lexicon: Path) -> None:
    assert TaggingNetwork.of(spacy.load(lexicon)) is None
    assert load_tagger(str(lexicon), Normalisation.LOWER).tag(["a dog"])[0].tokens == 2
