import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
import webdataset
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny

from curation.checkpoints import resolve_checkpoint
from curation.compute import Compute
from curation.execution.summary import JobSummary
from curation.features.latents import LatentsStage
from curation.features.read import read_features
from curation.features.vae import VaeEncoder, describe_vae
from curation.images.decode import DecodePolicy, decode
from curation.images.resize import cover_and_crop
from curation.shards.target import Target
from curation.sources.table import source_named
from schemas.dataset import INDEX_DIR, REJECTS_DIR
from schemas.errors import DatasetError, UserError
from schemas.reading import open_dataset
from schemas.tables import LATENTS_INDEX, REJECTS

SIDE = 64


@pytest.fixture
def stage(tiny: Any, tmp_path: Path) -> LatentsStage:
    vae = describe_vae(resolve_checkpoint(str(tiny.vae), None))
    return LatentsStage(
        Target(str(tmp_path / "latents")), source_named("webdataset"), vae, resolution=SIDE, batch_size=4
    )


@pytest.fixture
def shard(tmp_path: Path, picture: Any, write_tar: Any) -> str:
    """Eleven samples: nine good ones of several shapes, a broken one and one without a picture."""
    members = {}
    for i in range(11):
        members[f"pics/{i:03}.jpg"] = picture(70 + 9 * i, 150 - 6 * i, i)
    members["pics/003.jpg"] = members["pics/003.jpg"][:400]
    members["pics/005.cls"] = b"17"
    members["pics/007.txt"] = b"no picture"
    del members["pics/007.jpg"]
    return write_tar(tmp_path / "s0.tar", dict(sorted(members.items())))


def rows_of(url: str) -> list[tuple[dict[str, Any], Any]]:
    dataset = open_dataset(url, "latents").require_whole()
    return [item for entry in dataset.entries for item in read_features(dataset, entry)]


def files_of(url: str) -> dict[str, bytes]:
    """Everything that is data: no ledger times, no run summaries."""
    root = Path(url)
    kept = [p for p in root.rglob("*") if p.is_file() and p.relative_to(root).parts[0] not in {"ledger", "runs"}]
    return {str(p.relative_to(root)): p.read_bytes() for p in kept}


def test_bad_rows_are_rejected_and_all_others_kept_in_the_order_of_the_shard(
    stage: LatentsStage, shard: str, run_images: Callable[..., JobSummary]
) -> None:
    summary = run_images(stage, [shard])
    assert (summary.rows_in, summary.rows_kept, dict(summary.rejected)) == (11, 9, {"corrupt": 1, "no_image": 1})
    rows = rows_of(stage.target.url)
    assert [row["key"] for row, _ in rows] == [f"pics/{i:03}" for i in (0, 1, 2, 4, 5, 6, 8, 9, 10)]
    assert {row["shard"] for row, _ in rows} == {"s0"}
    assert [row["label"] for row, _ in rows] == [None] * 4 + [17] + [None] * 4
    (rejects,) = open_dataset(stage.target.url, "latents").tables(REJECTS, folder=REJECTS_DIR)
    assert rejects["key"].to_pylist() == ["pics/003", "pics/007"]


def test_pictures_are_decoded_at_twice_the_size_of_their_buckets_or_more(stage: LatentsStage) -> None:
    assert stage.at_least == (2 * SIDE, 2 * SIDE)
    buckets = replace(stage, buckets="aspect", resolution=256)
    height, width = buckets.at_least
    assert all(height >= 2 * high and width >= 2 * wide for high, wide in buckets.sizes_px)


