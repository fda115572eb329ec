"""Pictures with their captions: some at random, and the worst."""

from collections.abc import Sequence

from curation.report.chosen import ChosenSample, MeasuredSample
from curation.report.collect import Corpus, Report
from curation.report.document import Block, Card, Cards, Heading, Section, Text, Tile
from curation.report.formats import number
from curation.report.pictures import Thumbnail, Wanted
from curation.report.sections.sides import Side, sides
from curation.report.wanted import large


def random_section(report: Report) -> Section:
    """Samples without any choice."""
    blocks: list[Block] = []
    every = [side for side in sides(report) if side.corpus.captions]
    for side in every:
        assert side.corpus.captions is not None
        samples = side.corpus.captions.random
        blocks += [Heading(side.prefix)] if side.prefix else []
        blocks += [Cards(tuple(_card(side.corpus, sample) for sample in samples))]
    return Section(
        "pictures",
        "Pictures at random",
        "Look whether captions tell what is to be seen, and nothing else; these are the samples with the lowest hash "
        "of shard and key, always the same for the same data.",
        (*_without(every), *blocks),
    )


def worst_section(report: Report) -> Section:
    """Samples by what is wrong with them."""
    blocks: list[Block] = []
    every = [side for side in sides(report) if side.corpus.captions]
    for side in every:
        assert side.corpus.captions is not None
        worst = side.corpus.captions.worst
        for status, samples in worst.unusable.items():
            heading = side.label(f"Status: {status.replace('_', ' ')}")
            blocks += [Heading(heading), Cards(tuple(_card(side.corpus, sample) for sample in samples))]
        for told, measured, digits in (
            ("share of repeated 4-grams", worst.repetition, 3),
            ("compression", worst.compression, 2),
            ("mean log-probability", worst.logprob, 3),
        ):
            blocks += _worst_by(side, told, measured, digits)
    return Section(
        "worst",
        "The worst",
        "Look for a fault that repeats itself: one bad prompt or one broken shard shows here first.",
        (*_without(every), *blocks),
    )


def picture_of(corpus: Corpus, wanted: Wanted) -> tuple[Thumbnail | None, str]:
    """The thumbnail, or why there is none; neither where no pictures were asked for."""
    if corpus.pictures is None:
        return None, ""
    found = corpus.pictures[wanted]
    return (None, found) if isinstance(found, str) else (found, "")


def tile(corpus: Corpus, wanted: Wanted, value: str, text: str) -> Tile:
    """A small picture with a value and a text."""
    thumbnail, problem = picture_of(corpus, wanted)
    return Tile(value, f"{wanted.shard} / {wanted.key}", text, thumbnail, problem)


def without_pictures(given: bool) -> list[Text]:
    """What to say where no pictures were asked for."""
    if given:
        return []
    told = "Without pictures: the report was made without --shards and --source, so it shows keys and captions alone."
    return [Text(told, "absent")]


def _without(every: Sequence[Side]) -> list[Text]:
    if not every:
        return [
            Text("Not in this report: it was made without --captions, which say which samples there are.", "absent")
        ]
    return without_pictures(any(side.corpus.pictures is not None for side in every))


def _worst_by(side: Side, told: str, measured: Sequence[MeasuredSample], digits: int) -> list[Block]:
    if not measured:
        return []
    word = "Lowest" if told == "mean log-probability" else "Highest"
    cards = tuple(_card(side.corpus, one.sample, f"{told} {one.value:.{digits}f}") for one in measured)
    return [Heading(side.label(f"{word} {told}")), Cards(cards)]


def _card(corpus: Corpus, sample: ChosenSample, told: str = "") -> Card:
    thumbnail, problem = picture_of(corpus, large(sample))
    tokens = f", {number(sample.n_t5_tokens)} T5 tokens" if sample.n_t5_tokens is not None else ""
    return Card(sample, thumbnail, problem, told or f"{number(sample.n_words)} words{tokens}")
