"""From datasets to one record of numbers: everything that the report shows, and nothing that it does not."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from curation.report.balance import Balance, ledger_balance
from curation.report.captions import CaptionFindings, read_captions
from curation.report.features import LatentNumbers, TextNumbers, read_latents, read_text
from curation.report.inputs import CorpusInputs
from curation.report.joined import JoinedMeasures
from curation.report.measure_sources import measures_source
from curation.report.nouns import NounNumbers, per_image_source, read_nouns
from curation.report.pictures import Pictures, PictureSource, read_thumbnails
from curation.report.samples import SampleIds, join_balance
from curation.report.scenes import read_scenes
from curation.report.selection import SelectionNumbers, read_selection_numbers
from curation.report.thresholds import usual_thresholds, with_recipe
from curation.report.timing import StageTime, read_timing
from curation.report.training_run import TrainingNumbers, read_training
from curation.report.wanted import wanted_pictures
from curation.scenes.alignment import AlignmentScore
from curation.sources.table import source_named
from schemas.errors import UserError
from schemas.reading import Dataset, open_dataset

PICTURE_BYTES: Final = 4_500_000
"""What all pictures of a report may take together as JPEG; a third more in the page."""


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What a dataset says about itself. `config` is flattened to dotted names; `versions` are all that its units were
    made by; `faults` the units that are not usable, and why."""

    kind: str
    url: str
    stage: str
    source: str
    dataset_id: str
    fingerprint: str
    config: dict[str, str]
    versions: dict[str, tuple[str, ...]]
    units: int
    shards: int
    rows_in: int
    faults: tuple[str, ...]
    newest_run: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """All numbers of one corpus. What was not given is None; `notes` are contradictions a reader should know."""

    name: str
    datasets: tuple[DatasetFacts, ...]
    notes: tuple[str, ...]
    balances: tuple[Balance, ...]
    captions: CaptionFindings | None
    nouns: NounNumbers | None
    latents: LatentNumbers | None
    text: TextNumbers | None
    training: TrainingNumbers | None
    times: tuple[StageTime, ...]
    selection: SelectionNumbers | None
    pictures: Pictures | None
    scenes: AlignmentScore | None = None

    @property
    def samples(self) -> int | None:
        """Rows that came in, by the first dataset that read images; None without one."""
        return next((facts.rows_in for facts in self.datasets if facts.kind in ("captions", "latents")), None)

    def balance(self, step: str) -> Balance | None:
        """The balance of a step of the funnel, if it is known."""
        return next((balance for balance in self.balances if balance.step == step), None)


@dataclass(frozen=True, slots=True)
class Report:
    """The corpora, side by side."""

    corpora: tuple[Corpus, ...]


@dataclass(slots=True)
class _Funnel:
    balances: list[Balance]
    latent_ids: SampleIds | None = None
    text_ids: SampleIds | None = None


