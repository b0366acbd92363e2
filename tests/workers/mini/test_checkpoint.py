"""The bundled checkpoint is an ordinary one that looks at the picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from policies.question import Forbidden, Question
from workers import mini, prompt
from workers.mini import samples
from workers.mini.answering import answers_of
from workers.mini.lessons import Item
from workers.mini.rows import Packer, collate
from workers.mini.scenes import SIDE_PX
from workers.mini.sights import Sight
from workers.mini.tower import OUTPUTS, as_input

FOLDER = Path(mini.__file__).parent


@pytest.fixture(scope="module")
def checkpoint() -> tuple[Any, Any]:
    """Return the bundled model and its processor, loaded like every other checkpoint."""
    model = AutoModelForImageTextToText.from_pretrained(FOLDER, dtype=torch.float32).eval()
    return model, AutoProcessor.from_pretrained(FOLDER)


def question(words: str) -> Question:
    """Return a one-clause policy against something that is shown."""
    return Question(
        id="q",
        policy="q",
        question=f"Does this upload show {words}?",
        forbidden=(Forbidden(id="W1", text=f"Shows {words}."),),
    )


def log_odds(
    checkpoint: tuple[Any, Any], image: Image.Image, caption: str, asked: Question
) -> float:
    """Return the log-odds of Yes by one whole plain forward pass."""
    model, processor = checkpoint
    turn = prompt.messages(prompt.prefix(images=1, caption=caption), prompt.suffix(asked))
    text = processor.apply_chat_template(turn, add_generation_prompt=True)
    with torch.no_grad():
        logits = model(**processor(text=text, images=image, return_tensors="pt")).logits[0, -1]
    yes, no = processor.tokenizer.convert_tokens_to_ids(["Yes", "No"])
    return float(logits[yes] - logits[no])


def test_weights_are_small_and_half_precision() -> None:
    """The weights are at most 20 million numbers in fp16 and 25 MB."""
    path = FOLDER / "model.safetensors"
    weights = load_file(path)
    assert sum(weight.numel() for weight in weights.values()) <= 20_000_000
    assert all(
        weight.dtype is torch.float16 for weight in weights.values() if weight.is_floating_point()
    )
    assert path.stat().st_size < 25_000_000


def test_processor_gives_the_pixels_of_training(checkpoint: tuple[Any, Any]) -> None:
    """A scene of the model's size passes the processor exactly as training saw it."""
    _, processor = checkpoint
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
    made = processor.image_processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    assert torch.allclose(made, as_input(pixels[None]), atol=1e-5)


def test_answers_are_single_tokens(checkpoint: tuple[Any, Any]) -> None:
    """Yes and No are one token each, also right after the assistant's mark."""
    words = checkpoint[1].tokenizer
    for word in ("Yes", "No"):
        assert len(words(f"<|assistant|>{word}", add_special_tokens=False)["input_ids"]) == 2


def test_any_text_survives_the_tokenizer(checkpoint: tuple[Any, Any]) -> None:
    """Text in any script comes back from the tokenizer as it went in."""
    words = checkpoint[1].tokenizer
    text = "Größe 中文 🔫 «x» {}\n\tpistol W1: 57"
    assert words.decode(words(text, add_special_tokens=False)["input_ids"]) == text


def test_packed_questions_equal_separate_ones(checkpoint: tuple[Any, Any]) -> None:
    """Questions packed behind one picture get the log-odds of separate plain passes."""
    model, processor = checkpoint
    image = samples.picture(samples.SAMPLES[1]).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    asked = [question("a pistol"), question("a dog"), question("beer, wine or a cocktail")]
    pixels = processor.image_processor(image, return_tensors="pt")["pixel_values"]
    packer = Packer(processor.tokenizer)
    with torch.no_grad():
        features = model.model.vision_tower(pixels).last_hidden_state.flatten(2).transpose(1, 2)
        seen = model.model.multi_modal_projector.linear_1(features).sigmoid()[0, :, :OUTPUTS]
    content = prompt.prefix(images=1, caption="Hello").content
    items = [Item(text=prompt.suffix(each), answer=False, kind="") for each in asked]
    batch = collate([packer.row(content, items)], [Sight(outputs=seen.numpy(), shown=())], 0)
    yes, no = processor.tokenizer.convert_tokens_to_ids(["Yes", "No"])
    packed = answers_of(model, batch, yes, no)
    single = [log_odds(checkpoint, image, "Hello", each) for each in asked]
    assert np.allclose(packed, single, atol=2e-3)


def test_it_looks_at_the_picture(checkpoint: tuple[Any, Any]) -> None:
    """The same words about two pictures get answers that follow what is drawn."""
    by_name = {sample.name: samples.picture(sample) for sample in samples.SAMPLES}
    pairs = [
        ("a dog", "dog-and-ball", "slot-machine"),
        ("a slot machine", "slot-machine", "dog-and-ball"),
        ("beer", "beer-for-sale", "guitar"),
        ("a sword", "sword-in-museum", "garden"),
        ("a pill", "pill-lesson", "cigarette"),
    ]
    right = [
        log_odds(checkpoint, by_name[there], "", question(words))
        > log_odds(checkpoint, by_name[without], "", question(words))
        for words, there, without in pairs
    ]
    assert sum(right) >= len(pairs) - 1
