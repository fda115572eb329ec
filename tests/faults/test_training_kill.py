import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fork_server import ForkServer
from training_kills import Campaign


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with ForkServer("training_child.py", tmp_path_factory.mktemp("log") / "jobs.log") as server:
        yield server


@pytest.mark.parametrize(("kills", "steps"), [(5, 6), pytest.param(30, 20, marks=pytest.mark.slow)])
def test_a_training_killed_while_it_saves_loses_no_commit_and_ends_with_the_same_weights(
    write_features: Callable[..., Any], tmp_path: Path, server: ForkServer, kills: int, steps: int
) -> None:
    features = write_features(buckets={(64, 64): 12, (32, 96): 9})
    data = ["--latents", str(features.latents), "--text", str(features.text), "--manifest-cache", str(tmp_path / "m")]
    found = Campaign(server, tmp_path, data, steps).strike(kills, random.Random(0))
    assert found.kills >= kills
    assert found.runs > 0
