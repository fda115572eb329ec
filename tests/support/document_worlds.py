"""What each page of the documents presumes to be there, made small: pictures, lists, models, runs."""

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from clip_model import write_clip
from PIL import Image
from standin_img2dataset import make_standin
from standin_inception import StandinInception

from curation.demo.models import make_t5, make_vae
from curation.demo.shipped import LLAVA, VAE
from curation.scenes.drawing import draw
from curation.scenes.scene import scene
from curation.scenes.sentences import describe
from pipelines.caption import main as caption
from pipelines.train import main as train
from schemas.errors import ExitCode

ROWS: Final = 5  # pictures a shard, the last of them broken
_T5_WIDTH: Final = 64  # of make_t5
_LEAST_PX: Final = 256  # of the shorter side, as the recipes and thresholds of the documents ask for

WriteFeatures = Callable[..., Any]
World = Callable[[Path, WriteFeatures], None]


def readme(root: Path, write_features: WriteFeatures) -> None:
    """SA-1B, and models at their local places too."""
    _sam(root / "data" / "sam")
    _t5(root / "models" / "flan-t5-xxl")
    _link(root / "data/models/flan-t5-xxl", root / "models" / "flan-t5-xxl")
    _link(root / "data/models/sd-vae-ft-ema", VAE)


def machines(root: Path, write_features: WriteFeatures) -> None:
    """SA-1B."""
    _sam(root / "data" / "sam")
    _t5(root / "models" / "flan-t5-xxl")


def captioned(root: Path, write_features: WriteFeatures) -> None:
    """Shards with alt texts and their captions, a T5, and what else the noun commands are shown with."""
    _t5(root / "t5")
    for shard in range(2):
        numbers = range(shard * ROWS, (shard + 1) * ROWS)
        members = [(f"{n:05}.{kind}", content) for n in numbers for kind, content in _described(n)]
        _tar(root / "shards" / f"{shard:05}.tar", members)
    made = ["--shards", str(root / "shards" / "*.tar"), "--source", "webdataset", "--out", str(root / "captions")]
    assert caption([*made, "--model", str(LLAVA), "--t5-tokenizer", str(root / "t5")]) == ExitCode.OK
    (root / "alt").mkdir()
    pq.write_table(pa.table({"TEXT": ["a red house by a lake", "two dogs and a ball"]}), root / "alt" / "part.parquet")
    (root / "lvis.txt").write_text("boat\nhouse\nzebra\n")


def sources(root: Path, write_features: WriteFeatures) -> None:
    """LAION's metadata with a downloader that needs no network, SA-1B, ImageNet, JourneyDB, published captions."""
    data = root / "data"
    _sam(data / "sam")
    for shard in range(2):
        members = [(f"{shard}.jpg", _picture(shard)), (f"{shard}.cls", b"7")]
        _tar(data / "imagenet" / f"imagenet1k-train-{shard:04}.tar", members)
    _laion(root)
    _journeydb(data / "journeydb")
    texts = [(f"sa_{n}.txt", describe(scene(0, n)).encode()) for n in range(2 * ROWS)]
    _tar(data / "SA1B_caption.tar.gz", texts)


def checkpoints(root: Path, write_features: WriteFeatures) -> None:
    """A run that kept averages after each of twelve steps."""
    (root / "data" / "out").mkdir(parents=True)
    _train(root / "data" / "out" / "run", write_features(), "--power-ema", "--power-ema-every", "1", "--steps", "12")


def training(root: Path, write_features: WriteFeatures) -> None:
    """Latents with classes, latents with text, and such with aspect buckets at two sizes."""
    write_features(folder="data/imagenet", classes=3)
    write_features(folder="data/sam", dim=_T5_WIDTH)
    hq = write_features(folder="data/hq", dim=_T5_WIDTH, buckets={(64, 64): 6, (32, 96): 6})
    for name in ("latents-512", "latents-1024"):
        _link(hq.latents.parent / name, hq.latents)
    (root / "prompts.txt").write_text("a red boat\na blue house\n")
    _t5(root / "models" / "flan-t5-xxl")
    _vae(root / "models" / "sd-vae-ft-ema")


