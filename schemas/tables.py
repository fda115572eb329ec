"""Every table that latentmill writes. Sizes are height × width; `shard` and `key` together name a sample."""

from typing import Final

import pyarrow as pa

from schemas.table import Column, TableSchema

_KEY: Final = Column("key", pa.string(), "sample key: the tar member's path without extension, folders kept")
_SHARD: Final = Column("shard", pa.string(), "name of the source shard (file name without extension)")

CAPTIONS: Final = TableSchema(
    "captions",
    2,
    (
        _KEY,
        _SHARD,
        Column("width", pa.int32(), "image width in pixels after EXIF orientation"),
        Column("height", pa.int32(), "image height in pixels after EXIF orientation"),
        Column("raw_caption", pa.string(), "what the source said; null if it said nothing", nullable=True),
        Column("generated", pa.string(), "the engine's text, unaltered"),
        Column("caption", pa.string(), "cleaned text; empty where nothing usable is left"),
        Column("status", pa.string(), "exactly one of schemas.status.CaptionStatus"),
        Column(
            "flags", pa.list_(pa.string()), "rules that fired, but the one the status is named after; no_FIELD; sorted"
        ),
        Column("finish_reason", pa.string(), "stop | length | error"),
        Column("error", pa.string(), "why the engine gave no text, one line; null if it gave one", nullable=True),
        Column("n_prompt_tokens", pa.int32(), "prompt tokens, image tokens included, padding excluded"),
        Column("n_tokens", pa.int32(), "generated tokens, the end token included"),
        Column("n_t5_tokens", pa.int32(), "T5 tokens of caption, end token included; null without", nullable=True),
        Column("n_words", pa.int32(), "words of generated, split at white space"),
        Column("repeated_4grams", pa.float32(), "share of 4-grams that came before; null under 4 words", nullable=True),
        Column("compression", pa.float32(), "UTF-8 bytes over the zlib-compressed; null if empty", nullable=True),
        Column("mean_logprob", pa.float32(), "mean natural-log probability of the generated tokens", nullable=True),
        Column("prompt_id", pa.string(), "digest of the prompt template and the image preparation"),
        Column("rules_version", pa.int32(), "version of the caption rules that set caption, status and flags"),
        Column("seed", pa.int64(), "seed of this row's sampling; -1 under greedy decoding"),
    ),
)

CAPTION_HASHES: Final = TableSchema(
    "caption_hashes",
    1,
    (Column("text_xxh64", pa.uint64(), "xxh64 of generated's lower-case words; null without a word", nullable=True),),
)
"""What pipelines.clean counts equal texts by, in the order of the captions."""

REJECTS: Final = TableSchema(
    "rejects",
    1,
    (
        _KEY,
        _SHARD,
        Column("stage", pa.string(), "the stage that refused the row"),
        Column("reason", pa.string(), "reason code, see schemas.status.RejectReason"),
        Column("detail", pa.string(), "one line for a person"),
    ),
)

NOUNS: Final = TableSchema(
    "nouns",
    1,
    (
        Column("column", pa.string(), "the caption column that was counted, such as raw_caption or caption"),
        Column("noun", pa.string(), "the noun, normalised as dataset.json says"),
        Column("tf_noun", pa.int64(), "occurrences tagged NOUN"),
        Column("tf_propn", pa.int64(), "occurrences tagged PROPN"),
        Column("df_noun", pa.int64(), "captions in which it occurs as NOUN"),
        Column("df_propn", pa.int64(), "captions in which it occurs as PROPN"),
        Column("df", pa.int64(), "captions in which it occurs as either"),
    ),
)

NOUN_TOTALS: Final = TableSchema(
    "noun_totals",
    1,
    (
        Column("column", pa.string(), "the caption column that was counted"),
        Column("captions", pa.int64(), "captions counted: present and not empty"),
        Column("empty", pa.int64(), "rows whose caption was null or empty, left out of every count"),
        Column("tokens", pa.int64(), "tokens in the counted captions"),
        Column("nouns", pa.int64(), "tokens tagged NOUN"),
        Column("propns", pa.int64(), "tokens tagged PROPN"),
    ),
)

NOUNS_PER_IMAGE: Final = TableSchema(
    "nouns_per_image",
    1,
    (
        _KEY,
        _SHARD,
        Column("column", pa.string(), "the caption column that was counted, such as raw_caption or caption"),
        Column("nouns", pa.int32(), "tokens tagged NOUN; 0 where the caption is null or empty"),
        Column("propns", pa.int32(), "tokens tagged PROPN"),
        Column("tokens", pa.int32(), "tokens of the caption, white space left out"),
        Column("distinct", pa.list_(pa.string()), "the caption's distinct nouns (NOUN and PROPN), normalised, sorted"),
    ),
)
"""A row an image and caption column, in the order of the captions."""

