"""From datasets to one record of numbers: everything that the report shows, and nothing that it does not."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from curation.report.balance import Balance, ledger_balance
from curation.report.captions import CaptionNumbers, ChosenSample, read_captions
from curation.report.features import LatentNumbers, TextNumbers, read_latents, read_text
from curation.report.nouns import NounNumbers, read_nouns
from curation.report.pictures import Thumbnail, read_thumbnails
from curation.report.samples import SampleIds, join_balance
from curation.report.timing import StageTime, read_timing
from curation.report.training_run import TrainingNumbers, read_training
from curation.sources.table import source_named
from schemas.errors import UserError
from schemas.reading import Dataset, open_dataset

PICTURES: Final = 20


@dataclass(frozen=True, slots=True)
class Inputs:
    """What to report on: dataset directories or URLs, each where there is one; and the image shards with the name of
    their source, for pictures."""

    captions: str | None = None
    nouns: str | None = None
    latents: str | None = None
    text: str | None = None
    run: str | None = None
    shards: tuple[str, ...] = ()
    source: str | None = None

    def __post_init__(self) -> None:
        if not any((self.captions, self.nouns, self.latents, self.text, self.run)):
            raise UserError("nothing to report on. Give --captions, --nouns, --latents, --text or --run.")
        if bool(self.shards) != bool(self.source):
            raise UserError("--shards and --source belong together: give both, or neither to leave out pictures.")
        if self.shards and not self.captions:
            raise UserError("--shards without --captions: pictures come with their captions. Give --captions DIR.")


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
class Picture:
    """A chosen sample with its thumbnail, or why there is none."""

    sample: ChosenSample
    thumbnail: Thumbnail | None
    problem: str


@dataclass(frozen=True, slots=True)
class Report:
    """All numbers of the report. What was not given is None; `notes` are contradictions a reader should know."""

    datasets: tuple[DatasetFacts, ...]
    notes: tuple[str, ...]
    balances: tuple[Balance, ...]
    captions: CaptionNumbers | None
    nouns: NounNumbers | None
    pictures: tuple[Picture, ...] | None
    latents: LatentNumbers | None
    text: TextNumbers | None
    training: TrainingNumbers | None
    times: tuple[StageTime, ...]

    @property
    def samples(self) -> int | None:
        """Rows that came in, by the first dataset that read images; None without one."""
        return next((facts.rows_in for facts in self.datasets if facts.kind in ("captions", "latents")), None)

    def balance(self, step: str) -> Balance | None:
        """The balance of a step of the funnel, if it is known."""
        return next((balance for balance in self.balances if balance.step == step), None)


@dataclass(slots=True)
class _Funnel:
    balances: list[Balance]
    latent_ids: SampleIds | None = None
    text_ids: SampleIds | None = None


def collect(inputs: Inputs) -> Report:
    """Read everything that `inputs` names, one unit at a time.

    Memory holds a unit's table, histograms, and 8 bytes for each sample that has features.
    Raises `UserError` for what is no dataset of its kind, or contradicts itself.
    """
    opened = _open(inputs)
    training = read_training(inputs.run) if inputs.run else None
    times = {kind: read_timing(dataset) for kind, dataset in opened.items()}
    funnel = _Funnel([])
    captions = _captions(opened, funnel)
    latents = _latents(opened, funnel)
    text = _text(opened, funnel)
    if funnel.latent_ids is not None and funnel.text_ids is not None:
        where = f"{inputs.latents} and {inputs.text}"
        funnel.balances.append(join_balance(funnel.latent_ids, funnel.text_ids, where))
    nouns = _nouns(opened, funnel)
    return Report(
        datasets=tuple(_facts(dataset, times[kind][1]) for kind, dataset in opened.items()),
        notes=tuple(_notes(opened)),
        balances=tuple(funnel.balances),
        captions=captions,
        nouns=nouns,
        pictures=_pictures(inputs, captions),
        latents=latents,
        text=text,
        training=training,
        times=tuple(time for time, _ in times.values()),
    )


def _open(inputs: Inputs) -> dict[str, Dataset]:
    asked = {"captions": inputs.captions, "nouns": inputs.nouns, "latents": inputs.latents, "text": inputs.text}
    return {kind: open_dataset(url, kind) for kind, url in asked.items() if url}


def _captions(opened: Mapping[str, Dataset], funnel: _Funnel) -> CaptionNumbers | None:
    if "captions" not in opened:
        return None
    numbers, usable = read_captions(opened["captions"], PICTURES)
    funnel.balances += [ledger_balance(opened["captions"], "captions"), usable]
    return numbers


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


def _pictures(inputs: Inputs, captions: CaptionNumbers | None) -> tuple[Picture, ...] | None:
    """The chosen samples with their thumbnails; None without --shards."""
    if captions is None or inputs.source is None or inputs.captions is None:
        return None
    found = read_thumbnails(captions.chosen, inputs.shards, source_named(inputs.source), inputs.captions)
    return tuple(
        Picture(sample, None, one) if isinstance(one, str) else Picture(sample, one, "")
        for sample, one in zip(captions.chosen, found, strict=True)
    )


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
    if latents is not None and latents.info.source != captions.info.source:
        notes.append(
            f"latents: were made from source {latents.info.source}, captions from {captions.info.source}; "
            f"samples meet by shard and key alone."
        )
    return notes
