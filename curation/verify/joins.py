"""Which samples of a latents and a text dataset have no partner, and whether that is accounted for."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import xxhash

from curation.verify.files import read_columns, rejects_of
from curation.verify.findings import Findings
from schemas.dataset import SELECTION_INPUT, LedgerEntry, index_path, table_path
from schemas.reading import Dataset

_NAMED: Final = 3
_CHECK: Final = "join"


@dataclass(slots=True)
class Join:
    """The join of two datasets. Holes are samples that one side lacks: those whose reason is known, by reason, and the
    number of those that nobody refused."""

    latents: str
    text: str
    matched: int = 0
    refused_text: dict[str, int] = field(default_factory=dict)
    refused_latents: dict[str, int] = field(default_factory=dict)
    lost_text: int = 0
    lost_latents: int = 0


def check_join(
    latents: Dataset, text: Dataset, captions: Dataset | None, skipped: Collection[str], findings: Findings
) -> Join:
    """Match every sample by (shard, key), a shard at a time.

    A latent without text is accounted for if the text stage, or the captions stage of `captions`, refused its key; a
    text without latent, if the latents stage did. All others are wrong.
    Shards in `skipped` are left out: parts of them cannot be read.
    """
    join = Join(latents.url, text.url)
    sides = [_by_shard(dataset) for dataset in (latents, text, captions)]
    for shard in sorted({*sides[0], *sides[1]} & set(skipped)):
        findings.note(_CHECK, f"shard {shard}", "not joined, since some of its files are damaged")
    for shard in sorted({*sides[0], *sides[1]} - set(skipped)):
        pictures, embeddings = _keys(latents, sides[0][shard]), _keys(text, sides[1][shard])
        join.matched += len(pictures & embeddings)
        without_text, without_latent = sorted(pictures - embeddings), sorted(embeddings - pictures)
        if without_text:
            refused = (rejects_of(captions, sides[2][shard]) if captions else {}) | rejects_of(text, sides[1][shard])
            join.lost_text += _account(shard, without_text, refused, join.refused_text, "without text", findings)
        if without_latent:
            refused = rejects_of(latents, sides[0][shard])
            join.lost_latents += _account(
                shard, without_latent, refused, join.refused_latents, "without latents", findings
            )
    if not join.matched and not skipped:
        findings.wrong(_CHECK, f"{latents.url} and {text.url}", "no sample in common")
    return join


def check_captions(text: Dataset, captions: Dataset, findings: Findings) -> None:
    """Every embedding is of the text that its caption has now, told by the caption's digest and hash."""
    column = text.info.config["column"]
    expected = f"captions:{captions.info.dataset_id}:{column}"
    if text.info.source != expected:
        findings.wrong("captions", text.url, f"made from {text.info.source}, {captions.url} is {expected}")
        return
    entries = {entry.unit: entry for entry in captions.entries}
    for entry in text.entries:
        where = f"{text.url}/{index_path(entry.unit)}"
        source = entries.get(entry.unit)
        if source is None:
            findings.wrong("captions", where, f"{captions.url} has no unit {entry.unit}")
            continue
        digests = {output.digest for output in source.outputs if output.path == table_path(entry.unit)}
        if digests != {i.digest for i in entry.inputs if i.name != SELECTION_INPUT}:
            findings.wrong("captions", where, f"{captions.url}/{table_path(entry.unit)} is another one by now")
        _check_hashes(text, captions, entry, column, findings)


def _check_hashes(text: Dataset, captions: Dataset, entry: LedgerEntry, column: str, findings: Findings) -> None:
    index, table = index_path(entry.unit), table_path(entry.unit)
    made = read_columns(text, index, ["key", "caption_xxh64"])
    rows = read_columns(captions, table, ["key", column])
    now = dict(zip(rows["key"].to_pylist(), rows[column].to_pylist(), strict=True))
    for key, digest in zip(made["key"].to_pylist(), made["caption_xxh64"].to_pylist(), strict=True):
        caption = now.get(key)
        if caption is None or xxhash.xxh64_intdigest(caption.encode()) != digest:
            state = "gone" if caption is None else "another one by now"
            findings.wrong(
                "captions", f"{text.url}/{index}: {key}", f"its caption is {state}; run pipelines.text again"
            )


def _by_shard(dataset: Dataset | None) -> defaultdict[str, list[LedgerEntry]]:
    out: defaultdict[str, list[LedgerEntry]] = defaultdict(list)
    for entry in dataset.entries if dataset else ():
        out[entry.shard].append(entry)
    return out


def _keys(dataset: Dataset, entries: Sequence[LedgerEntry]) -> set[str]:
    keys: set[str] = set()
    for entry in entries:
        keys.update(read_columns(dataset, index_path(entry.unit), ["key"])["key"].to_pylist())
    return keys


def _account(
    shard: str,
    holes: Sequence[str],
    refused: Mapping[str, str],
    reasons: dict[str, int],
    what: str,
    findings: Findings,
) -> int:
    """Sort `holes` into accounted for and lost, tell both, and return how many are lost."""
    known = Counter(refused[key] for key in holes if key in refused)
    lost = [key for key in holes if key not in refused]
    for reason, count in known.items():
        reasons[reason] = reasons.get(reason, 0) + count
    if known:
        first = ", ".join([key for key in holes if key in refused][:_NAMED])
        findings.note(
            _CHECK, f"shard {shard}", f"{sum(known.values())} samples {what}, refused: {dict(known)} ({first}, ..)"
        )
    for key in lost:
        findings.wrong(_CHECK, f"{shard}/{key}", f"{what}, and no stage refused it")
    return len(lost)
