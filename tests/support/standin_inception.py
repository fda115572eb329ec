"""A network that is called as the file of Inception is."""

from torch import Tensor, nn


class _Layers(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)).repeat(1, 683)[:, :2048]


class StandinInception(nn.Module):
    """By its call the Inception file that FID is computed with; its features are mean colours."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = _Layers()

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        features = self.layers(nn.functional.interpolate(img, size=[299, 299]))
        return features + 1000 if return_features else features[:, :8]
