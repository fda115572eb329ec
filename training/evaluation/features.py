"""Networks that turn pictures into features, named by how they are given.

    PATH.pt               a TorchScript file, such as the Inception network that FID is defined by
    MODULE:FUNCTION       a Python function without arguments that returns such a network
    vae-latents:DIR       the posterior mean of a VAE, averaged over a grid of 4 x 4 areas
    vae-encoder:DIR       the last feature map of its encoder, averaged over all places

The last two need no foreign weights. Their distances compare runs with each other; they are no FID, and nothing that is
printed calls them so.
"""

import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F
import xxhash
from numpy.typing import NDArray
from torch import Tensor, nn

from schemas.errors import UserError
from training.checkpoints.folder import file_digest

INCEPTION_PX: Final = 299
INCEPTION_WIDTH: Final = 2048
_GRID: Final = 4
_MIDDLE: Final = 128.0  # of the values that Inception takes
Network = Callable[[Tensor], Any]


class Features(Protocol):
    """A network: pictures float32 [B, 3, H, W] with values 0 to 255 in, features [B, D] out."""

    name: str
    digest: str
    input_px: int  # the side that pictures should have; 0: any
    is_inception: bool  # whether a Fréchet distance over it may be called FID

    def __call__(self, pictures: Tensor) -> Tensor:
        """The features, on the device of `pictures`."""


class ScriptedFeatures:
    """A TorchScript file. Raises `UserError` if it does not load.

    The Inception file of StyleGAN2-ADA's metrics, which clean-fid uses too, is known by its argument `return_features`
    and its part `layers`: pictures of 299 px then go to `layers` as (x - 128) / 128, past the file's own resizing.
    Pictures of another size go through that resizing. Any other file is called with the pictures as they are.
    """

    def __init__(self, path: Path, device: torch.device, input_px: int) -> None:
        self.name, self.input_px = path.name, input_px or INCEPTION_PX
        if not path.is_file():
            raise UserError(f"{path}: no such file. Give a TorchScript file (.pt), MODULE:FUNCTION or vae-latents:DIR.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                load: Callable[..., Any] = torch.jit.load
                self._network = load(str(path), map_location=device).eval()
        except (RuntimeError, ValueError, EOFError) as error:
            raise UserError(
                f"{path}: no TorchScript file ({str(error).splitlines()[0]}). Save it with torch.jit.save."
            ) from None
        self.digest = file_digest(path)
        arguments = [argument.name for argument in self._network.forward.schema.arguments]
        self.is_inception = "return_features" in arguments and hasattr(self._network, "layers")

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """See `Features`."""
        if not self.is_inception:
            return _flat(self._network(pictures), self.name)
        if pictures.shape[-2:] == (INCEPTION_PX, INCEPTION_PX):
            return _flat(self._network.layers((pictures - _MIDDLE) / _MIDDLE), self.name)
        return _flat(self._network(pictures, return_features=True), self.name)


class PythonFeatures:
    """What a function returns. Raises `UserError` if there is no such function.

    Digest: of the network's weights where it is a torch module, else of the file that the function stands in.
    """

    is_inception = False

    def __init__(self, name: str, device: torch.device, input_px: int) -> None:
        self.name, self.input_px = name, input_px
        module, _, function = name.partition(":")
        if "" not in sys.path:
            sys.path.insert(0, "")
        try:
            make = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(f"{name}: cannot be imported ({error}). Give MODULE:FUNCTION on the PYTHONPATH.") from None
        network = make()
        if isinstance(network, nn.Module):
            network = network.to(device).eval()
        if not callable(network):
            raise UserError(f"{name}: returns {type(network).__name__}, no network. Give a function that returns one.")
        self._network: Network = network
        self.digest = weights_digest(network) if isinstance(network, nn.Module) else _source_digest(make)

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """See `Features`."""
        return _flat(self._network(pictures), self.name)


class VaeFeatures:
    """A VAE's latents or its encoder. Raises `UserError` if there is no VAE in the directory."""

    is_inception = False

    def __init__(self, kind: str, directory: Path, device: torch.device, input_px: int) -> None:
        from diffusers import AutoencoderKL

        self.name, self.input_px = f"{kind}:{directory.name}", input_px
        try:
            self._vae: Any = AutoencoderKL.from_pretrained(directory).to(device).eval()
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"{directory}: no AutoencoderKL loads from it ({reason}). Give a VAE's directory."
            ) from None
        self._of_encoder = kind == _VAE_ENCODER
        self.digest = weights_digest(self._vae)
        self._seen = torch.empty(0)
        self._vae.encoder.mid_block.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._seen = output

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """See `Features`."""
        mean: Tensor = self._vae.encode(pictures / 127.5 - 1).latent_dist.mean
        if self._of_encoder:
            return self._seen.float().mean(dim=(2, 3))
        return F.adaptive_avg_pool2d(mean.float(), _GRID).flatten(1)


_VAE_LATENTS: Final = "vae-latents"
_VAE_ENCODER: Final = "vae-encoder"


def open_features(text: str, device: torch.device, input_px: int = 0) -> Features:
    """The network that `text` names, see above. `input_px` 0 leaves the size to it. Raises `UserError`."""
    kind, _, rest = text.partition(":")
    if kind in (_VAE_LATENTS, _VAE_ENCODER) and rest:
        return VaeFeatures(kind, Path(rest), device, input_px)
    if rest and not Path(text).exists():
        return PythonFeatures(text, device, input_px)
    return ScriptedFeatures(Path(text), device, input_px)


def label(features: Features, dim: int) -> str:
    """What a Fréchet distance over these features is called."""
    inception = features.is_inception and dim == INCEPTION_WIDTH
    return "FID" if inception else f"Fréchet distance ({features.name})"


def computed(
    features: Features, batches: Iterator[Tensor], device: torch.device, what: str
) -> Iterator[NDArray[np.float32]]:
    """The features of each batch: float32 [B, D]. Raises `UserError` where they are not finite."""
    seen = 0
    for pictures in batches:
        try:
            values = features(pictures.to(device)).float().cpu().numpy()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # a picture smaller than a kernel, or a network that takes another size
            reason, (height, width) = str(error).strip().splitlines()[0], pictures.shape[-2:]
            raise UserError(
                f"{features.name}: does not take {what}, {height}x{width} px ({reason}). "
                f"Give another --input or --square."
            ) from error
        if not np.isfinite(values).all():
            first = seen + int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise UserError(f"{features.name}: features of picture {first} of {what} are not finite. Use float32.")
        seen += len(values)
        yield values


def weights_digest(network: nn.Module) -> str:
    """xxh3_128 of a network's tensors by name."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _source_digest(function: Any) -> str:
    try:
        source = inspect.getsourcefile(function)
    except TypeError:  # built in
        source = None
    return file_digest(Path(source)) if source else ""


def _flat(output: Any, name: str) -> Tensor:
    """[B, D] from [B, D] or [B, D, 1, 1]. Raises `UserError` for anything else."""
    if isinstance(output, Tensor) and output.ndim >= 2 and output.shape[2:].numel() == 1:
        return output.flatten(1)
    found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise UserError(f"{name}: gives {found}, where [pictures, features] is wanted. Wrap it so that it does.")
