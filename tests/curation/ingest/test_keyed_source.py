import pytest

from curation.ingest.keyed_source import index_place
from curation.shards.target import Target
from schemas.errors import UserError


@pytest.mark.parametrize(
    ("asked", "folder", "file"),
    [("/x.sqlite", "/", "x.sqlite"), ("x.sqlite", ".", "x.sqlite"), ("/disk/a/x.sqlite", "/disk/a", "x.sqlite")],
)
def test_an_index_lies_where_it_was_asked_for(asked: str, folder: str, file: str) -> None:
    assert index_place(Target("memory://images"), "captions", asked) == (Target(folder), file)


def test_an_index_lies_in_the_dataset_if_that_is_on_a_disk() -> None:
    assert index_place(Target("/images"), "captions", None) == (Target("/images"), "inputs/captions.sqlite")
    with pytest.raises(UserError, match="name a file on a disk"):
        index_place(Target("memory://images"), "captions", None)
