from pathlib import Path

from curation.demo.detector.detector import Detector
from curation.scenes.drawing import draw
from curation.scenes.scene import scene
from pipelines.train_small import main


def test_the_recipe_gives_a_detector_that_can_be_loaded_and_a_card(tmp_path: Path) -> None:
    assert main(["detector", "--out", str(tmp_path), "--steps", "1", "--card-scenes", "2"]) == 0
    assert len(Detector(tmp_path).read([draw(scene(0, 0))])) == 1
    assert "| novel, 128, autoencoder |" in (tmp_path / "README.md").read_text(encoding="utf-8")
