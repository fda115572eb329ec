import dataclasses

import pytest

from schemas.errors import UserError
from training.models.config import PIXART_SIZES, PixArtConfig


def test_the_sizes_have_the_depth_width_and_heads_of_dit() -> None:
    shapes = {name: (c.depth, c.hidden, c.heads, c.patch) for name, c in PIXART_SIZES.items() if name != "tiny/2"}
    assert shapes == {
        "S/2": (12, 384, 6, 2),
        "B/2": (12, 768, 12, 2),
        "L/2": (24, 1024, 16, 2),
        "XL/2": (28, 1152, 16, 2),
    }
    assert PIXART_SIZES["XL/2"] == PixArtConfig()


@pytest.mark.parametrize(
    "change",
    [{"heads": 5}, {"hidden": 126, "heads": 3}, {"micro_conditions": True}, {"depth": 0}, {"position_scale": 0.0}],
)
def test_a_size_that_cannot_be_is_told_in_one_line(change: dict[str, object]) -> None:
    with pytest.raises(UserError) as caught:
        dataclasses.replace(PIXART_SIZES["tiny/2"], **change)
    assert "\n" not in str(caught.value)
