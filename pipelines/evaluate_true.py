"""What the detector reads of true pictures behind the autoencoder: the ceiling of `pipelines.evaluate scenes`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import UserError

if TYPE_CHECKING:
    from curation.demo.detector.detector import Detector
    from curation.scenes.alignment import Reading


def true_readings(truth: Path, latents: str, vae: str, detector: "Detector") -> "list[tuple[Reading, Reading]]":
    """(what is true, what is read) of each picture of the list `truth` that is in `latents`, decoded by `vae`.

    Raises `UserError` if it has none of them, or the list is not of pictures.
    """
    from curation.scenes.alignment import asked_in
    from training.evaluation.prompt_lists import read_records

    records = {str(record["key"]): record for record in read_records(truth, ("key", "things", "ground"))}
    keys, pictures = _decoded(latents, vae, records)
    if not keys:
        raise UserError(f"{latents}: has none of the pictures of {truth}. Encode those that the list was made of.")
    asked = [asked_in(records[key]) for key in keys]
    return list(zip(asked, detector.read(pictures), strict=True))


def _decoded(latents: str, vae: str, wanted: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    import torch

    from curation.features.read import read_features
    from schemas.reading import open_dataset
    from training.sampling.pictures import LatentDecoder

    decoder = LatentDecoder(vae)
    if decoder.takes_scaled:
        raise UserError(f"{vae}: an AutoencoderTiny, which did not make latents. Give the autoencoder that did.")
    dataset = open_dataset(latents, "latents").require_whole()
    keys, pictures = [], []
    for entry in dataset.entries:
        for row, array in read_features(dataset, entry):
            if row["key"] in wanted:
                mean = torch.from_numpy(array[:1].astype("float32"))  # stored as it is, not scaled
                pictures.append(decoder(mean, scaling_factor=1, shift_factor=0)[0])
                keys.append(row["key"])
    return keys, pictures
