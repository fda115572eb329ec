"""The small job that is disturbed, and its files where nothing disturbs it."""

from pathlib import Path

import pytest
from campaign import Campaign, write_shards
from dataset_files import data_of


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """The shards, and the files of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_shards(folder / "in")
    campaign = Campaign(folder / "in", folder / "out", {})
    done = campaign.run()
    assert done.returncode == 0, done.stderr
    return folder / "in", data_of(folder / "out")


@pytest.fixture
def campaign(undisturbed: tuple[Path, dict[str, bytes]], tmp_path: Path) -> Campaign:
    shards, expected = undisturbed
    return Campaign(shards, tmp_path / "out", expected)
