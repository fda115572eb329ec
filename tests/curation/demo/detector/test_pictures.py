import torch
from diffusers import AutoencoderKL

from curation.demo.detector.model import NOTHING, UNRECOGNISED
from curation.demo.detector.pictures import IGNORED, training_batch
from curation.demo.shipped import VAE
from curation.scenes.scene import Split, scene
from curation.scenes.vocabulary import NOUNS


def test_targets_say_what_each_place_holds_or_that_it_cannot_be_recognised() -> None:
    pixels, targets = training_batch(range(24), 5, 48, AutoencoderKL.from_pretrained(VAE).eval())
    assert pixels.shape == (24, 3, 48, 48)
    assert float(pixels.min()) >= 0
    assert float(pixels.max()) <= 1
    ruined = 0
    for number, nouns in enumerate(targets.noun):
        one = scene(5, number, split=Split.NOVEL if number % 2 else Split.TRAIN)
        there = nouns[nouns != NOTHING].tolist()
        assert len(there) == len(one.things)
        if set(there) == {UNRECOGNISED}:
            ruined += 1
        else:
            assert sorted(NOUNS[index] for index in there) == sorted(thing.noun for thing in one.things)
        assert torch.equal(targets.colour[number] == IGNORED, nouns == NOTHING)
    assert 0 < ruined < 12


def test_the_same_numbers_give_the_same_pictures() -> None:
    autoencoder = AutoencoderKL.from_pretrained(VAE).eval()
    one, other = (training_batch(range(6), 5, 48, autoencoder)[0] for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, training_batch(range(6), 6, 48, autoencoder)[0])
