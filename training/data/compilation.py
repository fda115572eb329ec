"""A joined mixture as files that are mapped into memory: made once a machine, shared by all of its processes.

    CACHE/<digest of the inputs>/rows.bin        one record a sample, in order of (dataset, shard, key)
                                 tokens.bin      uint16 [N, V]: tokens of each caption variant, 0 where there is none
                                 members.bin     int32: rows in order of (dataset, bucket, row)
                                 names.arrow     shard and key of each row
                                 null_text.npy   the embedding of the empty string
                                 about.json      everything else, see `About`

All that the plan looks through lies apart in small columns, and all that a reader needs of one sample side by side.

The join goes shard by shard, so it holds a few shards in memory whatever the size of the data. A directory is made
aside and renamed, under a lock, so it is there whole or not at all and made by one process while the others wait.
"""

import fcntl
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.dataset import tar_path
from schemas.errors import StorageError
from schemas.reading import Dataset
from schemas.record import canonical_json, from_json, to_json
from training.data.join import NAMED, NAMES, Joined, ShardGroup, join_shard
from training.data.population import grouped
from training.data.sources import Facts, OpenSource, StoreInfo, joint_facts, joint_null_text

LATENTS: Final = "latents"
FLIPPED: Final = "flipped"

_ABOUT: Final = "about.json"
_ROWS: Final = "rows.bin"
_TOKENS: Final = "tokens.bin"
_MEMBERS: Final = "members.bin"
_NAMES: Final = "names.arrow"
_NULL: Final = "null_text.npy"
_THREADS: Final = 4
_AHEAD: Final = 8  # shards
_PIECE: Final = 1 << 18  # rows
_KEPT: Final = 4  # manifests in the cache, the last used ones
_PLACE: Final = np.dtype([("file", "<i4"), ("offset", "<i8"), ("bytes", "<u4"), ("xxh3", "<u8")])


def text_field(variant: int) -> str:
    """The field of a row record that says where the text of caption variant `variant` lies."""
    return f"text_{variant}"


