"""Other loaders on the same samples: each writes them its own way and yields the batches that latentmill yields.

A batch is `(latents, text, lengths)`: float16 [B, 2, C, h, w]; the stored bytes of the tokens, uint8 [B, L, R], zero
beyond each length; int64 [B]. Samples are stored as plain bytes wherever a format allows, which is the fastest form of
each, and read in the calling process. A package that is not installed is left out with a line that says so.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.loader_data import LATENT, Corpus
from training.data.npy import parse_npy

Batch = tuple[Tensor, Tensor, Tensor]
Sample = tuple[Any, Any]  # stored bytes of latents and text

WINDOW: Final = 256  # samples that a windowed order shuffles among
_MULTIPLE: Final = 8
_SHARD_BYTES: Final = 64 << 20


def collate(samples: Sequence[Sample], token_bytes: int) -> Batch:
    """What everyone writes who has ragged rows: allocate, copy, zero the rest."""
    texts = [np.frombuffer(text, np.uint8).reshape(-1, token_bytes) for _, text in samples]
    lengths = [len(text) for text in texts]
    out = torch.empty(len(samples), -(-max(lengths) // _MULTIPLE) * _MULTIPLE, token_bytes, dtype=torch.uint8)
    for row, text in zip(out.numpy(), texts, strict=True):
        row[: len(text)] = text
        row[len(text) :] = 0
    latents = torch.empty(len(samples), *LATENT, dtype=torch.float16)
    flat = latents.view(len(samples), -1).numpy()
    for row, (latent, _) in zip(flat, samples, strict=True):
        row[:] = np.frombuffer(latent, np.float16)
    return latents, out, torch.tensor(lengths)


class Peer(ABC):
    """A loader of `samples`. `package` is what it needs; loaders of the same `home` share the files in `folder`."""

    name: str
    home: str
    package: str = "torch"
    orders: tuple[str, ...] = ("random", "windowed")

    def __init__(self, samples: Corpus, folder: Path, batch: int) -> None:
        self.samples, self.folder, self.batch = samples, folder, batch

    @property
    def available(self) -> bool:
        """Whether its package is installed."""
        return find_spec(self.package) is not None

    @abstractmethod
    def write(self) -> None:
        """Write the samples into the empty `folder`."""

    @abstractmethod
    def batches(self, order: str, epoch: int) -> Iterator[Any]:
        """All samples once, `random` over all or `windowed`."""

    def epochs(self, order: str, epochs: range) -> Iterator[Any]:
        """The batches of `epochs`, as a training run reads them."""
        for epoch in epochs:
            yield from self.batches(order, epoch)

    @property
    def collate(self) -> Callable[[Sequence[Sample]], Batch]:
        """`collate` for these samples."""
        return partial(collate, token_bytes=self.samples.token_bytes)

    def collate_named(self, rows: Sequence[Mapping[str, bytes]]) -> Batch:
        """`collate` of samples that come as mappings."""
        return self.collate([(row["latent"], row["text"]) for row in rows])

    def sample(self, i: int) -> Sample:
        """The stored bytes of sample `i`."""
        return self.samples.latent(i).tobytes(), self.samples.text(i).tobytes()

    def grouped(self, samples: Iterator[Sample]) -> Iterator[Batch]:
        """Batches of an endless or finite row of samples."""
        group: list[Sample] = []
        for sample in samples:
            group.append(sample)
            if len(group) == self.batch:
                yield self.collate(group)
                group = []
        if group:
            yield self.collate(group)


def order_of(count: int, order: str, epoch: int) -> npt.NDArray[np.int64]:
    """A random order of range(count), or one that shuffles windows of neighbours."""
    rng = np.random.default_rng(epoch)
    if order == "random":
        return rng.permutation(count)
    windows = np.array_split(np.arange(count), max(1, count // WINDOW))
    return np.concatenate([rng.permutation(windows[i]) for i in rng.permutation(len(windows))])


class WebDataset(Peer):
    """Tars of .npy members, read from front to back; its shuffle is a buffer. Members are parsed without a copy."""

    name = home = package = "webdataset"
    orders = ("windowed",)

    def write(self) -> None:
        """See `Peer`."""
        import webdataset

        pattern = str(self.folder / "%05d.tar")
        with webdataset.ShardWriter(pattern, maxsize=_SHARD_BYTES, verbose=0) as sink:
            for i in range(len(self.samples)):
                npy = {"latent.npy": self.samples.latent(i), "text.npy": self.samples.text(i)}
                sink.write({"__key__": f"{i:08d}", **npy})

    def batches(self, order: str, epoch: int) -> Iterator[Batch]:
        """See `Peer`."""
        return self.grouped((parse_npy(s["latent.npy"], ""), parse_npy(s["text.npy"], "")) for s in self._read(epoch))

    def _read(self, epoch: int) -> Any:
        import webdataset

        shards = sorted(map(str, self.folder.glob("*.tar")))
        source = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=epoch, empty_check=False)
        return source.shuffle(WINDOW)


class WebDatasetDecoded(WebDataset):
    """The same tars through `decode`, as its documentation shows."""

    name = "webdataset, .decode()"

    def batches(self, order: str, epoch: int) -> Iterator[Batch]:
        """See `Peer`."""
        return self.grouped((s["latent.npy"], s["text.npy"].reshape(-1)) for s in self._read(epoch).decode())


class Mosaic(Peer):
    """MDS shards of bytes; `py1e` shuffles in blocks, `naive` all of it."""

    name, home, package = "mosaicml-streaming", "mosaicml", "streaming"

    @property
    def available(self) -> bool:
        """See `Peer`."""
        if not super().available:
            return False
        _stand_in("torchvision", "datasets.VisionDataset", "transforms.functional.to_tensor")
        _stand_in(
            "transformers", "feature_extraction_utils.BatchFeature", "tokenization_utils_base.BatchEncoding",
            "models.auto.tokenization_auto.AutoTokenizer", "PreTrainedTokenizerBase",
        )  # fmt: skip
        return True

    def write(self) -> None:
        """See `Peer`."""
        from streaming import MDSWriter

        columns = {"latent": "bytes", "text": "bytes"}
        with MDSWriter(out=str(self.folder), columns=columns, size_limit=_SHARD_BYTES) as sink:
            for i in range(len(self.samples)):
                sink.write(dict(zip(columns, self.sample(i), strict=True)))

    def batches(self, order: str, epoch: int) -> Iterator[Batch]:
        """See `Peer`."""
        from streaming import StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()
        shuffle = {"shuffle_algo": "naive"} if order == "random" else {"shuffle_block_size": WINDOW}
        dataset = StreamingDataset(
            local=str(self.folder), shuffle=True, shuffle_seed=epoch, batch_size=self.batch, **shuffle
        )
        yield from DataLoader(dataset, batch_size=self.batch, num_workers=0, collate_fn=self.collate_named)


class LitData(Peer):
    """Chunks of bytes; its shuffle permutes chunks and what is in them."""

    name = home = package = "litdata"
    orders = ("windowed",)

    def write(self) -> None:
        """See `Peer`."""
        from litdata.streaming import Cache

        # What `litdata.optimize` uses in each of its worker processes.
        cache = Cache(str(self.folder), chunk_bytes=_SHARD_BYTES)
        for i in range(len(self.samples)):
            cache._add_item(i, dict(zip(("latent", "text"), self.sample(i), strict=True)))
        cache.done()
        cache.merge()

    def batches(self, order: str, epoch: int) -> Iterator[Batch]:
        """See `Peer`."""
        import litdata

        dataset = litdata.StreamingDataset(str(self.folder), shuffle=True, seed=epoch)
        yield from litdata.StreamingDataLoader(
            dataset, batch_size=self.batch, num_workers=0, collate_fn=self.collate_named
        )


class HuggingFace(Peer):
    """A memory-mapped Arrow table of binary columns, asked for lists of rows in the arrow format."""

    name, home, package = "HF datasets (arrow)", "arrow", "datasets"

    def write(self) -> None:
        """See `Peer`."""
        from datasets import Dataset as Table
        from datasets import Features, Value

        features = Features({"latent": Value("large_binary"), "text": Value("large_binary")})
        rows = (dict(zip(features, self.sample(i), strict=True)) for i in range(len(self.samples)))
        Table.from_generator(
            lambda: rows, features=features, cache_dir=str(self.folder / "cache"), fingerprint="0" * 16
        ).save_to_disk(str(self.folder / "table"), max_shard_size=_SHARD_BYTES)

    def batches(self, order: str, epoch: int) -> Iterator[Batch]:
        """See `Peer`."""
        from datasets import load_from_disk

        table = load_from_disk(str(self.folder / "table")).with_format("arrow")
        rows = order_of(len(table), order, epoch)
        for start in range(0, len(rows), self.batch):
            columns = table[rows[start : start + self.batch].tolist()]
            yield self.collate(list(zip(_buffers(columns["latent"]), _buffers(columns["text"]), strict=True)))


class Parquet(Peer):
    """Uncompressed binary columns without dictionaries, row groups of 16 read in random order, a window shuffled."""

    name, home, package, orders = "Parquet (pyarrow)", "parquet", "pyarrow", ("windowed",)
    _ROWS: Final = 16

    def write(self) -> None:
        """See `Peer`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([("latent", pa.binary()), ("text", pa.binary())])
        options: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        with pq.ParquetWriter(self.folder / "rows.parquet", schema, **options) as sink:
            for start in range(0, len(self.samples), self._ROWS):
                rows = [self.sample(i) for i in range(start, min(start + self._ROWS, len(self.samples)))]
                columns = [pa.array(column, pa.binary()) for column in zip(*rows, strict=True)]
                sink.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=self._ROWS)

    def batches(self, order: str, epoch: int) -> Iterator[Batch]:
        """See `Peer`."""
        import pyarrow.parquet as pq

        rng = np.random.default_rng(epoch)
        with pq.ParquetFile(self.folder / "rows.parquet", memory_map=True) as file:
            groups = rng.permutation(file.num_row_groups)
            for start in range(0, len(groups), WINDOW // self._ROWS):
                columns = file.read_row_groups(groups[start : start + WINDOW // self._ROWS].tolist())
                samples = list(zip(_buffers(columns["latent"]), _buffers(columns["text"]), strict=True))
                yield from self.grouped(samples[i] for i in rng.permutation(len(samples)))


class StatefulLoader(Peer):
    """One .npy a feature and sample, read by `np.load` in a map-style dataset."""

    name, home, package = "torchdata, a file a sample", "files", "torchdata"

    def write(self) -> None:
        """See `Peer`."""
        for i in range(len(self.samples)):
            np.save(self.folder / f"{i:08d}.latent.npy", self.samples.latent(i))
            np.save(self.folder / f"{i:08d}.text.npy", self.samples.text(i))

    def batches(self, order: str, epoch: int) -> Iterator[Batch]:
        """See `Peer`."""
        from torchdata.stateful_dataloader import StatefulDataLoader

        yield from StatefulDataLoader(
            _Folder(self.folder),
            batch_size=self.batch,
            sampler=order_of(len(self.samples), order, epoch).tolist(),
            collate_fn=self.collate,
            num_workers=0,
            snapshot_every_n_steps=1000,
        )


class _Folder(Dataset[Sample]):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, i: int) -> Sample:
        paths = (self._folder / f"{i:08d}.latent.npy", self._folder / f"{i:08d}.text.npy")
        latent, text = (np.load(path) for path in paths)
        return latent, text


def _buffers(column: Any) -> Iterator[Any]:
    """The values of a binary column without a copy."""
    for chunk in column.chunks:
        for value in chunk:
            yield value.as_buffer()


def _stand_in(package: str, *names: str) -> None:
    """Put empty classes in place of what mosaicml-streaming imports and does not need here, where it cannot be had.

    It imports torchvision and transformers at its top: the one may not fit the torch that is installed, the other has
    to be of a version that is older than what latentmill needs.
    """
    if find_spec(package) is not None:
        return
    for name in names:
        parts = [package, *name.split(".")]
        for depth in range(1, len(parts)):
            path = ".".join(parts[:depth])
            if path not in sys.modules:
                sys.modules[path] = ModuleType(path)
                sys.modules[path].__spec__ = ModuleSpec(path, None)
                sys.modules[path].__path__ = []
        setattr(sys.modules[".".join(parts[:-1])], parts[-1], type(parts[-1], (), {}))


PEERS: Final[tuple[type[Peer], ...]] = (
    WebDataset,
    WebDatasetDecoded,
    Mosaic,
    LitData,
    HuggingFace,
    Parquet,
    StatefulLoader,
)
