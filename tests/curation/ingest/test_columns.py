"""The columns of every known variant of LAION's metadata under one set of names."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from curation.ingest.columns import parse_choice, resolve_columns
from curation.ingest.metadata_plan import PlanSettings, make_plan, read_unit
from curation.ingest.prefilter import Prefilter
from curation.ingest.seen_urls import SeenUrls
from curation.shards.target import Target
from schemas.errors import UserError

ORIGINAL = "SAMPLE_ID:int64 URL TEXT HEIGHT:int32 WIDTH:int32 LICENSE NSFW similarity:double"
JOINED = "URL TEXT WIDTH:int32 HEIGHT:int32 similarity:double hash:int64 punsafe:float pwatermark:float"
SCORES = "re_clip_score:double org_clip_score:double re_gpt4v_score:double org_gpt4v_score:double"
VARIANTS = {
    "laion-400m": ORIGINAL,
    "laion-400m through pandas": ORIGINAL.replace("int32", "double"),
    "laion2b-multi": f"{ORIGINAL} LANGUAGE",
    "joined": JOINED,
    "joined-multi": f"{JOINED} LANGUAGE",
    "aesthetic-v1": f"{JOINED} aesthetic:float",
    "laion-art": f"{JOINED} LANGUAGE aesthetic:float",
    "improved-aesthetics": f"{JOINED.replace('int32', 'double')} AESTHETIC_SCORE:double __index_level_0__:int64",
    "laion-coco": f"{JOINED} top_caption all_captions:texts all_similarities:numbers",
    "md5": f"{JOINED} md5",
    "recap-datacomp": f"url re_caption org_caption sha256 key {SCORES} re_length:int64 org_length:int64",
    "capsfusion": "image_url laion_2b laion_coco capsfusion",
    "coyo-hd": "url caption_llava caption_llava_short caption tags_open_images key clip_similarity_vitb32:float "
    "clip_similarity_vitl14:float watermark_score:float aesthetic_score_laion_v2:float width:int64 height:int64",
    "datacomp": "uid url text original_width:int64 original_height:int64 clip_b32_similarity_score:float sha256",
    "img2dataset": "url caption key status error_message width:int32 height:int32 original_width:int32 "
    "original_height:int32 exif sha256",
}
"""Columns and types as peers have published them; a column without a type is of strings."""

CAPTIONS = {
    "recap-datacomp": "org_caption",
    "capsfusion": "laion_2b",
    "coyo-hd": "caption",
    "datacomp": "text",
    "img2dataset": "caption",
}
TYPES = {"": pa.string(), "texts": pa.list_(pa.string()), "numbers": pa.list_(pa.float64())}
THRESHOLDS = {
    "min_width": "source_width",
    "min_height": "source_height",
    "min_similarity": "similarity",
    "max_punsafe": "punsafe",
    "max_pwatermark": "pwatermark",
    "min_aesthetic": "aesthetic",
}
DOUBTFUL = {"coyo-hd": {"similarity": "clip_similarity_vitl14"}}


def schema(columns: str) -> pa.Schema:
    named = [column.partition(":") for column in columns.split()]
    return pa.schema([pa.field(name, TYPES.get(kind) or pa.type_for_alias(kind)) for name, _, kind in named])


def value_of(field: pa.Field, number: int) -> Any:
    """Something that a column may hold in row `number`."""
    if pa.types.is_list(field.type):
        return ["a", "b"] if field.type == TYPES["texts"] else [0.5]
    if pa.types.is_string(field.type):
        return f"http://x/{number}.jpg"
    return 512 if pa.types.is_integer(field.type) or field.name.lower() in ("width", "height") else 0.5


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_its_url_and_its_raw_caption_without_help(variant: str) -> None:
    columns = resolve_columns(schema(VARIANTS[variant]), variant, needed={"url", "caption"}, chosen={})
    assert columns.by_field["url"].lower() in {"url", "image_url"}
    assert columns.by_field["caption"] == CAPTIONS.get(variant, "TEXT")
    assert not {name for name in columns.names if name.startswith("__index_level_")}
    assert len(columns.names) == len(set(columns.names))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_planned_by_its_own_types_under_every_threshold_that_it_has_a_column_for(
    variant: str, target: Target, write_metadata: Callable[..., str]
) -> None:
    columns, chosen = schema(VARIANTS[variant]), DOUBTFUL.get(variant, {})
    known = resolve_columns(columns, variant, needed=(), chosen=chosen).by_field
    used = {name: field for name, field in THRESHOLDS.items() if field in known}
    limits = {name: 512 if name in ("min_width", "min_height") else 0.5 for name in used}
    rows = [{field.name: value_of(field, number) for field in columns} for number in range(2)]
    rows.append({known["url"]: "http://x/unknown.jpg"})
    settings = PlanSettings(Prefilter(**limits), chosen, 3)
    plan = make_plan(target, write_metadata("part", rows, columns), settings, SeenUrls())
    scored = {"similarity", "punsafe", "pwatermark", "aesthetic"} & set(used.values())
    assert [unit.rows for unit in plan.units] == [2 if scored else 3]
    for row in read_unit(target, "part", 0)[1][:2]:
        assert set(used.values()) <= set(row.told)
        assert isinstance(row.told.get("hash", ""), str)
        assert row.told["caption"] == row.told["url"]


def test_scores_go_by_one_name_and_what_nobody_knows_is_kept() -> None:
    columns = resolve_columns(schema(f"{VARIANTS['improved-aesthetics']} mood"), "f", needed=(), chosen={})
    assert columns.by_field["aesthetic"] == "AESTHETIC_SCORE"
    assert columns.by_field["source_width"] == "WIDTH"
    assert columns.others == ("mood",)


def test_the_size_before_a_resize_is_the_size_and_results_of_another_download_are_left_out() -> None:
    columns = resolve_columns(schema(VARIANTS["img2dataset"]), "f", needed=(), chosen={})
    assert columns.by_field["source_width"] == "original_width"
    assert columns.others == ()


def test_a_caption_of_a_model_is_taken_only_where_there_is_none_of_the_page() -> None:
    only = resolve_columns(schema("URL top_caption"), "f", needed={"caption"}, chosen={})
    assert only.by_field["caption"] == "top_caption"
    both = resolve_columns(schema("URL TEXT top_caption"), "f", needed={"caption"}, chosen={})
    assert both.by_field["caption"] == "TEXT"
    assert both.others == ("top_caption",)


def test_a_missing_column_is_named_with_what_there_is_and_what_to_say() -> None:
    with pytest.raises(UserError, match=r"part-3: no column for punsafe; it has URL, TEXT\. Name it with --column pun"):
        resolve_columns(schema("URL TEXT"), "part-3", needed={"url", "punsafe"}, chosen={})


def test_a_doubtful_column_is_an_error_only_where_it_is_needed() -> None:
    doubtful = schema("url caption clip_similarity_vitb32 clip_similarity_vitl14")
    with pytest.raises(UserError, match="similarity could be clip_similarity_vitb32 or clip_similarity_vitl14"):
        resolve_columns(doubtful, "f", needed={"similarity"}, chosen={})
    left = resolve_columns(doubtful, "f", needed={"url"}, chosen={})
    assert set(left.others) == {"clip_similarity_vitb32", "clip_similarity_vitl14"}
    chosen = resolve_columns(doubtful, "f", needed={"similarity"}, chosen={"similarity": "clip_similarity_vitl14"})
    assert chosen.by_field["similarity"] == "clip_similarity_vitl14"


def test_two_columns_that_differ_in_case_alone_are_doubtful() -> None:
    with pytest.raises(UserError, match="url could be URL or url"):
        resolve_columns(schema("URL url TEXT"), "f", needed={"url"}, chosen={})


def test_the_user_can_say_that_there_is_no_such_column() -> None:
    columns = resolve_columns(schema("URL"), "f", needed={"url", "caption"}, chosen=dict([parse_choice("caption=")]))
    assert "caption" not in columns.by_field


@pytest.mark.parametrize("choice", ["caption", "colour=RED", "=URL"])
def test_a_choice_that_names_no_field_is_refused_with_the_fields(choice: str) -> None:
    with pytest.raises(UserError, match=r"write FIELD=COLUMN with a field of url, caption"):
        parse_choice(choice)


def test_a_chosen_column_must_be_there() -> None:
    with pytest.raises(UserError, match="--column caption=ALT, but it has URL, TEXT"):
        resolve_columns(schema("URL TEXT"), "f", needed=(), chosen={"caption": "ALT"})
