"""Read features back by their index: for checking and reporting. Training has a reader of its own."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import xxhash

from curation.features.storage import parse_member
from schemas.dataset import LedgerEntry, index_path, tar_path
from schemas.embedding import decode_embedding
from schemas.errors import DatasetError
from schemas.reading import Dataset, damage_told
from schemas.tables import LATENTS_INDEX, TEXT_INDEX

_SCHEMAS = {schema.kind: schema for schema in (LATENTS_INDEX, TEXT_INDEX)}


def read_features(dataset: Dataset, entry: LedgerEntry) -> Iterator[tuple[dict[str, Any], npt.NDArray[np.float16]]]:
    """Each (row of the index, array) of the unit of `entry`, in order, with the digest of the bytes checked.

    The array is [2, C, h, w] of a latents dataset and [N, D] of a text dataset, whichever its codec. Raises
    `DatasetError` where the tar does not hold what the index says.
    """
    schema = _SCHEMAS[dataset.info.kind]
    index = f"{dataset.url}/{index_path(entry.unit)}"
    with dataset.fs.open(dataset.path(index_path(entry.unit)), "rb") as file, damage_told(index):
        parquet = pq.ParquetFile(file)
        schema.check(parquet.schema_arrow, index)
        rows = parquet.read().to_pylist()
    with dataset.fs.open(dataset.path(tar_path(entry.unit)), "rb") as tar:
        for row in rows:
            tar.seek(row["offset"])
            content = tar.read(row["bytes"])
            if xxhash.xxh3_64_intdigest(content) != row["xxh3"]:
                raise DatasetError(
                    f"{dataset.url}/{tar_path(entry.unit)}: the bytes of {row['key']} are not what the index says. "
                    f"Remove this file and run pipelines.{dataset.info.stage} again."
                )
            where = f"{dataset.url}/{tar_path(entry.unit)}: {row['key']}"
            yield row, decode_embedding(parse_member(content, where), where)
