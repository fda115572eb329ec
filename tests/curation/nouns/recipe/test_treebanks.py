from pathlib import Path

import pytest

from curation.nouns.recipe.treebanks import ATIS, EWT, TESTED_ONLY, find_split, read_split
from schemas.errors import UserError

ROW = "1\tYes\t_\tINTJ\tUH\t_\t_\t_\t_\t_\n\n"


@pytest.mark.parametrize("name", ["ewt-train.conllu", "en_ewt-ud-train.conllu", "deeper/EWT-train.part.conllu"])
def test_a_split_is_found_by_its_usual_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(ROW)
    (tmp_path / "ewt-dev.conllu").write_text(ROW)
    assert find_split(tmp_path, EWT, "train") == tmp_path / name
    assert read_split(tmp_path, EWT, "train")[0].words == ("Yes",)


def test_a_missing_split_says_where_to_get_it(tmp_path: Path) -> None:
    assert find_split(tmp_path, ATIS, "train") is None
    with pytest.raises(UserError, match=r"no train file of Atis. Get it from https://github.com/"):
        read_split(tmp_path, ATIS, "train")


def test_two_files_of_one_split_are_a_users_error(tmp_path: Path) -> None:
    for name in ("ewt-train.conllu", "en_ewt-ud-train.conllu"):
        (tmp_path / name).write_text(ROW)
    with pytest.raises(UserError, match="2 files of EWT train"):
        find_split(tmp_path, EWT, "train")


def test_only_treebanks_free_for_any_use_are_trained_on() -> None:
    assert all("NC" not in treebank.licence for treebank in (EWT, ATIS))
    assert not any(treebank.trained for treebank in TESTED_ONLY)
