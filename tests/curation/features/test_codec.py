import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from curation.features.codec import INT8_GROUP, CodecError, encode, encode_int8, int8_groups
from curation.features.storage import npy_bytes
from schemas.embedding import decode_embedding
from schemas.errors import SchemaError


def heavy_tailed(tokens: int, dim: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Values as a T5 gives them: most small, some channels larger by far."""
    noise = np.random.default_rng(seed)
    return (noise.standard_t(3, (tokens, dim)) * np.exp(noise.standard_normal(dim))).astype(np.float32)


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.just(8)),
        elements=st.floats(-60000, 60000, width=32, allow_subnormal=False),
    )
)
def test_each_value_comes_back_within_half_a_step_of_its_groups_scale(values: npt.NDArray[np.float32]) -> None:
    packed = encode_int8(values, 2)
    scale = np.repeat(packed["scale"].astype(np.float64), 4, axis=1)
    exact = packed["levels"].astype(np.float64) * scale
    largest = np.repeat(np.abs(values).reshape(-1, 2, 4).max(axis=2), 4, axis=1).astype(np.float64)
    # Half a step, what clipping at 127 loses to the rounding of the scale, and the least scale that float16 has.
    allowed = scale / 2 + largest * 2.0**-11 + 127 * 2.0**-24
    assert (np.abs(exact - values) <= allowed).all()


@pytest.mark.parametrize("dim", [512, 768, 1024, 2048, 4096])
def test_every_t5_width_falls_into_groups_and_takes_half_the_bytes(dim: int) -> None:
    values = heavy_tailed(7, dim)
    packed = encode(values, "int8")
    assert packed is not None
    assert packed["scale"].shape == (7, dim // INT8_GROUP)
    assert packed.nbytes == 7 * (dim + 2 * dim // INT8_GROUP)
    assert decode_embedding(packed, "here").shape == values.shape


def test_a_width_that_is_no_multiple_has_one_scale_a_token() -> None:
    assert int8_groups(INT8_GROUP + 8) == 1
    packed = encode(heavy_tailed(3, 24), "int8")
    assert packed is not None
    assert packed["scale"].shape == (3, 1)


def test_numpy_alone_reads_the_member() -> None:
    values = heavy_tailed(5, 256)
    packed = encode(values, "int8")
    assert packed is not None
    read = np.load(io.BytesIO(npy_bytes(packed)), allow_pickle=False)
    scales = np.repeat(read["scale"].astype(np.float32), 256 // read["scale"].shape[1], axis=1)
    np.testing.assert_array_equal((read["levels"] * scales).astype(np.float16), decode_embedding(packed, "here"))


def test_same_values_same_bytes() -> None:
    first, second = (encode(heavy_tailed(5, 256), "int8") for _ in range(2))
    assert first is not None
    assert second is not None
    assert npy_bytes(first) == npy_bytes(second)


@pytest.mark.parametrize("codec", ["fp16", "int8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e5])
def test_what_float16_cannot_hold_is_not_stored(codec: str, value: float) -> None:
    values = heavy_tailed(2, 128)
    values[1, 5] = value
    assert encode(values, codec) is None


def test_the_largest_float16_survives_or_is_refused_but_is_never_infinite() -> None:
    values = np.full((1, 128), 65504.0, np.float32)
    packed = encode(values, "int8")
    assert packed is None or np.isfinite(decode_embedding(packed, "here")).all()


def test_a_token_of_zeros_is_kept_and_counts_as_no_error() -> None:
    values = np.zeros((2, 128), np.float32)
    packed = encode(values, "int8")
    assert packed is not None
    assert not decode_embedding(packed, "here").any()
    error = CodecError()
    error.add(values, packed)
    assert error.figures == {"codec_mean_cosine": 1.0, "codec_relative_l2": 0.0, "codec_worst_token_l2": 0.0}


def test_the_measured_error_is_that_of_the_definition() -> None:
    error, pairs = CodecError(), []
    for seed in range(3):
        values = heavy_tailed(4, 256, seed)
        packed = encode(values, "int8")
        assert packed is not None
        error.add(values, packed)
        pairs.append((values.astype(np.float64), decode_embedding(packed, "here").astype(np.float64)))
    x, y = (np.concatenate(side) for side in zip(*pairs, strict=True))
    norms = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    figures = error.figures
    assert figures["codec_mean_cosine"] == pytest.approx(np.mean((x * y).sum(axis=1) / (norms[0] * norms[1])), abs=1e-6)
    assert figures["codec_relative_l2"] == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(x), rel=1e-4)
    worst = (np.linalg.norm(x - y, axis=1) / norms[0]).max()
    assert figures["codec_worst_token_l2"] == pytest.approx(worst, rel=1e-4)
    assert figures["codec_worst_token_l2"] < 0.03
    assert CodecError().figures == {}


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 4), np.float32),
        np.zeros((2, 4), np.int8),
        np.zeros(2, [("scale", "<f4", (1,)), ("levels", "i1", (4,))]),
        np.zeros(2, [("scale", "<f2", (3,)), ("levels", "i1", (4,))]),
        np.zeros(2, [("levels", "i1", (4,))]),
        np.zeros(2, [("scale", "<f2"), ("levels", "i1")]),
        np.zeros((2, 2), [("scale", "<f2", (1,)), ("levels", "i1", (4,))]),
    ],
)
def test_arrays_of_any_other_form_are_refused_by_name(array: npt.NDArray[np.generic]) -> None:
    with pytest.raises(SchemaError, match="here: "):
        decode_embedding(array, "here")
