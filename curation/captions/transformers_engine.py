"""LLaVA through transformers: any image-text-to-text checkpoint, from the hub or a local directory."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig, LogitsProcessorList

from curation.captions.engine import Completion, Decoding, Request
from curation.captions.onevision import OnevisionPictureProcessor
from curation.captions.sampling import TokenChooser, TokenRule
from curation.checkpoints import Checkpoint
from curation.compute import Compute
from curation.images.resize import pad_to_square
from curation.loading import load_model
from schemas.errors import UserError

_TILED_MODELS: Final = frozenset({"llava_next", "llava_onevision"})
"""Models whose processors cut a picture into tiles and pad by themselves."""

REQUEST_ERRORS: Final = (RuntimeError, ValueError, IndexError, TypeError)  # OutOfMemoryError is a RuntimeError


def choose_dtype(name: str, device: str) -> str:
    """The compute type: `auto` is float32 on the CPU, and on CUDA bfloat16 where the card has it, else float16.

    Raises `UserError` for a device that cannot be, and for `auto` on CUDA in a process without a card to choose by.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise UserError(f"--device {device}: no such device. Give cpu, cuda or cuda:1.") from None
    if name != "auto":
        return name
    if kind != "cuda":
        return "float32"
    if not torch.cuda.is_available():
        raise UserError(
            f"--device {device}: no CUDA device here to choose --dtype by. Use --device cpu, or name --dtype bfloat16 "
            f"or float16 where workers elsewhere have one."
        )
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