def collect(inputs: Sequence[CorpusInputs]) -> Report:
    """Read everything that `inputs` names, one unit at a time.

    Memory holds a unit's table, histograms, and 8 bytes for each sample that has features.
    Raises `UserError` for what is no dataset of its kind, or contradicts itself.
    """
    names = [one.name for one in inputs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two corpora are called {twice[0]}. Give each another name.")
    return Report(tuple(_corpus(one, PICTURE_BYTES // len(inputs)) for one in inputs))


def _corpus(inputs: CorpusInputs, picture_bytes: int) -> Corpus:
    opened = _open(inputs)
    training = read_training(inputs.run) if inputs.run else None
    times = {kind: read_timing(dataset) for kind, dataset in opened.items()}
    funnel = _Funnel([])
    known = _measures(opened)
    selection = read_selection_numbers(inputs.selection, known.knows) if inputs.selection else None
    captions = _captions(opened, funnel, known, selection)
    latents = _latents(opened, funnel)
    text = _text(opened, funnel)
    if funnel.latent_ids is not None and funnel.text_ids is not None:
        where = f"{inputs.latents} and {inputs.text}"
        funnel.balances.append(join_balance(funnel.latent_ids, funnel.text_ids, where))
    nouns = _nouns(opened, funnel)
    return Corpus(
        name=inputs.name,
        datasets=tuple(_facts(dataset, times[kind][1]) for kind, dataset in opened.items()),
        notes=tuple(_notes(opened)),
        balances=tuple(funnel.balances),
        captions=captions,
        nouns=nouns,
        latents=latents,
        text=text,
        training=training,
        times=tuple(time for time, _ in times.values()),
        selection=selection,
        pictures=_pictures(inputs, captions, latents, picture_bytes),
        scenes=read_scenes(inputs.scenes) if inputs.scenes else None,
    )


def _open(inputs: CorpusInputs) -> dict[str, Dataset]:
    asked = {
        "captions": inputs.captions,
        "nouns": inputs.nouns,
        "measures": inputs.measures,
        "latents": inputs.latents,
        "text": inputs.text,
    }
    return {kind: open_dataset(url, kind) for kind, url in asked.items() if url}


def _measures(opened: Mapping[str, Dataset]) -> JoinedMeasures:
    """What nouns and measures datasets say of each caption's picture."""
    sources = [per_image_source(opened["nouns"])] if "nouns" in opened else []
    if "measures" in opened:
        sources.append(measures_source(opened["measures"]))
    return JoinedMeasures([source for source in sources if source is not None])


def _captions(
    opened: Mapping[str, Dataset], funnel: _Funnel, known: JoinedMeasures, selection: SelectionNumbers | None
) -> CaptionFindings | None:
    if "captions" not in opened:
        return None
    captions, latents = opened["captions"], opened.get("latents")
    usual = usual_thresholds(captions.info, latents.info if latents else None)
    thresholds = with_recipe(usual, selection.thresholds) if selection else usual
    found = read_captions(captions, thresholds, known)
    funnel.balances += [ledger_balance(captions, "captions"), found.usable]
    return found


def _latents(opened: Mapping[str, Dataset], funnel: _Funnel) -> LatentNumbers | None:
    if "latents" not in opened:
        return None
    numbers, funnel.latent_ids = read_latents(opened["latents"])
    funnel.balances.append(ledger_balance(opened["latents"], "latents"))
    return numbers


def _text(opened: Mapping[str, Dataset], funnel: _Funnel) -> TextNumbers | None:
    if "text" not in opened:
        return None
    numbers, funnel.text_ids = read_text(opened["text"])
    funnel.balances.append(ledger_balance(opened["text"], "text"))
    return numbers


def _nouns(opened: Mapping[str, Dataset], funnel: _Funnel) -> NounNumbers | None:
    if "nouns" not in opened:
        return None
    funnel.balances.append(ledger_balance(opened["nouns"], "nouns"))
    return read_nouns(opened["nouns"])


def _pictures(
    inputs: CorpusInputs, captions: CaptionFindings | None, latents: LatentNumbers | None, budget: int
) -> Pictures | None:
    """The thumbnails of all samples that the report shows; None without --shards."""
    if inputs.source is None:
        return None
    indexed_by = tuple(url for url in (inputs.captions, inputs.latents) if url)
    where = PictureSource(inputs.shards, source_named(inputs.source), indexed_by)
    return read_thumbnails(wanted_pictures(captions, latents), where, budget)


def _facts(dataset: Dataset, newest_run: str) -> DatasetFacts:
    info = dataset.info
    versions: defaultdict[str, set[str]] = defaultdict(set)
    for entry in dataset.entries:
        for name, version in entry.run.versions.items():
            versions[name].add(version)
    return DatasetFacts(
        kind=info.kind,
        url=dataset.url,
        stage=info.stage,
        source=info.source,
        dataset_id=info.dataset_id,
        fingerprint=info.fingerprint,
        config=_flat(info.config),
        versions={name: tuple(sorted(found)) for name, found in sorted(versions.items())},
        units=len(dataset.entries),
        shards=len({entry.shard for entry in dataset.entries}),
        rows_in=sum(entry.rows_in for entry in dataset.entries),
        faults=dataset.faults,
        newest_run=newest_run,
    )


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """Nested settings as dotted names and words."""
    if isinstance(value, Mapping):
        parts = (_flat(inner, f"{name}.{key}" if name else str(key)) for key, inner in sorted(value.items()))
        return {key: text for part in parts for key, text in part.items()}
    if isinstance(value, list | tuple):
        return {name: ", ".join(str(item) for item in value)}
    return {name: "none" if value is None else str(value)}


def _notes(opened: Mapping[str, Dataset]) -> list[str]:
    """What does not fit together, one line each."""
    notes = [
        f"{kind}: {len(d.faults):,} units are not usable and are left out of every number, such as {d.faults[0]}."
        for kind, d in opened.items()
        if d.faults
    ]
    captions, latents = opened.get("captions"), opened.get("latents")
    if captions is None:
        return notes
    rows = sum(entry.rows_kept for entry in captions.entries)
    for kind in ("text", "nouns"):
        made = opened.get(kind)
        if made is None:
            continue
        if made.info.source.split(":")[:2] != ["captions", captions.info.dataset_id]:
            notes.append(f"{kind}: was made from {made.info.source}, not from these captions.")
        read = sum(entry.rows_in for entry in made.entries)
        if read != rows:
            notes.append(f"{kind}: has read {read:,} of the {rows:,} caption rows. Run pipelines.{kind} again.")
    of_captions = captions.info.source.startswith("captions:")  # a cleaned variant names what it was made from
    if latents is not None and not of_captions and latents.info.source != captions.info.source:
        notes.append(
            f"latents: were made from source {latents.info.source}, captions from {captions.info.source}; "
            f"samples meet by shard and key alone."
        )
    return notes
