from pathlib import Path

import pytest

from curation.execution.clock import PhaseClock
from curation.execution.stage import Unit
from curation.nouns.counting import CountingRules
from curation.nouns.merged import is_current, merged_counts, write_merged
from curation.nouns.spectrum import Counted
from curation.nouns.stage import NounStage
from curation.nouns.statistics import noun_statistics
from curation.nouns.tagger import Tagger
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import DATASET_FILE, MERGED_NOUNS_FILE, DatasetInfo, PlannedUnit, RunFacts
from schemas.reading import Dataset, open_dataset
from schemas.record import to_json


def write_unit(root: Path, tagger: Tagger, lexicon: Path, name: str, captions: list[str]) -> Dataset:
    """A nouns dataset with one unit more; a unit of the same name is renewed."""
    stage = NounStage(("caption",), str(lexicon), CountingRules(tagger.info, tagger.normalisation))
    root.mkdir(exist_ok=True)
    spec = stage.spec
    info = DatasetInfo("nouns", spec.schema.version, "nouns", spec.config, spec.fingerprint, "files", "abc", 0)
    (root / DATASET_FILE).write_text(to_json(info))
    (root.parent / f"{name}.txt").write_text("".join(f"{c}\n" for c in captions))
    unit = Unit(PlannedUnit(name, name, 0, len(captions)), str(root.parent / f"{name}.txt"), ())
    with UnitWriter(Target(str(root)), unit.planned, "nouns") as writer:
        stage.open().process(unit, writer, PhaseClock())
        writer.commit(spec.fingerprint, (), RunFacts(0.0, {}, 1, "", {}))
    return open_dataset(str(root), "nouns")


@pytest.fixture
def dataset(tmp_path: Path, tagger: Tagger, lexicon: Path) -> Dataset:
    write_unit(tmp_path / "nouns", tagger, lexicon, "one", ["a dog", "a dog in Paris", ""])
    return write_unit(tmp_path / "nouns", tagger, lexicon, "two", ["a cat and a dog"])


def nouns_of(dataset: Dataset) -> dict[str, int]:
    with merged_counts(dataset) as merged:
        rows = [row for table in merged.rows("caption") for row in table.to_pylist()]
        assert list(merged.rows("other")) == []
        assert (
            merged.summary.total("caption", "captions")
            == noun_statistics(merged.summary, "caption", Counted.BOTH).captions
        )
    return {row["noun"]: row["tf_noun"] + row["tf_propn"] for row in rows}


def test_units_are_added_up_with_and_without_the_merged_file(dataset: Dataset) -> None:
    assert not is_current(dataset)
    before = nouns_of(dataset)
    assert before == {"cat": 1, "dog": 3, "paris": 1}
    assert not is_current(dataset), "reading writes nothing"
    write_merged(dataset)
    assert is_current(dataset)
    assert nouns_of(dataset) == before


def test_a_renewed_unit_makes_the_merged_file_stale(
    dataset: Dataset, tmp_path: Path, tagger: Tagger, lexicon: Path
) -> None:
    write_merged(dataset)
    renewed = write_unit(tmp_path / "nouns", tagger, lexicon, "two", ["a ball"])
    assert not is_current(renewed)
    assert nouns_of(renewed) == {"ball": 1, "dog": 2, "paris": 1}
    write_merged(renewed)
    assert is_current(renewed)
    assert nouns_of(renewed) == {"ball": 1, "dog": 2, "paris": 1}


def test_a_damaged_merged_file_is_made_again(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "nouns" / MERGED_NOUNS_FILE).write_bytes(b"not Parquet")
    assert not is_current(dataset)
    assert nouns_of(dataset) == {"cat": 1, "dog": 3, "paris": 1}


def test_the_merged_file_is_the_same_each_time_and_leaves_nothing_beside_it(dataset: Dataset, tmp_path: Path) -> None:
    write_merged(dataset)
    path = tmp_path / "nouns" / MERGED_NOUNS_FILE
    first = path.read_bytes()
    path.unlink()
    write_merged(dataset)
    assert path.read_bytes() == first
    assert not [p for p in (tmp_path / "nouns").iterdir() if p.name.startswith(".")]
