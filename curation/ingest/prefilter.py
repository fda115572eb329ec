"""Which rows of the metadata are worth a download, judged by what the metadata say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import UserError


@dataclass(frozen=True, slots=True)
class Prefilter:
    """Thresholds; None lets every row pass.

    A row whose score is unknown does not pass a threshold on it: a null `punsafe` means unknown, not safe. A row whose
    size is unknown does, because the picture itself is measured once it is there.
    """

    min_width: int | None = None  # px
    min_height: int | None = None  # px
    min_area: int | None = None  # px, width × height
    min_similarity: float | None = None
    max_punsafe: float | None = None
    max_pwatermark: float | None = None
    min_aesthetic: float | None = None

    def __post_init__(self) -> None:
        for name in ("min_width", "min_height", "min_area"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} {value}: must be at least 1.")
        for name in ("min_similarity", "max_punsafe", "max_pwatermark", "min_aesthetic"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value):
                raise UserError(f"--{name.replace('_', '-')} {value}: must be a number.")

    @property
    def fields(self) -> frozenset[str]:
        """The fields (see curation.ingest.columns) that the thresholds need."""
        used: dict[str, float | None] = {name: threshold for name, threshold, _ in self._scores()}
        used["source_width"] = self.min_width or self.min_area
        used["source_height"] = self.min_height or self.min_area
        return frozenset(name for name, threshold in used.items() if threshold is not None)

    def dropped(self, numbers: Mapping[str, npt.NDArray[np.float64]], rows: int) -> list[str | None]:
        """For each of `rows` rows the name of the first test that drops it, in the order of the fields above; None for
        a row that passes. `numbers` are the columns by field, float64 [rows], NaN where unknown; a field that is
        missing is unknown everywhere."""
        verdict, passing = np.full(rows, None, object), np.ones(rows, bool)

        def drop(fails: npt.NDArray[np.bool_], name: str) -> None:
            verdict[fails & passing] = name
            passing[fails] = False

        unknown = np.full(rows, np.nan)
        width, height = numbers.get("source_width", unknown), numbers.get("source_height", unknown)
        for name, values, least in (
            ("width", width, self.min_width),
            ("height", height, self.min_height),
            ("area", width * height, self.min_area),
        ):
            if least is not None:
                drop(values < least, name)
        for name, threshold, sign in self._scores():
            if threshold is not None:
                values = numbers.get(name, unknown)
                drop(np.isnan(values), f"{name}_unknown")
                drop(sign * values < sign * threshold, name)
        verdicts: list[str | None] = verdict.tolist()
        return verdicts

    def too_small(self, width: int, height: int) -> str | None:
        """Why a picture of this real size does not pass after all; None if it does."""
        for what, value, threshold in (
            ("wide", width, self.min_width),
            ("high", height, self.min_height),
            ("in area", width * height, self.min_area),
        ):
            if threshold is not None and value < threshold:
                return f"{height}x{width} px: {value} px {what}, below {threshold}"
        return None

    def _scores(self) -> Iterator[tuple[str, float | None, int]]:
        """(field, threshold, 1 for a least value or -1 for a largest)."""
        yield "similarity", self.min_similarity, 1
        yield "punsafe", self.max_punsafe, -1
        yield "pwatermark", self.max_pwatermark, -1
        yield "aesthetic", self.min_aesthetic, 1