@dataclass(frozen=True, slots=True)
class Side:
    """The files of one feature, over all datasets."""

    paths: tuple[str, ...]
    owner: tuple[int, ...]  # of each path, the index of its store


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a compiled mixture besides its rows."""

    digest: str
    facts: Facts
    stores: tuple[StoreInfo, ...]
    latents: Side
    flipped: Side | None
    text: tuple[Side, ...]
    buckets: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    strata: tuple[tuple[int, ...], ...]
    without_text: int
    without_latents: int
    first_without_text: tuple[str, ...]
    first_without_latents: tuple[str, ...]
    selected: int  # keys that were selected, 0 where nothing was
    absent: int  # of them, how many are neither in latents nor text
    lacking: tuple[int, ...]  # of each caption variant, samples whose dataset has it and that lack it
    unflipped: int  # samples whose dataset has flipped latents and that lack them


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """The mapped files."""

    about: About
    rows: NDArray[Any]
    tokens: NDArray[np.uint16]
    members: NDArray[np.int32]
    names: Any  # pyarrow table of shard and key
    null_text: NDArray[np.float16]


def compiled(sources: Sequence[OpenSource], name: str, cache: Path | None) -> Compiled:
    """The compiled form of `sources`, whose digest is `name`; found in `cache`, else made there.

    Without a cache it is made in a temporary directory whose files live as long as their maps. Raises `DatasetError`
    for data that cannot be joined, `StorageError` where the disk refuses.
    """
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="latentmill-manifest-") as folder:
            _compile(sources, Path(folder))
            return _load(Path(folder))
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f"{name}.lock"):
            if not _is_whole(cache / name):
                for leftover in (cache / name, *cache.glob(f"{name}.*.partial")):  # of processes that were killed
                    shutil.rmtree(leftover, ignore_errors=True)
                _make_room(cache)
                with tempfile.TemporaryDirectory(prefix=f"{name}.", suffix=".partial", dir=cache) as folder:
                    _compile(sources, Path(folder) / name)
                    (Path(folder) / name).rename(cache / name)
            os.utime(cache / name)
            return _load(cache / name)
    except OSError as error:
        raise StorageError(f"{cache}: {error}. Free space there, or choose another --manifest-cache.") from None


def row_type(variants: int, flipped: bool) -> np.dtype[Any]:
    """The record of a sample."""
    fields: list[Any] = [("sample", "<u8"), ("original_size", "<i4", (2,)), ("label", "<i4"), ("bucket", "<i2")]
    fields += [(LATENTS, _PLACE)]
    fields += [(FLIPPED, _PLACE)] if flipped else []
    return np.dtype(fields + [(text_field(number), _PLACE) for number in range(variants)])


def _compile(sources: Sequence[OpenSource], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    facts = joint_facts(sources)
    np.save(folder / _NULL, joint_null_text(sources, facts.dim))
    variants, any_flipped = max(len(s.text) for s in sources), any(s.flipped for s in sources)
    files = _Files(sources, variants)
    tallies, buckets, starts = _Tallies(variants), dict[tuple[int, int], int](), [0]
    kind = row_type(variants, any_flipped)
    with (
        (folder / _ROWS).open("wb") as rows,
        (folder / _TOKENS).open("wb") as tokens,
        _names_file(folder / _NAMES) as names,
    ):
        for number, source in enumerate(sources):
            count = starts[-1]
            for joined in _join(source, files.first_of(number)):
                tallies.add(joined)
                record = _records(joined, kind, buckets)
                record.tofile(rows)
                _tokens(joined, variants).tofile(tokens)
                names.write_table(joined.names)
                count += len(record)
            starts.append(count)
    table: NDArray[Any] = _mapped(folder / _ROWS, kind, "r+")
    ordered = sorted(buckets)
    _renumber(table, np.array([ordered.index(bucket) for bucket in buckets], np.int16))
    members, strata = grouped(table["bucket"], starts)
    members.tofile(folder / _MEMBERS)
    about = About(
        digest=_digest(
            {"facts": asdict(facts), "starts": starts, "buckets": ordered},
            np.load(folder / _NULL),
            table,
            _mapped(folder / _TOKENS, np.dtype("<u2"), "r").reshape(len(table), variants),
        ),
        facts=facts,
        stores=files.stores,
        latents=files.latents,
        flipped=files.flipped if any_flipped else None,
        text=files.text,
        buckets=tuple(ordered),
        starts=tuple(starts),
        strata=tuple((s.dataset, s.bucket, s.first, s.size) for s in strata),
        selected=sum(len(s.selection) for s in sources if s.selection is not None),
        absent=sum(len(s.selection) for s in sources if s.selection is not None) - tallies.found,
        **tallies.named(),
    )
    (folder / _ABOUT).write_text(to_json(about))
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _is_whole(folder: Path) -> bool:
    """Whether the files of a compiled mixture are there at their sizes."""
    if not (folder / _ABOUT).is_file():
        return False
    about = from_json(About, (folder / _ABOUT).read_text(), str(folder / _ABOUT))
    record = row_type(len(about.text), about.flipped is not None).itemsize
    sizes = {_ROWS: record, _TOKENS: 2 * len(about.text), _MEMBERS: 4}
    files = [folder / name for name in (*sizes, _NAMES, _NULL)]
    if not all(path.is_file() for path in files):
        return False
    return all((folder / name).stat().st_size == size * about.starts[-1] for name, size in sizes.items())


def _load(folder: Path) -> Compiled:
    about = from_json(About, (folder / _ABOUT).read_text(), str(folder / _ABOUT))
    with pa.memory_map(str(folder / _NAMES)) as file:
        names = pa.ipc.open_file(file).read_all()
    kind = row_type(len(about.text), about.flipped is not None)
    return Compiled(
        about,
        _mapped(folder / _ROWS, kind, "r"),
        _mapped(folder / _TOKENS, np.dtype("<u2"), "r").reshape(about.starts[-1], len(about.text)),
        _mapped(folder / _MEMBERS, np.dtype("<i4"), "r"),
        names,
        np.load(folder / _NULL),
    )


def _mapped(path: Path, kind: np.dtype[Any], mode: Any) -> NDArray[Any]:
    return np.memmap(path, kind, mode).view(np.ndarray) if path.stat().st_size else np.empty(0, kind)


def _join(source: OpenSource, first_files: dict[str, int]) -> Iterator[Joined]:
    """The joined rows of each shard of a source, in order of shard; a few shards are read ahead."""
    groups = ShardGroup.of(source, first_files)
    with ThreadPoolExecutor(_THREADS) as pool:
        ahead = [pool.submit(join_shard, source, group) for group in itertools.islice(groups, _AHEAD)]
        while ahead:
            yield ahead.pop(0).result()
            ahead += [pool.submit(join_shard, source, group) for group in itertools.islice(groups, 1)]


def _records(joined: Joined, kind: np.dtype[Any], buckets: dict[tuple[int, int], int]) -> NDArray[Any]:
    """Records of joined rows. Buckets are numbered as they come, and noted in `buckets`."""
    out = np.zeros(len(joined.sample), kind)
    for name in ("sample", "original_size", "label"):
        out[name] = getattr(joined, name)
    sizes, bucket = np.unique(joined.size_px, axis=0, return_inverse=True)
    numbers = [buckets.setdefault((int(height), int(width)), len(buckets)) for height, width in sizes]
    out["bucket"] = np.array(numbers, np.int16)[bucket.reshape(-1)] if numbers else 0
    sides = {LATENTS: joined.latents, FLIPPED: joined.flipped}
    sides |= {text_field(number): text for number, text in enumerate(joined.text)}
    for name in kind.names or ():
        if kind[name] == _PLACE:
            place = sides.get(name)
            out[name]["file"] = -1
            if place is not None:
                for field in _PLACE.names or ():
                    out[name][field] = place[field]
    return out


def _tokens(joined: Joined, variants: int) -> NDArray[np.uint16]:
    out = np.zeros((len(joined.sample), variants), "<u2")
    for number, text in enumerate(joined.text):
        out[:, number] = text["tokens"]
    return out


def _renumber(table: NDArray[Any], numbers: NDArray[np.int16]) -> None:
    for start in range(0, len(table), _PIECE):
        piece = table["bucket"][start : start + _PIECE]
        piece[:] = numbers[piece]


def _digest(head: dict[str, Any], null_text: NDArray[Any], table: NDArray[Any], tokens: NDArray[np.uint16]) -> str:
    """blake2b (128 bits) over `head` and all that the samples are but not where they lie, little-endian."""
    digest = hashlib.blake2b(canonical_json(head).encode(), digest_size=16)
    digest.update(f"{null_text.shape}".encode() + null_text.astype("<f2").tobytes())
    fields = [name for name in table.dtype.names or () if table.dtype[name] != _PLACE]
    places = [name for name in table.dtype.names or () if table.dtype[name] == _PLACE]
    for start in range(0, len(table), _PIECE):
        piece = table[start : start + _PIECE]
        arrays = [piece[name] for name in fields] + [piece[name]["xxh3"] for name in places]
        for array in (*arrays, tokens[start : start + _PIECE]):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class _Tallies:
    """What was left out or falls back, over all shards."""

    def __init__(self, variants: int) -> None:
        self.found = 0
        self._counts = {"without_text": 0, "without_latents": 0, "unflipped": 0}
        self._first: dict[str, list[str]] = {"without_text": [], "without_latents": []}
        self._lacking = [0] * variants

    def add(self, joined: Joined) -> None:
        self.found += joined.found
        for name, left_out in (("without_text", joined.without_text), ("without_latents", joined.without_latents)):
            self._counts[name] += len(left_out)
            self._first[name] += left_out[: NAMED - len(self._first[name])]
        if joined.flipped is not None:
            self._counts["unflipped"] += int((joined.flipped["file"] < 0).sum())
        for number, text in enumerate(joined.text):
            self._lacking[number] += int((text["file"] < 0).sum())

    def named(self) -> dict[str, Any]:
        return {
            **self._counts,
            "first_without_text": tuple(self._first["without_text"]),
            "first_without_latents": tuple(self._first["without_latents"]),
            "lacking": tuple(self._lacking),
        }


class _Files:
    """The tars of all sources, numbered through per feature."""

    def __init__(self, sources: Sequence[OpenSource], variants: int) -> None:
        self._stores: list[StoreInfo] = []
        self._sides: dict[str, tuple[list[str], list[int]]] = {}
        self._first: list[dict[str, int]] = []
        for name in (LATENTS, FLIPPED, *map(text_field, range(variants))):
            self._sides[name] = [], []
        for source in sources:
            sides = {LATENTS: source.latents, FLIPPED: source.flipped}
            sides |= {text_field(number): text for number, text in enumerate(source.text)}
            self._first.append({name: self._add(name, dataset) for name, dataset in sides.items() if dataset})

    def _add(self, name: str, dataset: Dataset) -> int:
        paths, owner = self._sides[name]
        first = len(paths)
        paths += [dataset.path(tar_path(entry.unit)) for entry in dataset.entries]
        owner += [len(self._stores)] * len(dataset.entries)
        self._stores.append(StoreInfo(dataset.url, dataset.info.kind, dataset.info.stage))
        return first

    def first_of(self, source: int) -> dict[str, int]:
        """The number of the first tar of each feature of a source."""
        return self._first[source]

    def _side(self, name: str) -> Side:
        paths, owner = self._sides[name]
        return Side(tuple(paths), tuple(owner))

    @property
    def stores(self) -> tuple[StoreInfo, ...]:
        return tuple(self._stores)

    @property
    def latents(self) -> Side:
        return self._side(LATENTS)

    @property
    def flipped(self) -> Side:
        return self._side(FLIPPED)

    @property
    def text(self) -> tuple[Side, ...]:
        return tuple(self._side(name) for name in self._sides if name not in (LATENTS, FLIPPED))


@contextmanager
def _names_file(path: Path) -> Iterator[Any]:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, NAMES) as writer:
        yield writer


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_room(cache: Path) -> None:
    """Remove all but the manifests used last. Whoever has one mapped keeps it until the map is closed."""
    found = sorted((p for p in cache.iterdir() if (p / _ABOUT).is_file()), key=lambda p: p.stat().st_mtime)
    for folder in found[: 1 - _KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
