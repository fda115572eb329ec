"""The columns of every known variant of LAION's metadata under one set of names."""

import pyarrow as pa
import pytest

from curation.ingest.columns import parse_choice, resolve_columns
from schemas.errors import UserError

ORIGINAL = "SAMPLE_ID URL TEXT HEIGHT WIDTH LICENSE NSFW similarity"
JOINED = "URL TEXT WIDTH HEIGHT similarity LANGUAGE hash punsafe pwatermark"
VARIANTS = {
    "laion-400m": ORIGINAL,
    "laion2b-multi": f"{ORIGINAL} LANGUAGE",
    "joined": JOINED,
    "aesthetic-v1": f"{JOINED} aesthetic",
    "improved-aesthetics": "URL TEXT WIDTH HEIGHT similarity hash punsafe pwatermark AESTHETIC_SCORE __index_level_0__",
    "laion-coco": f"{JOINED} top_caption all_captions all_similarities",
    "md5": f"{JOINED} md5",
    "recap-datacomp": "url re_caption org_caption sha256 key re_clip_score org_clip_score re_length org_length",
    "capsfusion": "image_url laion_2b laion_coco capsfusion",
    "coyo-hd": "url caption_llava caption_llava_short caption tags key clip_similarity_vitb32 watermark_score",
    "datacomp": "uid url text original_width original_height clip_b32_similarity_score sha256",
    "img2dataset": "url caption key status error_message width height original_width original_height exif sha256",
}
CAPTIONS = {"recap-datacomp": "org_caption", "capsfusion": "laion_2b", "coyo-hd": "caption", "datacomp": "text"}


def schema(names: str) -> pa.Schema:
    return pa.schema([pa.field(name, pa.string()) for name in names.split()])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_its_url_and_its_raw_caption_without_help(variant: str) -> None:
    columns = resolve_columns(schema(VARIANTS[variant]), variant, needed={"url", "caption"}, chosen={})
    assert columns.by_field["url"].lower() in {"url", "image_url"}
    expected = CAPTIONS.get(variant, "caption" if variant == "img2dataset" else "TEXT")
    assert columns.by_field["caption"] == expected
    assert not {name for name in columns.names if name.startswith("__index_level_")}
    assert len(columns.names) == len(set(columns.names))


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
