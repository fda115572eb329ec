"""Nouns per image: a row an image and caption column, for choosing images by what their captions name."""

from collections.abc import Mapping, Sequence
from itertools import islice

import pyarrow as pa

from curation.nouns.inputs import CaptionRow
from curation.nouns.tagger import TaggedCaption
from schemas.tables import NOUNS_PER_IMAGE


def per_image_table(rows: Sequence[CaptionRow], tagged: Mapping[str, Sequence[TaggedCaption | None]]) -> pa.Table:
    """The `NOUNS_PER_IMAGE` rows of `rows`, the columns of an image one after another.

    `tagged` has for each column what was found in the captions of `rows`, in order; None where one is empty. The
    captions of a row that holds several in one column count as one.
    """
    found = {column: iter(captions) for column, captions in tagged.items()}
    out = []
    for row in rows:
        for column, captions in found.items():
            here = [caption for caption in islice(captions, len(row.captions[column])) if caption is not None]
            nouns = [noun for caption in here for noun in caption.nouns]
            propns = sum(noun.proper for noun in nouns)
            tokens = sum(caption.tokens for caption in here)
            distinct = sorted({noun.noun for noun in nouns})
            out.append((row.key, row.shard, column, len(nouns) - propns, propns, tokens, distinct))
    schema = NOUNS_PER_IMAGE.arrow
    columns = zip(*out, strict=True) if out else [()] * len(schema)
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