class TransformersEngine:
    """The reference engine: left-padded batches, attention masks, greedy or per-sample seeded decoding."""

    def __init__(self, checkpoint: Checkpoint, *, dtype: str, device: str, decoding: Decoding) -> None:
        self._device, self.max_new_tokens = device, decoding.max_new_tokens
        self.rule = TokenRule(decoding.temperature, decoding.top_p)
        where = {"revision": checkpoint.revision} if checkpoint.revision else {}
        try:
            kind = AutoConfig.from_pretrained(checkpoint.source, **where).model_type
            processor_class = OnevisionPictureProcessor if kind == "llava_onevision" else AutoProcessor
            self.processor: Any = processor_class.from_pretrained(checkpoint.source, **where)
        except (OSError, ValueError, KeyError, TypeError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"{checkpoint.source}: its processor cannot be loaded ({lines[0][:200]}). Is it an image-text-to-text "
                f"checkpoint, and whole?"
            ) from error
        self.model: Any = load_model(AutoModelForImageTextToText, checkpoint, Compute(device, dtype), "dtype")
        self._prepare_processor(checkpoint.source)
        # Padding is a setting of a tokenizer, not of a call, so threads that do not pad have one of their own.
        self._preparer: Any = copy.deepcopy(self.processor)
        self._generation = self._generation_config()
        self._texts: dict[str, str] = {}

    @property
    def wanted_px(self) -> int | None:
        """The vision tower's input side; for tiled models the longest side of their largest tiling."""
        pins = getattr(self.processor.image_processor, "image_grid_pinpoints", None)
        if pins:
            return max(max(pin) for pin in pins)
        crop = getattr(self.processor.image_processor, "crop_size", None)
        return int(crop["height"]) if crop else None

    @property
    def preparation(self) -> dict[str, Any]:
        """What is done to a picture and a prompt before the model sees them; part of the prompt's identity."""
        colour = list(self._padding_colour()) if self._pads else None
        return {"pad_to_square": colour, "chat_template": self.processor.chat_template}

    def inputs(self, requests: Sequence[Request]) -> Any:
        """The model's inputs for a batch: `input_ids`, `attention_mask` [B, N], `pixel_values`, ..."""
        return self.to_device(self._process(self.processor, requests, padding=True))

    def prepare(self, request: Request) -> dict[str, Tensor]:
        """The inputs of one request, [1, ...] each, on the host; for threads beside the model."""
        return self._process(self._preparer, [request], padding=False)

    def to_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`inputs` where the model is, in its type."""
        moved = {}
        for name, tensor in inputs.items():
            dtype = self.model.dtype if torch.is_floating_point(tensor) else tensor.dtype
            pinned = tensor.to(dtype).pin_memory() if self._on_cuda else tensor.to(dtype)
            moved[name] = pinned.to(self._device, non_blocking=self._on_cuda)
        return moved

    @property
    def pad_token(self) -> int:
        """The token that fills a place."""
        return int(self.processor.tokenizer.pad_token_id)

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end a text."""
        return frozenset(self._generation.eos_token_id)

    def text_of(self, tokens: Sequence[int]) -> str:
        """The text of generated `tokens`, unaltered."""
        return str(self.processor.tokenizer.decode(list(tokens), skip_special_tokens=True))

    @torch.inference_mode()
    def complete(self, requests: Sequence[Request]) -> Sequence[Completion]:
        """One completion for each request, in order.

        A batch that fails is tried again in halves, and a request that fails alone is answered with `error`; if none
        of several requests can be answered, the fault is not theirs and the exception goes up.
        """
        if not requests:
            return []
        completions, error = self._complete_or_halve(requests)
        if error is not None and all(c.finish_reason == "error" for c in completions) and len(requests) > 1:
            raise error
        return completions

    def close(self) -> None:
        """Give back the model's memory."""
        del self.model
        if self._on_cuda:
            torch.cuda.empty_cache()

    @property
    def _on_cuda(self) -> bool:
        return self._device.startswith("cuda")

    def _process(self, processor: Any, requests: Sequence[Request], *, padding: bool) -> dict[str, Tensor]:
        # A list for each text: some processors take a flat list for the pictures of one text.
        images = [[pad_to_square(r.image, self._padding_colour()) if self._pads else r.image] for r in requests]
        texts = [self._chat(r.prompt) for r in requests]
        bos = processor.tokenizer.bos_token
        special = not (bos and texts[0].startswith(bos))
        return dict(
            processor(images=images, text=texts, padding=padding, add_special_tokens=special, return_tensors="pt")
        )

    def _complete_or_halve(self, requests: Sequence[Request]) -> tuple[list[Completion], Exception | None]:
        try:
            return self._generate(requests), None
        except REQUEST_ERRORS as error:
            failure = error.with_traceback(None)  # its frames would hold all that the batch took
        if len(requests) == 1:
            return [Completion(requests[0].key, "", "error", 0, 0, None, one_line(failure))], failure
        middle = len(requests) // 2
        left, left_error = self._complete_or_halve(requests[:middle])
        right, right_error = self._complete_or_halve(requests[middle:])
        return left + right, left_error or right_error

    def _generate(self, requests: Sequence[Request]) -> list[Completion]:
        inputs = self.inputs(requests)
        chooser = TokenChooser([r.seed for r in requests], self.rule)
        output = self.model.generate(
            **inputs, generation_config=self._generation, logits_processor=LogitsProcessorList([chooser])
        )
        tokens = output[:, inputs["input_ids"].shape[1] :].cpu()
        logprobs = torch.stack(chooser.logprobs, dim=1).cpu()
        prompt_lengths = inputs["attention_mask"].sum(1).tolist()
        ends = torch.isin(tokens, torch.tensor(self._generation.eos_token_id))
        completions = []
        for row, request in enumerate(requests):
            stops = ends[row].nonzero()
            count = int(stops[0]) + 1 if len(stops) else tokens.shape[1]
            completions.append(
                Completion(
                    key=request.key,
                    text=self.text_of(tokens[row, :count].tolist()),
                    finish_reason="stop" if len(stops) else "length",
                    n_prompt_tokens=int(prompt_lengths[row]),
                    n_tokens=count,
                    mean_logprob=float(logprobs[row, :count].mean()),
                )
            )
        return completions

    def _prepare_processor(self, source: str) -> None:
        tokenizer = self.processor.tokenizer
        tokenizer.padding_side = "left"  # right padding makes a row's text depend on its neighbours' lengths
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if not getattr(self.processor, "chat_template", None):
            raise UserError(f"{source}: its processor has no chat template. Add chat_template.jinja to the checkpoint.")
        config = self.model.config
        # Older checkpoints lack these in the processor; without them the image token count is off by one.
        vision = config.vision_config
        if getattr(self.processor, "patch_size", None) is None and hasattr(vision, "patch_size"):
            self.processor.patch_size = vision.patch_size
        strategy = getattr(config, "vision_feature_select_strategy", None)
        if strategy is not None and getattr(self.processor, "vision_feature_select_strategy", None) is None:
            self.processor.vision_feature_select_strategy = strategy
        if getattr(self.processor, "num_additional_image_tokens", None) is None:
            self.processor.num_additional_image_tokens = 1
        self._pads = config.model_type not in _TILED_MODELS

    def _padding_colour(self) -> tuple[int, int, int]:
        red, green, blue = (int(255 * value) for value in self.processor.image_processor.image_mean)
        return red, green, blue

    def _generation_config(self) -> Any:
        tokenizer, own = self.processor.tokenizer, self.model.generation_config
        eos = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=list(eos) if isinstance(eos, list | tuple) else [eos],
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
        )

    def _chat(self, prompt: str) -> str:
        text = self._texts.get(prompt)
        if text is None:
            content = [{"type": "image"}, {"type": "text", "text": self._without_special_tokens(prompt)}]
            conversation = [{"role": "user", "content": content}]
            text = str(self.processor.apply_chat_template(conversation, add_generation_prompt=True))
            if len(self._texts) < 1024:
                self._texts[prompt] = text
        return text

    def _without_special_tokens(self, prompt: str) -> str:
        """`prompt` without the tokenizer's special tokens: alt text that says `<image>` must not add a picture."""
        for token in self.processor.tokenizer.all_special_tokens:
            prompt = prompt.replace(token, " ")
        return prompt


def one_line(error: Exception) -> str:
    """The kind and the first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
