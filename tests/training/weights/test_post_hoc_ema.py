from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from schemas.errors import UserError
from training.ema import PowerEma, power_decay, power_of
from training.models.config import PixArtConfig
from training.weights.files import load_weights, save_weights
from training.weights.post_hoc_ema import FOLDER, WIDTH_KEY, Profile, blend, reconstruct, snapshot_name

CONFIG = PixArtConfig(depth=2, hidden=32, heads=2, caption_channels=32, text_tokens=12, position_base=4)
WIDTHS = (0.05, 0.10)
SAMPLES = (8, 3, 5)  # of the global batches, in turns: buckets make them differ


class Walk(nn.Module):
    """Weights that drift and shake as a model's do, one that never moves, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.moving = nn.Parameter(torch.randn(20))
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)
        self.register_buffer("y_embedding", torch.randn(4))

    @torch.no_grad()
    def step(self, number: int) -> None:
        self.moving.mul_(0.999).add_(0.3 / (1 + number) ** 0.5 * torch.randn(20))


def walk(run: Path, steps: int, every: int, also: float) -> tuple[list[torch.Tensor], list[int], torch.Tensor]:
    """Train for some steps, keeping snapshots; the weights after each step, the images seen after each, and the
    directly tracked average of width `also`."""
    torch.manual_seed(0)
    model = Walk()
    averages = {std: PowerEma(model, std) for std in {*WIDTHS, also}}
    course, clock, images = list[torch.Tensor](), list[int](), 0
    for step in range(1, steps + 1):
        model.step(step)
        before, images = images, images + SAMPLES[step % len(SAMPLES)]
        for average in averages.values():
            average.update(before, images)
        course.append(model.moving.detach().clone())
        clock.append(images)
        if step % every == 0:
            for std in WIDTHS:
                facts = {"kind": "ema", "images_seen": str(images), WIDTH_KEY: repr(std)}
                facts |= {"vae_scaling_factor": "1.0", "vae_shift_factor": "0.0"}
                place = run / FOLDER / snapshot_name(step, std)
                save_weights(place, averages[std].state_dict(), CONFIG, facts)
    return course, clock, averages[also].state_dict()["moving"]


def averaged(course: list[torch.Tensor], clock: list[int], std: float) -> torch.Tensor:
    """The weighted mean of the course, by the profile's integral over each step's images."""
    ends = np.array([0, *clock], dtype=np.float64) / clock[-1]
    weights = np.diff(ends ** (power_of(std) + 1))
    assert weights.sum() == pytest.approx(1)
    return torch.from_numpy(sum(w * x.double().numpy() for w, x in zip(weights, course, strict=True)))


@pytest.mark.parametrize("std", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_the_exponent_of_a_width_is_that_of_its_profile(std: float) -> None:
    gamma = power_of(std)
    share = (np.arange(1_000_000) + 0.5) / 1_000_000
    density = (gamma + 1) * share**gamma
    mean = (density * share).mean()
    assert ((density * share**2).mean() - mean**2) ** 0.5 == pytest.approx(std, rel=1e-4)


def test_the_papers_widths_have_the_papers_exponents() -> None:
    assert power_of(0.05) == pytest.approx(16.97, abs=0.01)  # of 2312.02696, section 3.1
    assert power_of(0.10) == pytest.approx(6.94, abs=0.01)


def test_the_average_is_that_of_the_whole_course_by_images_seen(tmp_path: Path) -> None:
    course, clock, tracked = walk(tmp_path, 60, 60, also=0.15)
    torch.testing.assert_close(tracked.double(), averaged(course, clock, 0.15), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(tracked.double(), torch.stack(course).double().mean(dim=0), rtol=1e-2)


def test_the_first_step_leaves_nothing_of_the_start() -> None:
    assert power_decay(power_of(0.05), 0, 8) == 0
    model = Walk()
    average = PowerEma(model, 0.05)
    model.step(1)
    average.update(0, 8)
    assert torch.equal(average.state_dict()["moving"], model.moving)


def test_a_width_that_was_stored_comes_back_to_the_bit(tmp_path: Path) -> None:
    walk(tmp_path, 60, 10, also=0.05)
    for step in (30, None):
        assert reconstruct(tmp_path, 0.1, tmp_path / "out.safetensors", step).error == 0
        stored = load_weights(tmp_path / FOLDER / snapshot_name(step or 60, 0.1))
        config, tensors, metadata = load_weights(tmp_path / "out.safetensors")
        assert (config, metadata) == (stored[0], stored[2])
        assert {name: t.tolist() for name, t in tensors.items()} == {name: t.tolist() for name, t in stored[1].items()}


@pytest.mark.parametrize(("std", "most"), [(0.06, 0.002), (0.08, 0.002), (0.12, 0.002), (0.2, 0.02)])
def test_another_width_comes_near_to_the_one_tracked_directly(tmp_path: Path, std: float, most: float) -> None:
    course, clock, tracked = walk(tmp_path, 240, 8, also=std)
    found = reconstruct(tmp_path, std, tmp_path / "out.safetensors")
    _, tensors, metadata = load_weights(tmp_path / "out.safetensors")
    assert metadata[WIDTH_KEY] == repr(std)
    assert metadata["images_seen"] == str(clock[-1])
    assert 0 < found.error < most
    spread = (torch.stack(course) - tracked).norm(dim=1).mean()
    assert (tensors["moving"] - tracked).norm() < most * spread
    nearest = load_weights(tmp_path / FOLDER / snapshot_name(240, 0.05 if std < 0.075 else 0.1))[1]["moving"]
    assert (tensors["moving"] - tracked).norm() < 0.1 * (nearest - tracked).norm()


def test_what_never_moved_stays_as_it_is_even_with_few_snapshots(tmp_path: Path) -> None:
    walk(tmp_path, 30, 10, also=0.05)
    found = reconstruct(tmp_path, 0.08, tmp_path / "out.safetensors")
    tensors = load_weights(tmp_path / "out.safetensors")[1]
    stored = load_weights(tmp_path / FOLDER / snapshot_name(30, 0.05))[1]
    assert len(found.shares) == 6
    assert sum(found.shares) == pytest.approx(1, abs=1e-12)
    for name in ("frozen", "y_embedding"):
        assert torch.equal(tensors[name], stored[name])
    assert not torch.equal(tensors["moving"], stored["moving"])


def test_the_least_squares_solution_picks_a_stored_profile_by_itself() -> None:
    stored = [Profile(std, images) for images in (1000, 2000, 3000) for std in WIDTHS]
    near = blend(stored, Profile(0.1 + 1e-9, 3000))
    assert near.shares == pytest.approx((0, 0, 0, 0, 0, 1), abs=1e-6)
    assert blend(stored, Profile(0.1, 3000)).shares == (0, 0, 0, 0, 0, 1)


def test_snapshots_of_later_steps_are_no_part_of_an_earlier_average(tmp_path: Path) -> None:
    walk(tmp_path, 60, 10, also=0.05)
    reconstruct(tmp_path, 0.08, tmp_path / "first.safetensors", step=30)
    for later in (40, 50, 60):
        for std in WIDTHS:
            (tmp_path / FOLDER / snapshot_name(later, std)).unlink()
    reconstruct(tmp_path, 0.08, tmp_path / "second.safetensors")
    assert (tmp_path / "first.safetensors").read_bytes() == (tmp_path / "second.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("std", "step", "said"),
    [
        (0.28, None, "with an error of"),
        (0.01, None, "with an error of"),
        (0.3, None, "--std 0.3 is no relative width"),
        (0.08, 7, "no snapshot of step 7. There are those of 10, 20, 30."),
    ],
)
def test_what_the_snapshots_cannot_give_is_refused(tmp_path: Path, std: float, step: int | None, said: str) -> None:
    walk(tmp_path, 30, 10, also=0.05)
    with pytest.raises(UserError, match=said):
        reconstruct(tmp_path, std, tmp_path / "out.safetensors", step)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_run_without_snapshots_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Train with --power-ema"):
        reconstruct(tmp_path, 0.08, tmp_path / "out.safetensors")
