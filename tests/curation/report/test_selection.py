"""The account of a selection, and the edges of its filters."""

import json
from pathlib import Path
from typing import Any

import pytest

from curation.report.collect import collect
from curation.report.inputs import CorpusInputs
from curation.report.selection import read_selection_numbers
from schemas.errors import DatasetError


def test_a_selection_and_its_json_say_the_same(selection: Path, about: Any, tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text(json.dumps(about))
    first = read_selection_numbers(str(selection), lambda _: True)
    second = read_selection_numbers(str(tmp_path / "kept.json"), lambda _: True)
    assert (first.recipe, first.samples, first.selected, first.funnel) == ("good", 6, 2, second.funnel)
    assert first.thresholds == second.thresholds
    assert [one.measure for one in first.thresholds] == ["n_words", "nouns", "status", "aesthetic"]


def test_filters_without_an_edge_are_named_with_why(datasets: Any, selection: Path) -> None:
    inputs = CorpusInputs(captions=str(datasets.captions), nouns=str(datasets.nouns), selection=str(selection))
    (corpus,) = collect([inputs]).corpora
    assert corpus.selection is not None
    assert corpus.selection.edgeless == (
        "alike: looks at more than one value, so it has no edge",
        "pretty: aesthetic is in none of the datasets given here",
    )


def test_the_recipe_decides_the_edges_and_the_usual_ones_fill_up(datasets: Any, selection: Path) -> None:
    inputs = CorpusInputs(captions=str(datasets.captions), nouns=str(datasets.nouns), selection=str(selection))
    captions = collect([inputs]).corpora[0].captions
    assert captions is not None
    edges = {edge.threshold.measure: edge for edge in captions.edges}
    assert list(edges)[:3] == ["n_words", "nouns", "status"]
    assert "aspect" in edges
    assert (edges["status"].kept, edges["status"].dropped) == (3, 3)
    # of the nouns dataset's rows of captions: 10 and 2; k4 has 0; the other samples have no row there
    assert (edges["nouns"].kept, edges["nouns"].dropped, edges["nouns"].unknown) == (1, 2, 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [("{}", "says nothing of how it was made"), ("[", "neither Parquet nor JSON"), ('{"recipe": 1}', "cannot be read")],
)
def test_a_file_without_an_account_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=words) as error:
        read_selection_numbers(str(path), lambda _: True)
    assert "\n" not in str(error.value)


def test_a_missing_selection_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        read_selection_numbers(str(tmp_path / "no.parquet"), lambda _: True)
