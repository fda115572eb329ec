"""From the numbers to the document: which sections the report has, in order."""

from importlib.metadata import version

from curation.report.collect import Report
from curation.report.document import Document
from curation.report.sections.captions import captions_section, lengths_section
from curation.report.sections.crops import crops_section
from curation.report.sections.edges import edges_section
from curation.report.sections.features import features_section
from curation.report.sections.funnel import funnel_section
from curation.report.sections.made import made_section
from curation.report.sections.nouns import nouns_section
from curation.report.sections.overview import compare_section, headlines, lead, title
from curation.report.sections.samples import random_section, worst_section
from curation.report.sections.scenes import scenes_sections
from curation.report.sections.shards import shards_section
from curation.report.sections.time import time_section
from curation.report.sections.training import training_section


def compose(report: Report) -> Document:
    """The document. The same numbers give the same document."""
    several = len(report.corpora) > 1
    sections = (
        *((compare_section(report),) if several else ()),
        made_section(report),
        funnel_section(report),
        captions_section(report),
        lengths_section(report),
        nouns_section(report),
        random_section(report),
        worst_section(report),
        edges_section(report),
        crops_section(report),
        features_section(report),
        shards_section(report),
        training_section(report),
        *scenes_sections(report),
        time_section(report),
    )
    return Document(
        title=title(report),
        lead=lead(report),
        headlines=headlines(report),
        notes=tuple(
            f"{corpus.name}: {note}" if several else note for corpus in report.corpora for note in corpus.notes
        ),
        sections=sections,
        made_by=f"latentmill {version('latentmill')}",
        samples=max((corpus.samples for corpus in report.corpora if corpus.samples is not None), default=None),
    )
