from pathlib import Path

import pytest

from curation.report.card import render_markdown
from curation.report.collect import collect
from curation.report.compose import compose
from curation.report.inputs import CorpusInputs
from curation.scenes.alignment import asked_of, score_set
from curation.scenes.scene import scene
from schemas.errors import UserError
from schemas.record import to_json


def test_the_score_of_a_model_is_a_section_with_what_chance_would_give(tmp_path: Path) -> None:
    asked = [asked_of(scene(0, number, things=1)) for number in range(20)]
    file = tmp_path / "score.json"
    file.write_text(to_json(score_set(asked, [*asked[:15], *[asked[0]] * 5])))
    document = compose(collect([CorpusInputs(scenes=str(file))]))
    (section,) = (one for one in document.sections if one.anchor == "scenes")
    table = next(block for block in section.blocks if block.kind == "table")
    assert table.rows[0].cells[0].startswith("75.0%")
    assert table.rows[0].cells[2] == "20"
    assert "What is drawn" in render_markdown(document, "report.html", "report.json")


def test_a_score_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        collect([CorpusInputs(scenes=str(tmp_path / "none.json"))])
