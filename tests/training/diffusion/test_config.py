import pytest

from schemas.errors import SchemaError, UserError
from training.diffusion.config import ObjectiveConfig, from_metadata, to_metadata


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": "x0"}, "'x0' is unknown. Use one of epsilon, v, flow"),
        ({"prediction": "flow", "time_density": "cosine"}, "'cosine' is unknown. Use one of uniform, logit-normal"),
        ({"min_snr_gamma": -1.0}, "gamma -1.0"),
        ({"min_snr_gamma": float("nan")}, "gamma nan"),
        ({"prediction": "flow", "time_std": 0.0}, "std 0.0"),
        ({"prediction": "flow", "time_mean": 0.5}, "Leave them off, or choose it"),
        ({"prediction": "flow", "time_mean": float("inf")}, "mean inf"),
        ({"prediction": "flow", "time_shift": 0.0}, "shift 0.0"),
        ({"zero_terminal_snr": True}, "needs the v prediction"),
        ({"prediction": "flow", "zero_terminal_snr": True}, "needs the v prediction"),
        ({"prediction": "v", "zero_terminal_snr": True, "min_snr_gamma": 5.0}, "Use one of the two"),
        ({"prediction": "flow", "min_snr_gamma": 5.0}, "no weight of flow matching"),
        ({"time_shift": 3.0}, "belong to flow matching"),
        ({"prediction": "v", "time_density": "logit-normal"}, "belong to flow matching"),
    ],
)
def test_what_cannot_be_or_does_not_go_together_is_refused_in_one_line(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ObjectiveConfig(**changes)
    assert "\n" not in str(caught.value)


def test_only_flow_matching_has_no_use_for_variance_channels() -> None:
    for prediction in ("epsilon", "v"):
        ObjectiveConfig(prediction=prediction).check_model(learn_sigma=True)
    ObjectiveConfig(prediction="flow").check_model(learn_sigma=False)
    with pytest.raises(UserError, match="no variance to learn"):
        ObjectiveConfig(prediction="flow").check_model(learn_sigma=True)


def test_the_objective_travels_in_the_metadata_of_weights() -> None:
    config = ObjectiveConfig(prediction="flow", time_density="logit-normal", time_mean=0.5, time_shift=3.0)
    assert from_metadata({"kind": "ema", **to_metadata(config)}, "x.safetensors") == config


def test_weights_that_name_no_objective_were_trained_on_epsilon() -> None:
    assert from_metadata({"kind": "raw"}, "x.safetensors") == ObjectiveConfig()


def test_a_damaged_objective_is_told_with_the_file() -> None:
    with pytest.raises(SchemaError, match=r"x\.safetensors: objective: unknown keys colour"):
        from_metadata({"objective": '{"colour": 1}'}, "x.safetensors")
