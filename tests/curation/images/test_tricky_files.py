"""The decode policy against 175 corrupt, odd and rare files of image libraries, each decoded in a child process."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curation.images.formats import SUPPORTED
from schemas.status import RejectReason

# Where we differ from Pillow on purpose; docs/decode-policy.md says why.
TAKEN_BY_PILLOW_AND_NOT_BY_US = {
    "Pillow/hopper_long_name.im": RejectReason.NOT_AN_IMAGE,  # IFUNC, which nobody serves
}
BOMB = "DecompressionBombError"
SECONDS_FOR_ALL = 120


@pytest.fixture(scope="module")
def folder(data_folder: Path) -> Path:
    if not (data_folder / "tricky-images").is_dir():
        pytest.skip("no tricky-images in the test data")
    return data_folder / "tricky-images"


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, dict[str, Any]]:
    """What Pillow says of each file that it says the same of across versions."""
    rows = [json.loads(line) for line in (folder / "expected.dev.jsonl").read_text().splitlines()]
    return {row["file"]: row["pillow_13_0_0"] for row in rows if row["stable_across_11_3_0_and_13_0_0"]}


@pytest.fixture(scope="module")
def decoded(
    folder: Path, read_tar: Callable[[Path], dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What we say of each file, stable or not, told by one child process that may neither hang nor die."""
    files = {}
    for number, (name, data) in enumerate(sorted(read_tar(folder / "tricky.dev.tar").items())):
        path = tmp_path_factory.getbasetemp() / f"tricky-{number}"
        path.write_bytes(data)
        files[str(path)] = name
    child = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("decode_in_child.py"))],
        input="\n".join(files),
        capture_output=True,
        text=True,
        timeout=SECONDS_FOR_ALL,
        cwd=Path(__file__).parents[3],
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"},
    )
    rows = [json.loads(line) for line in child.stdout.splitlines()]
    missing = list(files)[len(rows) :][:1]
    assert child.returncode == 0, f"died at {[files[path] for path in missing]}: {child.stderr[-300:]}"
    return {files[row["path"]]: row for row in rows}


def test_no_file_hangs_or_kills_the_decoder(
    decoded: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]]
) -> None:
    assert set(expected) <= set(decoded)


def test_what_pillow_decodes_is_taken_at_its_true_size(
    decoded: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]]
) -> None:
    wrong = {}
    for name, pillow in expected.items():
        if not pillow.get("load") or name in TAKEN_BY_PILLOW_AND_NOT_BY_US:
            continue
        width, height = pillow["size_loaded"]
        if (pillow["exif_orientation"] or 1) >= 5 and pillow["format"] != "TIFF":
            width, height = height, width
        ours = decoded[name]
        kind = "JPEG" if pillow["format"] == "MPO" else pillow["format"]
        expected_row = {"mode": "RGB", "size": [width, height], "original": [height, width], "format": kind}
        if not expected_row.items() <= ours.items():
            wrong[name] = ours
    assert not wrong


def test_what_pillow_does_not_decode_is_refused_with_a_fitting_reason(
    decoded: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]]
) -> None:
    wrong = {}
    for name, pillow in expected.items():
        if pillow.get("load"):
            continue
        if pillow["error"] == BOMB:
            fitting = {RejectReason.TOO_MANY_PIXELS, RejectReason.UNSUPPORTED_FORMAT}
        elif pillow["open"]:
            fitting = {RejectReason.CORRUPT if pillow["format"] in SUPPORTED else RejectReason.UNSUPPORTED_FORMAT}
        else:
            fitting = set(RejectReason) - {RejectReason.TOO_MANY_PIXELS, RejectReason.TOO_SMALL}
        if decoded[name].get("reason") not in fitting:
            wrong[name] = decoded[name]
    assert not wrong


def test_where_we_differ_from_pillow_is_listed(decoded: dict[str, dict[str, Any]]) -> None:
    assert {name: decoded[name].get("reason") for name in TAKEN_BY_PILLOW_AND_NOT_BY_US} == {
        name: str(reason) for name, reason in TAKEN_BY_PILLOW_AND_NOT_BY_US.items()
    }


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pillow_heif/empty.heic", RejectReason.EMPTY_FILE),
        ("pillow_heif/corrupted.heic", RejectReason.UNSUPPORTED_FORMAT),
        ("imagededup/_logo.svg", RejectReason.UNSUPPORTED_FORMAT),
        ("libjpeg-turbo/monkey12.jpg", RejectReason.UNSUPPORTED_FORMAT),
        ("Pillow/png_decompression_dos.png", RejectReason.CORRUPT),
        ("Pillow/truncated_jpeg.jpg", RejectReason.CORRUPT),
        ("Pillow/decompression_bomb.gif", RejectReason.TOO_MANY_PIXELS),
        ("Pillow/notes", RejectReason.NOT_AN_IMAGE),
    ],
)
def test_the_reason_says_what_is_wrong_with_the_file(
    name: str, reason: RejectReason, decoded: dict[str, dict[str, Any]]
) -> None:
    if name not in decoded:
        pytest.skip(f"{name} is not in this part of the test data")
    assert decoded[name].get("reason") == reason


def test_a_jpeg_called_svg_is_a_jpeg(decoded: dict[str, dict[str, Any]]) -> None:
    assert decoded["imagededup/ukbench09380.svg"]["format"] == "JPEG"
