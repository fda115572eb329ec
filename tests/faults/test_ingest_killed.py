"""SIGKILL at many points of an ingest, then the same command again: an undisturbed run's files, to the byte, and no
picture that was published is ever downloaded twice."""

import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import data_of
from fork_server import ForkServer
from PIL import Image
from standin_img2dataset import asked, make_standin

Kill = tuple[str, int, str]
Run = Callable[..., int]


@dataclass(frozen=True, slots=True)
class Inputs:
    """A metadata file of two units, and the folder that the stand-in serves from; `late` appear there later."""

    metadata: Path
    pictures: Path
    late: Path
    python: str

    def reset(self, *, mended: bool) -> None:
        """Serve the first pictures, or all of them."""
        for picture in self.late.iterdir():
            (self.pictures / picture.name).unlink(missing_ok=True)
            if mended:
                shutil.copy(picture, self.pictures)
        asked(self.pictures)

    def arguments(self, out: Path) -> list[str]:
        given = ["--metadata", str(self.metadata), "--out", str(out), "--img2dataset", self.python]
        return [*given, "--unit-rows", "4"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    made = Inputs(folder / "part.parquet", folder / "pictures", folder / "late", "")
    made.pictures.mkdir()
    made.late.mkdir()
    for number in range(8):
        place = made.late if number % 4 == 1 else made.pictures
        Image.new("RGB", (64, 64), (30 * number, 0, 0)).save(place / f"{number}.jpg")
    rows = {"URL": [f"http://standin/{n}.jpg" for n in range(8)], "TEXT": [f"text {n}" for n in range(8)]}
    pq.write_table(pa.table(rows), made.metadata)
    return Inputs(made.metadata, made.pictures, made.late, make_standin(folder / "standin", made.pictures))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run one job in a fresh process: `run(arguments, kill=(where, call, moment)) -> exit status`."""
    with ForkServer("ingest_child.py", tmp_path_factory.mktemp("log") / "jobs.log") as server:
        yield server.run


@pytest.fixture(scope="module")
def undisturbed(inputs: Inputs, run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The dataset after the first run, and after a second one that gets what had failed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    inputs.reset(mended=False)
    assert run(inputs.arguments(folder / "second")) == 0
    shutil.copytree(folder / "second", folder / "first")
    inputs.reset(mended=True)
    assert run(inputs.arguments(folder / "second")) == 0
    return folder / "first", folder / "second"


FIRST_RUN = [
    ("plan", 1, "before"),
    ("plan", 1, "after"),
    ("process", 2, "before"),
    ("download", 1, "after"),
    ("read", 2, "after"),
    ("keep", 5, "after"),
    ("publish", 5, "before"),  # the first unit's tar is in place, its table is not
    ("publish", 6, "after"),
    ("write_text", 3, "after"),
]


@pytest.mark.parametrize("kill", FIRST_RUN, ids=lambda kill: "-".join(map(str, kill)))
def test_a_killed_ingest_goes_on_to_the_files_of_an_undisturbed_one(
    kill: Kill, inputs: Inputs, run: Run, undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    inputs.reset(mended=False)
    arguments = inputs.arguments(tmp_path / "images")
    assert run(arguments, kill) == -signal.SIGKILL
    assert run([*arguments, "--retry", "none"]) == 0
    assert data_of(tmp_path / "images") == data_of(undisturbed[0])


SECOND_RUN = [
    ("download", 1, "after"),
    ("finish", 1, "after"),
    ("publish", 1, "after"),  # a further tar is in place, and nothing names it
    ("publish", 2, "after"),
    ("remove", 1, "after"),  # the rejects are gone, the old ledger entry is still there
    ("write_text", 1, "after"),
]


@pytest.mark.parametrize("kill", SECOND_RUN, ids=lambda kill: "-".join(map(str, kill)))
def test_killed_while_it_tries_again_it_loses_nothing_of_what_it_had(
    kill: Kill, inputs: Inputs, run: Run, undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "images"
    shutil.copytree(undisturbed[0], out)
    inputs.reset(mended=True)
    assert run(inputs.arguments(out), kill) == -signal.SIGKILL
    assert run(inputs.arguments(out)) == 0
    assert set(asked(inputs.pictures)) == {"/1.jpg", "/5.jpg"}
    assert data_of(out) == data_of(undisturbed[1])