def test_latents_are_the_posterior_of_the_vae_itself(
    stage: LatentsStage, shard: str, picture: Any, tiny: Any, run_images: Callable[..., JobSummary]
) -> None:
    run_images(stage, [shard])
    vae = AutoencoderKL.from_pretrained(tiny.vae).eval()
    for row, posterior in rows_of(stage.target.url):
        number = int(row["key"][-3:])
        decoded = decode(picture(70 + 9 * number, 150 - 6 * number, number), DecodePolicy(), at_least=(SIDE, SIDE))
        image, crop = cover_and_crop(decoded.image, SIDE, SIDE)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.inference_mode():
            expected = vae.encode(x).latent_dist
        assert posterior.shape == (2, 4, SIDE // 8, SIDE // 8)
        assert posterior.dtype == np.float16
        np.testing.assert_allclose(posterior[0], expected.mean[0], rtol=2e-3, atol=1e-5)
        np.testing.assert_allclose(posterior[1], expected.std[0], rtol=2e-3, atol=1e-5)
        assert (row["original_height"], row["original_width"]) == (70 + 9 * number, 150 - 6 * number)
        assert (row["resized_height"], row["resized_width"]) == (crop.resized_height, crop.resized_width)
        assert (row["crop_top"], row["crop_left"], row["flipped"]) == (crop.crop_top, crop.crop_left, False)
        assert (row["bucket"], row["height_px"], row["width_px"]) == ("64x64", 64, 64)


def test_flipped_latents_are_those_of_the_mirrored_crop_and_say_so(
    stage: LatentsStage, shard: str, picture: Any, run_images: Callable[..., JobSummary], tmp_path: Path
) -> None:
    flipped = replace(stage, flip=True, target=Target(str(tmp_path / "flipped")))
    assert flipped.spec.fingerprint != stage.spec.fingerprint
    run_images(stage, [shard])
    run_images(flipped, [shard])
    encoder = VaeEncoder(stage.vae, stage.compute)
    for (row, plain), (mirror_row, mirrored) in zip(
        rows_of(stage.target.url), rows_of(flipped.target.url), strict=True
    ):
        number = int(row["key"][-3:])
        decoded = decode(picture(70 + 9 * number, 150 - 6 * number, number), DecodePolicy(), at_least=(SIDE, SIDE))
        image, _ = cover_and_crop(decoded.image, SIDE, SIDE)
        expected = encoder.encode(np.stack([np.asarray(image)[:, ::-1]] * stage.batch_size))[0]
        np.testing.assert_array_equal(mirrored, expected.astype(np.float16))
        assert not np.array_equal(mirrored, plain)
        changed = {name for name in row if row[name] != mirror_row[name]}
        assert changed == {"flipped", "xxh3"}
        assert mirror_row["flipped"] is True


def test_two_runs_write_the_same_bytes(
    stage: LatentsStage, shard: str, tmp_path: Path, run_images: Callable[..., JobSummary]
) -> None:
    other = replace(stage, target=Target(str(tmp_path / "again")), decode_threads=0)
    run_images(stage, [shard])
    run_images(other, [shard])
    first = files_of(stage.target.url)
    assert {"s0.tar", "index/s0.parquet", "rejects/s0.parquet", "dataset.json"} <= set(first)
    assert first == files_of(other.target.url)


def test_a_pictures_latents_do_not_depend_on_what_stands_around_it(
    stage: LatentsStage, shard: str, tmp_path: Path, run_images: Callable[..., JobSummary]
) -> None:
    sliced = replace(stage, target=Target(str(tmp_path / "sliced")))
    run_images(stage, [shard])
    run_images(sliced, [shard], unit_rows=3)
    whole = [(row["key"], row["xxh3"]) for row, _ in rows_of(stage.target.url)]
    assert whole == [(row["key"], row["xxh3"]) for row, _ in rows_of(sliced.target.url)]


def test_another_batch_size_is_another_fingerprint(stage: LatentsStage) -> None:
    assert replace(stage, batch_size=3).spec.fingerprint != stage.spec.fingerprint
    assert replace(stage, decode_threads=7).spec.fingerprint == stage.spec.fingerprint
    assert replace(stage, compute=Compute(device="cuda")).spec.fingerprint == stage.spec.fingerprint
    assert replace(stage, compute=Compute(cpu_threads=2)).spec.fingerprint != stage.spec.fingerprint


def test_the_fingerprint_knows_the_weights_and_not_the_path(stage: LatentsStage, tiny: Any, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for file in tiny.vae.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    moved = replace(stage, vae=describe_vae(resolve_checkpoint(str(copy), None)))
    assert moved.spec.fingerprint == stage.spec.fingerprint
    AutoencoderKL.from_config(AutoencoderKL.load_config(copy)).save_pretrained(copy)
    retrained = replace(stage, vae=describe_vae(resolve_checkpoint(str(copy), None)))
    assert retrained.spec.fingerprint != stage.spec.fingerprint


def test_a_second_run_does_nothing_and_a_deleted_output_redoes_its_unit_alone(
    stage: LatentsStage, shard: str, tmp_path: Path, picture: Any, write_tar: Any, run_images: Callable[..., JobSummary]
) -> None:
    shards = [shard, write_tar(tmp_path / "s1.tar", {"a.jpg": picture(80, 80, 1)})]
    run_images(stage, shards)
    before = files_of(stage.target.url)
    again = run_images(stage, shards)
    assert (again.units_done, again.units_current) == (0, 2)
    (Path(stage.target.url) / "s1.tar").unlink()
    repaired = run_images(stage, shards)
    assert (repaired.units_done, repaired.units_current) == (1, 1)
    assert files_of(stage.target.url) == before


def test_aspect_buckets_keep_the_order_and_the_shape_of_each_picture(
    stage: LatentsStage, tmp_path: Path, picture: Any, write_tar: Any, run_images: Callable[..., JobSummary]
) -> None:
    sizes = [(64, 64), (64, 128), (128, 64), (64, 64), (90, 60), (64, 128), (64, 64), (64, 64), (64, 64)]
    members = {f"{i}.jpg": picture(*size, i) for i, size in enumerate(sizes)}
    aspect = replace(stage, buckets="aspect", resolution=256)
    run_images(aspect, [write_tar(tmp_path / "a.tar", members)])
    rows = rows_of(aspect.target.url)
    assert [row["key"] for row, _ in rows] == [str(i) for i in range(9)]
    buckets = ["256x256", "176x352", "352x176", "256x256", "304x208", "176x352", *["256x256"] * 3]
    assert [row["bucket"] for row, _ in rows] == buckets
    for row, posterior in rows:
        assert posterior.shape == (2, 4, row["height_px"] // 8, row["width_px"] // 8)


def test_rare_buckets_do_not_hold_up_the_rest_for_ever(
    stage: LatentsStage,
    tmp_path: Path,
    picture: Any,
    write_tar: Any,
    run_images: Callable[..., JobSummary],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members = {f"{i}.jpg": picture(64, 128 if i == 0 else 64, i) for i in range(9)}
    url = write_tar(tmp_path / "a.tar", members)
    aspect = replace(stage, buckets="aspect", resolution=256, batch_size=2)
    run_images(aspect, [url])
    monkeypatch.setattr("curation.features.latents._LONGEST_WAIT", 2)
    hasty = replace(aspect, target=Target(str(tmp_path / "hasty")))
    run_images(hasty, [url])
    assert files_of(hasty.target.url) == files_of(aspect.target.url)


def test_latents_that_float16_cannot_hold_are_rejected_alone(
    stage: LatentsStage, shard: str, run_images: Callable[..., JobSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = VaeEncoder.encode

    def spoilt(self: VaeEncoder, pixels: Any) -> Any:
        posterior = encode(self, pixels)
        posterior[0, 0, 0, 0, 0], posterior[1, 0, 0, 0, 0] = 70000.0, np.nan
        return posterior

    monkeypatch.setattr(VaeEncoder, "encode", spoilt)
    summary = run_images(stage, [shard])
    assert summary.rejected["non_finite"] == 5  # two each of the two full batches, one of the last
    assert summary.rows_in == summary.rows_kept + summary.rows_rejected == 11
    assert all(np.isfinite(posterior).all() for _, posterior in rows_of(stage.target.url))


def test_webdataset_reads_the_tars_and_the_index_points_at_the_npy(
    stage: LatentsStage, shard: str, run_images: Callable[..., JobSummary]
) -> None:
    run_images(stage, [shard])
    tar = Path(stage.target.url) / "s0.tar"
    content = np.memmap(tar, dtype=np.uint8, mode="r")
    samples = list(webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False))
    rows = rows_of(stage.target.url)
    assert [s["__key__"] for s in samples] == [row["key"] for row, _ in rows]
    for sample, (row, posterior) in zip(samples, rows, strict=True):
        member = content[row["offset"] : row["offset"] + row["bytes"]].tobytes()
        assert sample["latent.npy"] == member
        np.testing.assert_array_equal(np.load(io.BytesIO(member)), posterior)


def test_a_byte_that_rotted_is_noticed_on_reading(
    stage: LatentsStage, shard: str, run_images: Callable[..., JobSummary]
) -> None:
    run_images(stage, [shard])
    row, _ = rows_of(stage.target.url)[2]
    tar = Path(stage.target.url) / "s0.tar"
    content = bytearray(tar.read_bytes())
    content[row["offset"] + 200] ^= 1
    tar.write_bytes(content)
    with pytest.raises(DatasetError, match="pics/002 are not what the index says"):
        rows_of(stage.target.url)


def test_latents_can_be_written_to_a_remote_file_system(
    stage: LatentsStage, shard: str, run_images: Callable[..., JobSummary], tmp_path: Path
) -> None:
    remote = replace(stage, target=Target("memory://latents-test/out"))
    run_images(stage, [shard])
    summary = run_images(remote, [shard])
    assert summary.rows_kept == 9
    fs = fsspec.filesystem("memory")
    assert fs.cat_file("/latents-test/out/s0.tar") == (Path(stage.target.url) / "s0.tar").read_bytes()
    assert len(rows_of("memory://latents-test/out")) == 9
    fs.rm("/latents-test", recursive=True)


def test_dataset_json_tells_readers_how_to_scale(
    stage: LatentsStage, shard: str, run_images: Callable[..., JobSummary]
) -> None:
    run_images(stage, [shard])
    dataset = open_dataset(stage.target.url, "latents")
    assert dataset.info.facts == {
        "scaling_factor": 0.18215,
        "shift_factor": 0.0,
        "channels": 4,
        "downsample": 8,
        "resolution": 64,
        "buckets": "square",
        "dtype": "float16",
    }
    (index,) = dataset.tables(LATENTS_INDEX, folder=INDEX_DIR)
    assert index.num_rows == 9


def test_a_tiny_autoencoder_gives_a_deviation_of_exactly_zero(
    stage: LatentsStage, shard: str, tmp_path: Path, run_images: Callable[..., JobSummary]
) -> None:
    torch.manual_seed(0)
    model = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    )
    model.save_pretrained(tmp_path / "taesd")
    vae = describe_vae(resolve_checkpoint(str(tmp_path / "taesd"), None))
    assert (vae.scaling_factor, vae.downsample, vae.has_posterior) == (1.0, 8, False)
    run_images(replace(stage, vae=vae), [shard])
    for _, posterior in rows_of(stage.target.url):
        assert (posterior[1] == 0).all()
        assert (posterior[0] != 0).any()


def test_a_deep_compression_autoencoder_has_32_channels_and_32_px_a_cell(
    stage: LatentsStage, shard: str, tmp_path: Path, run_images: Callable[..., JobSummary]
) -> None:
    torch.manual_seed(0)
    sides = (8, 8, 8, 8, 8, 32)
    AutoencoderDC(
        attention_head_dim=8,
        encoder_block_out_channels=sides,
        decoder_block_out_channels=sides,
        encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6,
        encoder_qkv_multiscales=((),) * 6,
        decoder_qkv_multiscales=((),) * 6,
        scaling_factor=0.41407,
    ).save_pretrained(tmp_path / "dc-ae")
    vae = describe_vae(resolve_checkpoint(str(tmp_path / "dc-ae"), None))
    assert (vae.channels, vae.downsample, vae.scaling_factor, vae.shift_factor) == (32, 32, 0.41407, 0.0)
    run_images(replace(stage, vae=vae), [shard])
    for _, posterior in rows_of(stage.target.url):
        assert posterior.shape == (2, 32, stage.resolution // 32, stage.resolution // 32)
        assert (posterior[1] == 0).all()
        assert (posterior[0] != 0).any()


def test_sixteen_channels_are_stored_unscaled_and_the_shift_told_to_readers(
    stage: LatentsStage, shard: str, tmp_path: Path, run_images: Callable[..., JobSummary]
) -> None:
    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        norm_num_groups=4,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).save_pretrained(tmp_path / "sixteen")
    vae = describe_vae(resolve_checkpoint(str(tmp_path / "sixteen"), None))
    run_images(replace(stage, vae=vae), [shard])
    facts = open_dataset(stage.target.url, "latents").info.facts
    assert (facts["channels"], facts["scaling_factor"], facts["shift_factor"]) == (16, 0.3611, 0.1159)
    assert all(posterior.shape[:2] == (2, 16) for _, posterior in rows_of(stage.target.url))


def test_a_stage_travels_to_workers_by_pickle(stage: LatentsStage) -> None:
    assert pickle.loads(pickle.dumps(stage)) == stage


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 60}, "no multiple of the VAE's 8 px"),
        ({"resolution": 300, "buckets": "aspect"}, "no aspect buckets"),
        ({"batch_size": 0}, "--batch-size"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(
    stage: LatentsStage, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        replace(stage, **changes)
    assert "\n" not in str(error.value)


def test_half_precision_is_refused_to_a_vae_that_overflows_in_it(stage: LatentsStage) -> None:
    sdxl = replace(stage.vae, overflows_in_fp16=True)
    with pytest.raises(UserError, match="overflows in float16"):
        replace(stage, vae=sdxl, compute=Compute(dtype="float16"))
    replace(stage, vae=sdxl, compute=Compute(dtype="bfloat16"))


def test_an_empty_shard_gives_a_whole_and_empty_unit(
    stage: LatentsStage, tmp_path: Path, write_tar: Any, run_images: Callable[..., JobSummary]
) -> None:
    summary = run_images(stage, [write_tar(tmp_path / "empty.tar", {})])
    assert (summary.units_done, summary.rows_in, summary.exit_code) == (1, 0, 0)
    assert rows_of(stage.target.url) == []
