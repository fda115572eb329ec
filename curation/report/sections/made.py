"""What made the data: sources, models, prompts, and all settings behind a line to open."""

from typing import Final

from curation.report.collect import DatasetFacts, Report
from curation.report.document import Block, Columns, Folded, Heading, Row, Section, Table, Text
from curation.report.formats import counted, number
from curation.report.sections.sides import sides

_HEADLINE_SETTINGS: Final = (
    *("model", "prompt", "engine", "vae", "t5", "tagger.name", "tagger.version", "column", "columns"),
    *("dtype", "resolution", "buckets", "max_tokens"),
)


def made_section(report: Report) -> Section:
    """One table a corpus, then everything."""
    blocks: list[Block] = []
    for side in sides(report):
        blocks += [Heading(side.prefix)] if side.prefix else []
        columns = tuple(
            (_headlines(facts), Folded(f"All settings and versions of {facts.kind}", (_settings(facts),)))
            for facts in side.corpus.datasets
        )
        blocks += [Columns(columns)] if columns else []
    if not blocks:
        blocks.append(Text("No dataset was given.", "absent"))
    return Section(
        "made",
        "What made it",
        "Look whether this is the model, the prompt and the version that you meant.",
        tuple(blocks),
    )


def _headlines(facts: DatasetFacts) -> Table:
    rows = [
        Row("rows", (f"{number(facts.rows_in)} in {counted(facts.shards, 'shard')} ({counted(facts.units, 'unit')})",)),
        Row("source", (facts.source,)),
        *(Row(name, (facts.config[name],)) for name in _HEADLINE_SETTINGS if name in facts.config),
        *([Row("newest run", (facts.newest_run,))] if facts.newest_run else []),
        Row("directory", (facts.url,)),
    ]
    return Table((facts.kind, ""), tuple(rows), words=True)


def _settings(facts: DatasetFacts) -> Table:
    rows = [Row("dataset id", (facts.dataset_id,)), Row("fingerprint", (facts.fingerprint,))]
    rows += [Row(name, (value,)) for name, value in facts.config.items()]
    rows += [Row(f"{name} version", (", ".join(found),), quiet=True) for name, found in facts.versions.items()]
    return Table(("setting", "value"), tuple(rows), words=True)