MEASURES: Final = TableSchema(
    "measures",
    1,
    (
        _KEY,
        _SHARD,
        Column("width", pa.int32(), "image width in pixels after EXIF orientation"),
        Column("height", pa.int32(), "image height in pixels after EXIF orientation"),
        Column("phash", pa.uint64(), "perceptual hash, see curation.measures.picture; null if plain", nullable=True),
        Column("luma_mean", pa.float32(), "mean luma, 0 to 255"),
        Column("luma_std", pa.float32(), "standard deviation of the luma: contrast"),
        Column("sharpness", pa.float32(), "variance of the luma's Laplacian at 256 px: low where blurred"),
        Column("extra", pa.map_(pa.string(), pa.float64()), "the source's numbers by name, such as aesthetic"),
    ),
)

_FEATURE_INDEX: Final = (
    _KEY,
    _SHARD,
    Column("offset", pa.int64(), "byte offset of the .npy member's content in the tar"),
    Column("bytes", pa.int64(), "length of the .npy member's content"),
    Column("xxh3", pa.uint64(), "xxh3 (64 bits) of those bytes"),
)

LATENTS_INDEX: Final = TableSchema(
    "latents",
    2,
    (
        *_FEATURE_INDEX,
        Column("bucket", pa.string(), "aspect bucket, HEIGHTxWIDTH in pixels, such as 256x256"),
        Column("height_px", pa.int32(), "height of the encoded picture in pixels"),
        Column("width_px", pa.int32(), "width of the encoded picture in pixels"),
        Column("original_height", pa.int32(), "height of the source picture in pixels after EXIF orientation"),
        Column("original_width", pa.int32(), "width of the source picture in pixels after EXIF orientation"),
        Column("resized_height", pa.int32(), "height after the resize that covers the bucket, before the crop"),
        Column("resized_width", pa.int32(), "width after the resize that covers the bucket, before the crop"),
        Column("crop_top", pa.int32(), "top edge of the crop in the resized picture, pixels"),
        Column("crop_left", pa.int32(), "left edge of the crop in the resized picture, pixels"),
        Column("flipped", pa.bool_(), "whether the picture was mirrored left to right before encoding"),
        Column("label", pa.int32(), "class index of the source; null where it has none", nullable=True),
    ),
)
"""The member is `KEY.latent.npy`, float16 [2, C, h, w]: posterior mean and standard deviation, not scaled."""

TEXT_INDEX: Final = TableSchema(
    "text",
    3,
    (
        *_FEATURE_INDEX,
        Column("tokens", pa.int32(), "true length N of the embedding, the end token included"),
        Column("truncated", pa.bool_(), "whether the caption had more tokens than the limit"),
        Column("caption_xxh64", pa.uint64(), "xxh64 of the caption's UTF-8 bytes"),
    ),
)
"""The member is `KEY.text.npy`: T5 encoder output of the true tokens, no padding. By the codec that dataset.json names,
float16 [N, D] (fp16) or int8 records with scales (int8); `schemas.embedding` reads both. Version 1 had fp16 alone."""

SHARD_INDEX: Final = TableSchema(
    "shard_index",
    1,
    (
        _KEY,
        Column("status", pa.string(), "ok, or the schemas.status.RejectReason for which the sample cannot be read"),
        Column("detail", pa.string(), "one line for a person where status is not ok; else empty"),
        Column("names", pa.list_(pa.string()), "member extensions in tar order, without the leading dot"),
        Column("offsets", pa.list_(pa.int64()), "byte offset of each member's content"),
        Column("sizes", pa.list_(pa.int64()), "length of each member's content in bytes"),
    ),
)

IMAGES: Final = TableSchema(
    "images",
    1,
    (
        _KEY,
        Column("shard", pa.string(), "name of the tar that holds the sample"),
        Column("url", pa.string(), "where it was downloaded from; null if it was not", nullable=True),
        Column("caption", pa.string(), "what the source said; null if it said nothing", nullable=True),
        Column("format", pa.string(), "format of the picture by its content, such as JPEG"),
        Column("width", pa.int32(), "image width in pixels after EXIF orientation"),
        Column("height", pa.int32(), "image height in pixels after EXIF orientation"),
        Column("bytes", pa.int64(), "length of the picture's file"),
        Column("sha256", pa.string(), "SHA-256 of the picture's file, hex"),
    ),
)
"""Beside each tar that pipelines.ingest writes, in the order of the tar."""

DOWNLOADS: Final = TableSchema(
    "downloads",
    1,
    (
        _KEY,
        Column("url", pa.string(), "what to download"),
        Column("url_xxh64", pa.uint64(), "xxh64 of url, by which repeats are found"),
        Column("caption", pa.string(), "the metadata's caption, trimmed; null if there is none", nullable=True),
        Column("told", pa.string(), "JSON of everything the metadata say of the row, under canonical names"),
    ),
)

UNMATCHED: Final = TableSchema(
    "unmatched",
    1,
    (
        Column("key", pa.string(), "the key under which a caption was published for which no image was found"),
        Column("shard", pa.string(), "the shard that the caption named; null if it named none", nullable=True),
    ),
)

ALL_TABLES: Final = (
    CAPTIONS,
    CAPTION_HASHES,
    REJECTS,
    NOUNS,
    NOUN_TOTALS,
    NOUNS_PER_IMAGE,
    MEASURES,
    LATENTS_INDEX,
    TEXT_INDEX,
    SHARD_INDEX,
    IMAGES,
    DOWNLOADS,
    UNMATCHED,
)
