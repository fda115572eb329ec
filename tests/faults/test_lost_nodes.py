"""A node of a Ray cluster is lost in the middle of a job, with what runs on it."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from campaign import REJECTED, Campaign
from ray_cluster import Nodes, cluster_environment, cluster_of


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with cluster_of(2) as nodes:
        yield nodes


@pytest.mark.parametrize("then", ["nothing", pytest.param("another comes", marks=pytest.mark.slow)])
def test_a_lost_node_costs_its_unit_again_and_no_more(
    campaign: Campaign, nodes: Nodes, then: str, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    # Each node sleeps in a unit, once, so that the node that goes has one under way.
    trouble = ("--marks", str(marks), "--trouble", f"{REJECTED}=reject", "a/k001=doze:1", "a/k006=doze:1")
    line = campaign.command("--workers", "2", "--ray-address", nodes.address, "--attempts", "5", *trouble)
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=cluster_environment()) as job:
        wait_for(lambda: len(list(marks.iterdir())) == 2, job)
        nodes.say("lose")
        if then == "another comes":
            nodes.say("add")
        _, errors = job.communicate(timeout=150)
    assert job.returncode == 0, errors
    campaign.check_whole()


def wait_for(happened: Callable[[], bool], job: "subprocess.Popen[str]") -> None:
    while not happened():
        assert job.poll() is None, job.communicate()[1]
        time.sleep(0.05)
