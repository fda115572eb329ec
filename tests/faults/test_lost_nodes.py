"""A node of a Ray cluster is lost in the middle of a job, with what runs on it."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray_cluster
from campaign import REJECTED, Campaign, environment


@dataclass(frozen=True, slots=True)
class Nodes:
    """A cluster of two nodes in a process of its own."""

    process: "subprocess.Popen[str]"
    address: str

    def say(self, line: str) -> None:
        """`lose` a node, or `add` one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"


def cluster_environment() -> dict[str, str]:
    """Without the token that a local Ray of these tests may have left in the environment."""
    kept = {name: value for name, value in environment().items() if not name.startswith("RAY_AUTH")}
    return kept | {"RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    line = [sys.executable, ray_cluster.__file__, "2"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(line, text=True, env=cluster_environment(), **pipes) as process:
        assert process.stdout is not None
        yield Nodes(process, process.stdout.readline().strip())
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)


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
