import shutil
import weakref
from pathlib import Path

import pytest
import spacy

from curation.nouns import tagger as module
from curation.nouns.tagger import Normalisation, TaggedNoun, Tagger, load_tagger
from schemas.errors import UserError


def nouns(tagger: Tagger, text: str) -> list[TaggedNoun]:
    return list(tagger.tag([text])[0].nouns)


def test_nouns_come_in_order_in_lower_case_with_their_kind(tagger: Tagger) -> None:
    found = nouns(tagger, "Rex the Dog chases a ball")
    assert found == [TaggedNoun("rex", True), TaggedNoun("dog", False), TaggedNoun("ball", False)]


def test_a_noun_without_a_letter_is_not_counted(tagger: Tagger) -> None:
    assert nouns(tagger, "the 42nd !! dog") == [TaggedNoun("42nd", False), TaggedNoun("dog", False)]


def test_white_space_is_no_token(tagger: Tagger) -> None:
    assert tagger.tag(["a  dog \n sleeps"])[0].tokens == 3


def test_captions_keep_their_order_over_batches(tagger: Tagger) -> None:
    captions = [f"{'dog ' * (i % 5)}end" for i in range(300)]
    assert [len(c.nouns) for c in tagger.tag(captions)] == [i % 5 for i in range(300)]


def test_no_captions_give_nothing(tagger: Tagger) -> None:
    assert tagger.tag([]) == []


def test_lone_surrogates_and_very_long_captions_are_tagged(tagger: Tagger) -> None:
    assert nouns(tagger, "dog \ud800 cat") == [TaggedNoun("dog", False), TaggedNoun("cat", False)]
    assert nouns(tagger, f"{'word ' * 5}{'x' * 999} " * 1_000 + "dog") == [TaggedNoun("dog", False)]


def test_the_vocabulary_stops_growing(lexicon: Path) -> None:
    tagger = load_tagger(str(lexicon))
    tagger.tag([f"first{i} second{i}" for i in range(12_000)])
    size = len(tagger._nlp.vocab.strings)
    tagger.tag([f"third{i} fourth{i}" for i in range(5_000)])
    assert len(tagger._nlp.vocab.strings) == size


@pytest.mark.parametrize("shipped", [True, False])
def test_a_pipeline_through_which_many_words_went_is_loaded_anew_and_nouns_stay(
    shipped: bool, lexicon: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = [f"a dog and a zq{i}x beside number{i % 50} on the ball" for i in range(640)]
    name = None if shipped else str(lexicon)
    monkeypatch.setattr(module, "_REMEMBERED_WORDS", 100)
    once, often = load_tagger(name), load_tagger(name)
    first = weakref.ref(often._nlp)
    monkeypatch.setattr(module, "_PASSING_WORDS", 10_000)
    expected = once.tag(captions)
    monkeypatch.setattr(module, "_PASSING_WORDS", 100)
    assert often.tag(captions) == expected
    assert first() is None, "the pipeline at the beginning is gone, and its memory with it"
    assert once._nlp.vocab.strings["dog"] == often._nlp.vocab.strings["dog"]


def test_a_pipeline_that_changed_meanwhile_is_not_taken(
    lexicon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(lexicon, tmp_path / "copy"))
    tagger = load_tagger(str(copy))
    monkeypatch.setattr(module, "_REMEMBERED_WORDS", 0)
    monkeypatch.setattr(module, "_PASSING_WORDS", 1)
    tagger._use(tagger._nlp)
    (copy / "meta.json").write_text((copy / "meta.json").read_text() + " ")
    with pytest.raises(UserError, match="its files changed while it was in use"):
        tagger.tag([f"word{i}" for i in range(200)])


def test_the_info_names_the_pipeline_and_its_files(lexicon: Path, tmp_path: Path) -> None:
    info = load_tagger(str(lexicon)).info
    assert (info.name, info.version, info.spacy_version) == ("en_lexicon", "1.2.3", spacy.__version__)
    copy = Path(shutil.copytree(lexicon, tmp_path / "elsewhere"))
    (copy / "README.md").write_text("a card")
    assert load_tagger(str(copy)).info == info
    (copy / "meta.json").write_text((copy / "meta.json").read_text() + " ")
    assert load_tagger(str(copy)).info.digest != info.digest


def test_lemmas_are_counted_where_the_pipeline_has_them(lemma_lexicon: Path) -> None:
    tagger = load_tagger(str(lemma_lexicon), Normalisation.LEMMA)
    assert nouns(tagger, "Dogs") == [TaggedNoun("dog", False)]


@pytest.mark.parametrize("name", ["no_such_package", "/no/such/directory"])
def test_a_tagger_that_is_not_there_is_a_users_error(name: str) -> None:
    with pytest.raises(UserError, match=f"tagger {name}: cannot be loaded"):
        load_tagger(name)


def test_a_directory_that_is_no_pipeline_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "config.cfg").write_text("[nlp]\nlang = 'xx'\n")
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        load_tagger(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*W036")
def test_a_pipeline_without_parts_of_speech_is_a_users_error(tagless: Path) -> None:
    with pytest.raises(UserError, match="finds no noun"):
        load_tagger(str(tagless))


def test_lemmas_of_a_pipeline_without_are_a_users_error(lexicon: Path) -> None:
    with pytest.raises(UserError, match="sets no lemmas"):
        load_tagger(str(lexicon), Normalisation.LEMMA)


def test_pipes_that_decide_no_part_of_speech_are_not_loaded(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("attribute_ruler").add([[{"LOWER": "dog"}]], {"POS": "NOUN"})
    nlp.to_disk(tmp_path)
    assert load_tagger(str(tmp_path))._nlp.pipe_names == ["attribute_ruler"]


def test_an_installed_package_is_loaded_by_name(lexicon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "en_lexicon"
    shutil.copytree(lexicon, package / "en_lexicon-1.2.3")
    shutil.copy(lexicon / "meta.json", package / "meta.json")
    code = (
        "from spacy.util import load_model_from_init_py\n"
        "def load(**overrides):\n    return load_model_from_init_py(__file__, **overrides)\n"
    )
    (package / "__init__.py").write_text(code)
    (tmp_path / "en_lexicon-1.2.3.dist-info").mkdir()
    (tmp_path / "en_lexicon-1.2.3.dist-info/METADATA").write_text("Name: en_lexicon\nVersion: 1.2.3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_tagger("en_lexicon").info == load_tagger(str(lexicon)).info
