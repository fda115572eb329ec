import random
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
from spacy.training import Corpus

from pipelines.train_tagger import main
from schemas.errors import UserError

WORDS = {
    "the": ("DET", "DT"),
    "dog": ("NOUN", "NN"),
    "cat": ("NOUN", "NN"),
    "sees": ("VERB", "VBZ"),
    "Rex": ("PROPN", "NNP"),
    "big": ("ADJ", "JJ"),
}
LOADS_ALONE = """
import sys, spacy
nlp = spacy.load(sys.argv[1])
assert not {name for name in sys.modules if name.split(".")[0] in ("curation", "schemas", "pipelines")}
print(*(token.pos_ for token in nlp("the dog sees Rex")))
"""


def write_treebank(path: Path, sentences: int, seed: int) -> None:
    draw = random.Random(seed)
    lines = []
    for _ in range(sentences):
        for i, word in enumerate(draw.choices(list(WORDS), k=5), 1):
            lines.append(f"{i}\t{word}\t_\t{WORDS[word][0]}\t{WORDS[word][1]}\t_\t_\t_\t_\t_")
        lines.append("")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a build on toy treebanks: out/ and work/."""
    root = tmp_path_factory.mktemp("build")
    for name, sentences in (("ewt-train", 30), ("ewt-dev", 4), ("atis-train", 5), ("atis-dev", 3)):
        write_treebank(root / f"{name}.conllu", sentences, seed=len(name))
    (root / "plain.txt").write_text("the dog\nthe cat\n")
    arguments = ["--treebanks", root, "--out", root / "out", "--work", root / "work", "--captions", root / "plain.txt"]
    assert main([*map(str, arguments), "--max-steps", "3"]) == 0
    return root


def test_a_built_pipeline_loads_in_a_process_without_our_package(built: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-I", "-c", LOADS_ALONE, str(built / "out")], check=True, capture_output=True, text=True
    )
    assert len(run.stdout.split()) == 4


def test_a_built_pipeline_has_no_path_of_the_machine_that_built_it(built: Path) -> None:
    for file in (built / "out").rglob("*"):
        if file.is_file():
            assert str(built).encode() not in file.read_bytes(), file.name


def test_stripping_changes_no_tag(built: Path) -> None:
    text = "the big Dog sees the unseen Cat in October, doesn't it?"
    stripped, whole = spacy.load(built / "out"), spacy.load(built / "work/trained/model-best")
    assert not (built / "out/vocab").exists()
    assert [(t.text, t.pos_) for t in stripped(text)] == [(t.text, t.pos_) for t in whole(text)]


def test_half_of_the_training_text_keeps_the_gold_words(built: Path) -> None:
    docs = list(Corpus(built / "work/train.spacy")(spacy.blank("en")))
    gold = [d for d in docs if d.reference.has_unknown_spaces]
    assert 0.3 < len(gold) / len(docs) < 0.7
    assert all([t.text for t in d.predicted] == [t.text for t in d.reference] for d in gold)


def test_the_card_has_a_row_for_each_text_and_nothing_left_to_fill_in(built: Path) -> None:
    card = (built / "out/README.md").read_text()
    assert "@" not in card
    for row in ("| EWT dev |", "| EWT dev, lower case |", "| Atis dev |", "- plain: "):
        assert row in card
    assert "GUM dev" not in card


def test_missing_treebanks_are_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no train file of EWT"):
        main(["--treebanks", str(tmp_path), "--out", str(tmp_path / "out")])
