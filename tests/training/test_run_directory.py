import dataclasses
import shutil
from pathlib import Path

import pytest
from small_runs import LEARN, MODEL, configured, run

from schemas.errors import UserError
from training.data.manifest import Manifest


def test_a_machine_that_does_not_share_the_run_directory_is_told_so(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "not here" / "step-00000003"
    monkeypatch.setattr("training.distributed.world.World.on_first", lambda *_: elsewhere)
    with pytest.raises(UserError, match="that all machines share"):
        run(configured(manifest, tmp_path / "run"), manifest)


def test_a_changed_recipe_is_refused_with_the_difference(manifest: Manifest, tmp_path: Path) -> None:
    config = configured(manifest, tmp_path / "run")
    run(config, manifest)
    recipe = dataclasses.replace(config.recipe, seed=1, optimiser=dataclasses.replace(LEARN, lr=2e-3))
    with pytest.raises(UserError, match=r"seed was 0, now 1; optimiser\.lr was 0\.001, now 0\.002"):
        run(dataclasses.replace(config, recipe=recipe, steps=9), manifest)
    recipe = dataclasses.replace(config.recipe, manifest_digest="other")
    with pytest.raises(UserError, match=rf"begun otherwise: the data was {manifest.digest}, now other\. Give"):
        run(dataclasses.replace(config, recipe=recipe, steps=9), manifest)


def test_ranks_that_see_other_data_are_refused(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(manifest, tmp_path / "run")
    other = dataclasses.replace(config.recipe, manifest_digest="other")
    monkeypatch.setattr("training.distributed.world.World.from_first", lambda _, value: other if value else value)
    with pytest.raises(UserError, match="rank 0 sees other data"):
        run(config, manifest)


def test_the_directory_of_a_data_set_or_a_model_is_refused_and_left_alone(manifest: Manifest, tmp_path: Path) -> None:
    for name, content in (("dataset.json", "{}"), ("config.json", '{"model_type": "t5"}'), ("config.json", "[")):
        out = tmp_path / f"other-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        (out / name).write_text(content)
        with pytest.raises(UserError, match="Choose another --out"):
            run(configured(manifest, out), manifest)
        assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, content)]


def test_a_start_that_never_made_a_step_does_not_bind_the_next(manifest: Manifest, tmp_path: Path) -> None:
    config = configured(manifest, tmp_path / "run", steps=1)
    impossible = dataclasses.replace(config.recipe, model=dataclasses.replace(MODEL, in_channels=3))
    with pytest.raises(RuntimeError):
        run(dataclasses.replace(config, recipe=impossible), manifest)
    assert (tmp_path / "run" / "config.json").exists()
    run(config, manifest)


def test_a_finished_run_says_that_there_is_nothing_to_do(manifest: Manifest, tmp_path: Path) -> None:
    config = configured(manifest, tmp_path / "run")
    run(config, manifest)
    before = (tmp_path / "run" / "weights" / "ema.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run" / "weights")
    said = run(config, manifest)
    assert len(said) == 1
    assert "nothing to do" in said[0]
    assert (tmp_path / "run" / "weights" / "ema.safetensors").read_bytes() == before