def evaluation(root: Path, write_features: WriteFeatures) -> None:
    """A run, runs of three stages, COCO, the lists of the benchmarks, and networks that measure."""
    data = write_features(dim=_T5_WIDTH)
    for name in ("run", "pixel", "align", "aesthetic"):
        _train(root / name, data, "--steps", "2")
    _link(root / "latents-val", data.latents)
    _link(root / "text-val", data.text)
    _t5(root / "flan-t5-xxl")
    _vae(root / "sd-vae-ft-ema")
    write_clip(root / "clip-vit-large-patch14")
    torch.jit.save(torch.jit.script(StandinInception()), str(root / "inception.pt"))
    draws = np.random.default_rng(0)
    (root / "val2014").mkdir()
    for i in range(6):
        Image.fromarray(draws.integers(0, 256, (80, 70 + i, 3), np.uint8)).save(root / f"val2014/COCO_val2014_{i}.jpg")
    images = [{"id": i, "file_name": f"COCO_val2014_{i}.jpg"} for i in range(6)]
    captions = [{"id": 100 + i, "image_id": i, "caption": f"a red fox {i}"} for i in range(6)]
    (root / "captions_val2014.json").write_text(json.dumps({"images": images, "annotations": captions}))
    for category in ("color", "shape", "texture", "spatial", "non_spatial", "complex"):
        (root / f"{category}_val.txt").write_text("a red fox\n")
    about = {"prompt": "a photo of a cow", "tag": "single_object", "include": [{"class": "cow", "count": 1}]}
    (root / "evaluation_metadata.jsonl").write_text(json.dumps(about) + "\n")


WORLDS: Final[dict[str, World]] = {
    "README.md": readme,
    "caption-rules.md": captioned,
    "checkpoints.md": checkpoints,
    "evaluation.md": evaluation,
    "machines.md": machines,
    "nouns.md": captioned,
    "select.md": captioned,
    "sources.md": sources,
    "training.md": training,
}
"""By page: makes in a folder what the page's commands presume."""


def _sam(folder: Path) -> None:
    for shard in range(2):
        members = []
        for number in range(shard * ROWS, (shard + 1) * ROWS):
            about = json.dumps({"image": {"image_id": number}, "annotations": []}).encode()
            members += [(f"./sa_{number}.jpg", _picture(number)), (f"./sa_{number}.json", about)]
        _tar(folder / f"sa_{shard:06}.tar", members)


def _laion(root: Path) -> None:
    (root / "served").mkdir()
    for number in range(ROWS):
        (root / "served" / f"{number}.jpg").write_bytes(_picture(number))
    make_standin(root / "data" / "img2dataset" / "bin", root / "served")
    names = [f"http://standin/{number}.jpg" for number in range(ROWS)]
    scores = {"similarity": 0.35, "punsafe": 0.01, "pwatermark": 0.1, "AESTHETIC_SCORE": 5.5}
    rows = {"URL": names, "TEXT": [describe(scene(0, n)) for n in range(ROWS)], "WIDTH": [300] * ROWS}
    rows |= {"HEIGHT": [300] * ROWS} | {name: [value] * ROWS for name, value in scores.items()}
    (root / "data" / "laion").mkdir()
    pq.write_table(pa.table(rows), root / "data" / "laion" / "part-0.parquet")


def _journeydb(folder: Path) -> None:
    annotations = []
    for shard in range(2):
        numbers = range(shard * ROWS, (shard + 1) * ROWS)
        _tar(folder / "imgs" / f"{shard:03}.tgz", [(f"./{shard:03}/{n}.jpg", _picture(n)) for n in numbers])
        annotations += [
            {"img_path": f"./{shard:03}/{n}.jpg", "prompt": "a boat --v 4", "Task2": {"Caption": describe(scene(0, n))}}
            for n in numbers
        ]
    lines = "\n".join(map(json.dumps, annotations)).encode()
    name = "train_anno_realease_repath.jsonl"
    _tar(folder / f"{name}.tgz", [(name, lines)])


def _described(number: int) -> Iterable[tuple[str, bytes]]:
    return (("jpg", _picture(number)), ("txt", describe(scene(0, number)).encode()))


def _picture(number: int) -> bytes:
    """A scene, enlarged; the last of each shard is cut in half."""
    image = draw(scene(0, number))
    times = -(-_LEAST_PX // min(image.size))
    buffer = io.BytesIO()
    image.resize((image.width * times, image.height * times)).save(buffer, "JPEG", quality=90)
    whole = buffer.getvalue()
    return whole if (number + 1) % ROWS else whole[: len(whole) // 2]


def _tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _t5(folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make_t5(folder, width=_T5_WIDTH)


def _vae(folder: Path) -> None:
    """One whose latents are scaled as those of `write_features`; the shipped one's are not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make_vae(folder)


def _link(path: Path, to: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to, target_is_directory=True)


def _train(out: Path, data: Any, *more: str) -> None:
    what = ["--latents", str(data.latents), "--text", str(data.text), "--out", str(out), "--model", "tiny/2"]
    how = ["--global-batch", "4", "--micro-batch", "4", "--device", "cpu", "--log-every", "1"]
    assert train([*what, *how, *more]) == ExitCode.OK
