"""What a model draws of the scenes that it is asked for, where their truth is known."""

from dataclasses import fields

from curation.report.collect import Report
from curation.report.document import Block, Heading, Row, Section, Table, Text
from curation.report.formats import number, share
from curation.report.sections.sides import sides
from curation.scenes.alignment import MEANINGS, AlignmentScore, Share

_NOTE = (
    "A detector read the pictures; how truly it reads is in its card (curation/demo/checkpoints/detector/README.md). "
    "By chance is what the same pictures score against the prompts of others. True pictures went through the same "
    "autoencoder, and no model can be expected to score more. ± is one standard error, over pictures."
)


def scenes_sections(report: Report) -> tuple[Section, ...]:
    """A section with a table for each model that was scored; none where none was."""
    blocks: list[Block] = []
    for side in sides(report):
        if side.corpus.scenes:
            blocks += [Heading(side.prefix)] if side.prefix else []
            blocks.append(_table(side.corpus.scenes))
    look = "Look at what is right beside what it would be by chance, then at the pictures themselves."
    return (Section("scenes", "What is drawn", look, (*blocks, Text(_NOTE, "note"))),) if blocks else ()


def _table(score: AlignmentScore) -> Table:
    rows = []
    for field in fields(score.aligned):
        found: Share = getattr(score.aligned, field.name)
        drawn = f"{share(found.right, found.of)} ± {100 * found.error:.1f}"
        shares: list[Share] = [getattr(aligned, field.name) for _, aligned in score.columns]
        beside = [share(one.right, one.of) for one in shares]
        rows.append(Row(MEANINGS[field.name], (drawn, *beside, number(found.of))))
    names = (name for name, _ in score.columns)
    return Table((f"of what was asked for in {number(score.pictures)} prompts", "drawn", *names, "N"), tuple(rows))
