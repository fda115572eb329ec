import pytest
import torch
from PIL import Image

from curation.captions.prompts import NAMED_PROMPTS, Prompt
from curation.demo.llava.language import Asking
from curation.demo.llava.model import LlavaSize, new_model, new_processor, new_tokenizer

SIZE = LlavaSize(image_px=24, patch_px=12, vision_width=32, vision_layers=1, text_width=32, text_layers=2)
ALTS = (None, "red car")
TEXTS = (("The red car is here.", "A blue box."), ("Here is a box.", "The car is red now."))


@pytest.fixture(scope="module")
def asking() -> Asking:
    tokenizer = new_tokenizer([text for row in TEXTS for text in row] * 3, SIZE)
    return Asking(new_processor(SIZE, tokenizer))


def as_the_captioner_asks(asking: Asking, alt: str | None, text: str) -> dict[str, torch.Tensor]:
    """What the processor makes of one picture, its chat prompt, and an answer."""
    processor = asking.processor
    asked = Prompt(NAMED_PROMPTS["laion"]).text(alt, None, {})[0]
    content = [{"type": "image"}, {"type": "text", "text": asked}]
    chat = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    picture = Image.new("RGB", (24, 24), "red")
    return dict(processor(images=[picture], text=[f"{chat} {text}</s>"], return_tensors="pt"))


def test_answers_in_one_row_are_predicted_as_if_each_stood_alone_in_the_captioners_own_words(asking: Asking) -> None:
    torch.manual_seed(0)
    model = new_model(SIZE, asking.processor.tokenizer).eval()
    batch = asking.batch(ALTS, TEXTS)
    pixels = torch.cat([as_the_captioner_asks(asking, None, "")["pixel_values"]] * 2)
    inputs = {"input_ids": batch.ids, "position_ids": batch.positions, "attention_mask": batch.seen}
    together = model.model(**inputs, pixel_values=pixels)[0]
    before = batch.ids.shape[1] - batch.labels.shape[1]
    each = batch.labels.shape[1] // 2
    for row, (alt, texts) in enumerate(zip(ALTS, TEXTS, strict=True)):
        for index, text in enumerate(texts):
            single = as_the_captioner_asks(asking, alt, text)
            labels = batch.labels[row, index * each : (index + 1) * each]
            answer = labels[labels >= 0]
            assert single["input_ids"][0, -len(answer) :].tolist() == answer.tolist()
            alone = model.model(**single)[0][0, -len(answer) :]
            start = before + index * each
            torch.testing.assert_close(together[row, start : start + len(answer)], alone, atol=1e-4, rtol=1e-4)


def test_nothing_is_learnt_from_prompts_and_padding(asking: Asking) -> None:
    batch = asking.batch(ALTS, TEXTS)
    learnt = batch.labels[batch.labels >= 0].tolist()
    tokenizer = asking.processor.tokenizer
    expected = [[*tokenizer(f" {text}</s>", add_special_tokens=False)["input_ids"]] for row in TEXTS for text in row]
    assert sorted(learnt) == sorted(token for ids in expected for token in ids)
