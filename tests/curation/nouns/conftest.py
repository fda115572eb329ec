from pathlib import Path

import pytest
import spacy

from curation.nouns.tagger import Normalisation, Tagger, load_tagger

NOUNS = ("dog", "dogs", "cat", "park", "ball", "42nd", "!!")
PROPER_NOUNS = ("paris", "rex")


def lexicon_pipeline(directory: Path, *, pos: bool = True, lemmas: bool = False) -> Path:
    """A real spaCy pipeline on disk that tags by a word list; `rose` is a NOUN in lower case and a PROPN otherwise."""
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("attribute_ruler")
    if pos:
        for word in NOUNS:
            ruler.add([[{"LOWER": word}]], {"POS": "NOUN"})
        for word in PROPER_NOUNS:
            ruler.add([[{"LOWER": word}]], {"POS": "PROPN"})
        ruler.add([[{"ORTH": "rose"}]], {"POS": "NOUN"})
        ruler.add([[{"ORTH": "Rose"}]], {"POS": "PROPN"})
    if lemmas:
        ruler.add([[{"LOWER": "dogs"}]], {"LEMMA": "Dog"})
        ruler.add([[{"LOWER": "dog"}]], {"LEMMA": "dog"})
    nlp.meta["name"] = "lexicon"
    nlp.meta["version"] = "1.2.3"
    nlp.to_disk(directory)
    return directory


@pytest.fixture(scope="session")
def lexicon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lexicon_pipeline(tmp_path_factory.mktemp("lexicon") / "pipeline")


@pytest.fixture(scope="session")
def lemma_lexicon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lexicon_pipeline(tmp_path_factory.mktemp("lexicon") / "lemmas", lemmas=True)


@pytest.fixture(scope="session")
def tagless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lexicon_pipeline(tmp_path_factory.mktemp("lexicon") / "tagless", pos=False)


@pytest.fixture(scope="session")
def tagger(lexicon: Path) -> Tagger:
    return load_tagger(str(lexicon), Normalisation.LOWER)
