"""Which column of a metadata file means what: LAION's variants and their kin under one set of names.

The names differ by release: `URL` and `TEXT` in LAION-400M and laion2B, `url` and `caption` in what img2dataset wrote,
`AESTHETIC_SCORE` or `aesthetic`, `image_url` in CapsFusion, `org_caption` in Recap-DataComp. Case never counts. Where
two columns would fit equally well nobody but the user can say which one is meant, so that is an error.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import pyarrow as pa

from schemas.errors import UserError

FieldKind = Literal["text", "number"]


@dataclass(frozen=True, slots=True)
class MetadataField:
    """One thing that metadata tell, under the name it has in each sample's json.

    `spellings` are groups of column names in lower case; the first group of which a file has a column decides. The
    `source_` names are claims of the metadata about a file that may have changed since.
    """

    name: str
    kind: FieldKind
    spellings: tuple[tuple[str, ...], ...]


FIELDS: Final = (
    MetadataField("url", "text", (("url", "image_url"),)),
    MetadataField(
        "caption",
        "text",
        (
            ("text", "caption", "alt_text", "org_caption", "laion_2b"),  # what the web page said
            ("top_caption", "re_caption", "capsfusion", "fused_caption", "caption_llava"),  # what a model said
        ),
    ),
    MetadataField("source_width", "number", (("original_width",), ("width", "image_width"))),
    MetadataField("source_height", "number", (("original_height",), ("height", "image_height"))),
    MetadataField(
        "similarity",
        "number",
        (
            ("similarity",),
            (
                "clip_similarity_vitb32",
                "clip_similarity_vitl14",
                "clip_b32_similarity_score",
                "clip_l14_similarity_score",
                "org_clip_score",
            ),
        ),
    ),
    MetadataField("punsafe", "number", (("punsafe",),)),
    MetadataField("pwatermark", "number", (("pwatermark",), ("watermark_score",))),
    MetadataField("aesthetic", "number", (("aesthetic", "aesthetic_score"), ("aesthetic_score_laion_v2",))),
    MetadataField("language", "text", (("language", "lang"),)),
    MetadataField("license", "text", (("license",),)),
    MetadataField("nsfw", "text", (("nsfw",),)),
    # Identifiers are text: a signed 64-bit hash does not survive programs that read every JSON number as a double.
    MetadataField("hash", "text", (("hash",),)),
    MetadataField("sample_id", "text", (("sample_id", "uid"),)),
    MetadataField("source_key", "text", (("key",),)),
    MetadataField("source_md5", "text", (("md5",),)),
    MetadataField("source_sha256", "text", (("sha256",),)),
)

FIELD_NAMES: Final = tuple(field.name for field in FIELDS)

_ABOUT_ANOTHER_DOWNLOAD: Final = frozenset({"status", "error_message", "exif", "width", "height"})
"""What img2dataset wrote about its own run, in metadata that come from one."""


@dataclass(frozen=True, slots=True)
class Columns:
    """`by_field` is the column of each field that the file has; `others` are the columns that no field claims."""

    by_field: Mapping[str, str]
    others: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Every column that has to be read."""
        return [*self.by_field.values(), *self.others]


def parse_choice(text: str) -> tuple[str, str]:
    """(field, column) of `FIELD=COLUMN`; the column is empty where the user says that there is none."""
    field, equals, column = text.partition("=")
    if not equals or field not in FIELD_NAMES:
        raise UserError(f"--column {text}: write FIELD=COLUMN with a field of {', '.join(FIELD_NAMES)}.")
    return field, column


def resolve_columns(schema: pa.Schema, where: str, *, needed: Collection[str], chosen: Mapping[str, str]) -> Columns:
    """The meaning of each column of `schema`, the schema of the file named by `where`.

    `needed` are fields that must be there, `chosen` the user's word by field (see `parse_choice`). A field that is
    not needed and could be several columns is left alone: the columns keep their own names. Raises `UserError` for a
    column that is missing or cannot be told from another.
    """
    by_field: dict[str, str] = {}
    for field in FIELDS:
        candidates = _candidates(field, schema.names)
        if field.name in chosen:
            candidates = _chosen(field.name, chosen[field.name], schema.names, where)
        elif field.name in needed and not candidates:
            raise UserError(
                f"{where}: no column for {field.name}; it has {', '.join(schema.names)}. Name it with --column "
                f"{field.name}=COLUMN, or say that there is none with --column {field.name}=."
            )
        if len(candidates) == 1:
            by_field[field.name] = candidates[0]
        elif candidates and field.name in needed:
            raise UserError(
                f"{where}: {field.name} could be {' or '.join(candidates)}. Say which with --column "
                f"{field.name}={candidates[0]}."
            )
    if "url" not in by_field:
        raise UserError(
            f"{where}: without a column of URLs nothing can be downloaded. Name it with --column url=COLUMN."
        )
    claimed = set(by_field.values())
    others = tuple(name for name in schema.names if name not in claimed and not _is_debris(name))
    return Columns(by_field, others)


def _candidates(field: MetadataField, names: Collection[str]) -> list[str]:
    for spellings in field.spellings:
        found = [name for name in names if name.lower() in spellings]
        if found:
            return found
    return []


def _chosen(field: str, column: str, names: Collection[str], where: str) -> list[str]:
    if not column:
        return []
    if column not in names:
        raise UserError(f"{where}: --column {field}={column}, but it has {', '.join(names)}.")
    return [column]


def _is_debris(name: str) -> bool:
    """Whether a column is a trace of some program, such as pandas' index or img2dataset's own results."""
    return name.startswith("__index_level_") or name.lower() in _ABOUT_ANOTHER_DOWNLOAD
