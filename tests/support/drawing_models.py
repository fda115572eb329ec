"""Small models that draw: T5, VAE and PixArt of the true architectures, with random weights."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from training.diffusion.config import ObjectiveConfig, to_metadata
from training.models.config import DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.pixart import PixArt
from training.weights.files import save_weights

CONFIG = PixArtConfig(depth=1, hidden=48, heads=4, caption_channels=16, position_base=4, text_tokens=6)
WORDS = ["<pad>", "</s>", "<unk>", "▁a", "▁red", "▁fox", "▁in", "▁snow", "▁harbour"]


def write_t5(directory: Path, width: int = 16) -> Path:
    tokenizer = Tokenizer(models.Unigram([(word, -float(i)) for i, word in enumerate(WORDS)], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(directory)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(WORDS), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, is_encoder_decoder=False
    )
    T5EncoderModel(config).save_pretrained(directory)
    return directory


def write_kl(directory: Path, channels: int = 4) -> Path:
    torch.manual_seed(1)
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
    ).save_pretrained(directory)
    return directory


def write_weights(
    path: Path,
    seed: int,
    kind: str,
    config: PixArtConfig | DitConfig = CONFIG,
    objective: ObjectiveConfig | None = None,
) -> None:
    model = PixArt(config) if isinstance(config, PixArtConfig) else DiT(config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    metadata = {"images_seen": "512", "kind": kind, "vae_scaling_factor": "0.18215", "vae_shift_factor": "0.0"}
    about = to_metadata(objective) if objective else {}
    save_weights(path, model.state_dict(), config, metadata | about)


def write_drawing_models(root: Path) -> Path:
    """run/, t5/ and vae/ in `root`."""
    write_weights(root / "run/weights/ema.safetensors", 0, "ema")
    write_weights(root / "run/weights/raw.safetensors", 1, "raw")
    write_t5(root / "t5")
    write_kl(root / "vae")
    return root
