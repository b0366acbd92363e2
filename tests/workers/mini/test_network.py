"""How the bundled model's parts are put together, and how training goes on from what ships."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    FastVlmForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from workers.mini import network
from workers.mini.scenes import CELLS, SIDE_PX
from workers.mini.tower import OUTPUTS, as_input

SHIPPED = Path(network.__file__).parent


def test_a_new_word_starts_where_its_meaning_lies_and_known_ones_keep_their_vectors() -> None:
    """A word that means what a learned one means starts near it, and no learned word moves."""
    words = PreTrainedTokenizerFast.from_pretrained(SHIPPED)
    before = AutoModelForImageTextToText.from_pretrained(SHIPPED, dtype=torch.float32)
    old = before.get_input_embeddings().weight.detach().numpy()
    known = words.get_vocab()
    words.add_tokens([" zebra"])

    def meaning(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        like = [known.get(f"Ġ{'horse' if text == 'zebra' else text}", 0) for text in texts]
        return np.asarray(old[like])

    model = network.build(words)
    explained = network.carry_over(model, words, SHIPPED, meaning)
    table = model.get_input_embeddings().weight.detach().numpy()
    np.testing.assert_array_equal(table[: len(old)], old)
    zebra, horse = table[words.convert_tokens_to_ids(" zebra")], old[known["Ġhorse"]]
    assert zebra @ horse / np.linalg.norm(zebra) / np.linalg.norm(horse) > 0.6
    assert explained > 0.5


def test_a_narrower_model_says_the_same_in_a_wider_one(tmp_path: Path) -> None:
    """What is new in a wider model starts silent, and concepts are known by name, wherever they stand."""
    words = PreTrainedTokenizerFast.from_pretrained(SHIPPED)
    config = network.build(words).config
    config.text_config.hidden_size, config.text_config.intermediate_size = 112, 96
    names = list(reversed(config.id2label.values()))
    config.id2label = dict(enumerate(names))
    torch.manual_seed(4)
    narrow = FastVlmForConditionalGeneration(config)
    with (
        torch.no_grad()
    ):  # what is no output of the dense head says nothing, as in every model of ours
        narrow.model.multi_modal_projector.linear_1.weight[OUTPUTS:] = 0
        narrow.model.multi_modal_projector.linear_1.bias[OUTPUTS:] = -20
    network.save(narrow, words, tmp_path)
    narrow = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32).eval()
    wide = network.build(words).eval()
    network.carry_over(wide, words, tmp_path, _no_new_words)
    network.set_tower(wide, network.tower_of(tmp_path))
    text = "Does this upload show a pistol?"
    ids = [words.convert_tokens_to_ids("<|image|>")] * CELLS**2 + words(text)["input_ids"]
    asked = {
        "input_ids": torch.tensor([ids]),
        "pixel_values": torch.rand(1, 3, SIDE_PX, SIDE_PX, generator=torch.manual_seed(5)),
    }
    with torch.no_grad():
        before, after = (model(**asked).logits for model in (narrow, wide))
    assert before.std() > 0.01
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


def _no_new_words(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    raise AssertionError(f"no word is new, but the meaning of {len(texts)} was asked for")


def test_training_does_not_go_on_from_a_model_of_other_sizes(tmp_path: Path) -> None:
    """A checkpoint whose layers do not fit is refused by name, instead of being taken over in part."""
    words = PreTrainedTokenizerFast.from_pretrained(SHIPPED)
    other = network.build(words)
    layer = other.model.language_model.layers[0].mlp
    layer.gate_proj = layer.up_proj = torch.nn.Linear(128, 1024, bias=False)
    layer.down_proj = torch.nn.Linear(1024, 128, bias=False)
    other.config.text_config.intermediate_size = 1024
    for each in other.model.language_model.layers[1:]:
        each.mlp = layer
    network.save(other, words, tmp_path)
    with pytest.raises(ValueError, match="other sizes than this model"):
        network.carry_over(
            network.build(words),
            words,
            tmp_path,
            lambda texts: np.zeros((len(texts), 1), np.float32),
        )


def test_the_tower_that_ships_says_the_same_when_it_is_trained_on() -> None:
    """What training goes on from sees exactly what the checkpoint sees."""
    seer = network.tower_of(SHIPPED).eval()
    model = AutoModelForImageTextToText.from_pretrained(SHIPPED, dtype=torch.float32).eval()
    pixels = np.random.default_rng(2).integers(0, 256, (2, SIDE_PX, SIDE_PX, 3), np.uint8)
    again = network.build(PreTrainedTokenizerFast.from_pretrained(SHIPPED)).eval()
    network.set_tower(again, seer)
    with torch.no_grad():
        features, same = (
            each.model.vision_tower(as_input(pixels)).last_hidden_state for each in (model, again)
        )
    head, kept = (each.model.multi_modal_projector.linear_1 for each in (model, again))
    torch.testing.assert_close(same, features, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(kept.weight[:OUTPUTS], head.weight[:OUTPUTS])
    torch.testing.assert_close(kept.bias[:OUTPUTS], head.bias[:OUTPUTS])


def test_a_mean_of_weights_lies_between_them() -> None:
    """Each weight is half of both; one that knows other words is refused, for its numbers mean other things."""
    words = PreTrainedTokenizerFast.from_pretrained(SHIPPED)
    shipped = AutoModelForImageTextToText.from_pretrained(SHIPPED, dtype=torch.float32)
    model = network.build(words)
    mine = {name: part.clone() for name, part in model.state_dict().items()}
    network.average(model, words, SHIPPED)
    for name, part in shipped.state_dict().items():
        if part.is_floating_point():
            torch.testing.assert_close(model.state_dict()[name], (mine[name] + part) / 2)
    words.add_tokens(["zzyzx"])
    with pytest.raises(ValueError, match="other words than"):
        network.average(model, words, SHIPPED)
