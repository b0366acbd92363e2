"""The bundled model as transformers knows it, and how its parts are put together."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    EfficientNetConfig,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from workers.mini.concepts import CONCEPTS, GROUPS, INDEX, Concept, Group
from workers.mini.scenes import CELLS
from workers.mini.tower import FEATURES, OUTPUTS, TOWER, Seer, folded, unfolded
from workers.mini.vocabulary import END, IMAGE, PAD, processor

#: Sizes of the language part. Half of each head turns with the position as in a head of 32 with a base of 100,000;
#: the other half hardly turns at all, so that words and what is seen are compared wherever they stand.
LANGUAGE = {
    "hidden_size": 128,
    "intermediate_size": 704,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "initializer_range": 0.05,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e10},
}


#: How the dense head's log-odds become image tokens: eased, so that doubts are seen as well.
EASE, LIFT = 0.7, 1.0

#: How many rows of the first two layers' queries and keys start as comparisons: two heads.
COMPARING = 128

#: How long the vectors of new concepts are in a model that goes on from an earlier one: about as long as learned ones.
LOUD = 1.5


def build(words: PreTrainedTokenizerFast) -> FastVlmForConditionalGeneration:
    """Return an untrained model for this tokenizer."""
    config = FastVlmConfig(
        vision_config=EfficientNetConfig(**TOWER, hidden_size=FEATURES),
        text_config=LlamaConfig(
            vocab_size=len(words),
            pad_token_id=words.convert_tokens_to_ids(PAD),
            bos_token_id=None,
            eos_token_id=words.convert_tokens_to_ids(END),
            **LANGUAGE,
        ),
        image_token_id=words.convert_tokens_to_ids(IMAGE),
        image_seq_length=CELLS**2,
        projector_hidden_act="sigmoid",
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        multimodal_projector_bias=True,
        tie_word_embeddings=True,
        id2label={index: concept.name for index, concept in enumerate(CONCEPTS)},
    )
    model = FastVlmForConditionalGeneration(config)
    lexicon(model, words)
    number_line(model, words)
    return model


def lexicon(model: FastVlmForConditionalGeneration, words: PreTrainedTokenizerFast) -> None:
    """Start with words that lie where the image tokens of what they name lie, so that looking is comparing.

    Only a start: everything here is trained afterwards.
    """
    size = LANGUAGE["hidden_size"]
    assert isinstance(size, int)  # noqa: S101 - for the type checker
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(len(CONCEPTS), size, generator=generator) / size**0.5
    table = model.get_input_embeddings().weight
    projector = model.model.multi_modal_projector
    with torch.no_grad():
        table.copy_(torch.randn(table.shape, generator=generator) * 0.8 / size**0.5)
        for index, each in enumerate(CONCEPTS):
            _call(table, words, each, vectors[index])
        for group in GROUPS:
            mean = vectors[[INDEX[name] for name in group.members]].sum(0)
            _call(table, words, group, mean / mean.norm())
        projector.linear_1.weight.zero_()
        projector.linear_1.bias.fill_(-20.0)
        there, picture = torch.randn(2, size, generator=generator) / size**0.5
        projector.linear_2.weight.normal_(0, 0.3 / size**0.5, generator=generator)
        projector.linear_2.weight[:, : len(CONCEPTS)] = vectors.T + 0.5 * there[:, None]
        projector.linear_2.bias.copy_(0.4 * picture)
        for layer in model.model.language_model.layers[:2]:
            attention = layer.self_attn
            attention.q_proj.weight[:COMPARING].normal_(0, 0.13, generator=generator)
            attention.k_proj.weight[:COMPARING] = attention.q_proj.weight[:COMPARING]


def _call(
    table: torch.Tensor,
    words: PreTrainedTokenizerFast,
    thing: Concept | Group,
    vector: torch.Tensor,
) -> None:
    """Put the words for a thing where this vector is; words of several tokens only in part."""
    forms = [
        form
        for pair in thing.words
        for one in pair
        for form in (f" {one}", f" {one.capitalize()}", one, one.capitalize())
    ]
    for form in dict.fromkeys(forms):
        ids = words(form, add_special_tokens=False)["input_ids"]
        share = 1.0 if len(ids) == 1 else 0.6
        table[ids[-1]] = (1 - share) * table[ids[-1]] + share * vector


def number_line(model: FastVlmForConditionalGeneration, words: PreTrainedTokenizerFast) -> None:
    """Start with numbers that lie in order, so that a place in the picture is a place on a line."""
    ids = words.convert_tokens_to_ids([str(number) for number in range(101)])
    size = LANGUAGE["hidden_size"]
    assert isinstance(size, int)  # noqa: S101 - for the type checker
    generator = torch.Generator().manual_seed(4)
    line = torch.linspace(0, 1, 101)[:, None] * torch.pi
    waves = torch.cat(
        [wave(line * turns) for turns in (1, 2, 4, 8) for wave in (torch.sin, torch.cos)], 1
    )
    kind = torch.randn(size, generator=generator)
    spread = waves @ torch.randn(waves.shape[1], size, generator=generator) / waves.shape[1] ** 0.5
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table[ids] = (0.5 * kind + spread) * table.norm(dim=1).mean() / size**0.5


def carry_over(
    model: FastVlmForConditionalGeneration,
    words: PreTrainedTokenizerFast,
    earlier: Path,
    meaning: Callable[[Sequence[str]], npt.NDArray[np.float32]],
) -> float:
    """Start the language part from an earlier checkpoint, which may be narrower and know fewer words and concepts.

    It then says what the earlier one said: what is new starts silent. Tokens that both know keep their vectors.
    Whole words that are new are put where their meaning lies, by a ridge regression from meanings to the vectors of
    known words; what is returned is its share of explained variance on words left out, or NaN where no word is new.
    `meaning` gives a vector for each of some words. Concepts that are new and their words start alike, in the
    numbers that the earlier model has not.

    Raises:
        ValueError: the checkpoint is larger than this model, or of another kind.

    """
    before = AutoModelForImageTextToText.from_pretrained(earlier, dtype=torch.float32)
    known = AutoProcessor.from_pretrained(earlier).tokenizer.get_vocab()
    table = model.get_input_embeddings().weight
    fresh = table.detach().clone()
    _take(model, before)
    old = before.get_input_embeddings().weight
    size = old.shape[1]
    ours = words.get_vocab()
    texts = {
        token: text[1:].lower()
        for token in {**ours, **known}
        if re.fullmatch("(?: )[A-Za-z]{3,}", text := words.convert_tokens_to_string([token]))
    }
    new = [token for token in texts if token not in known]
    with torch.no_grad():
        table[:, :size] = fresh[:, :size]
        table[:, size:] = 0
        for token, place in ours.items():
            if token in known:
                table[place, :size] = old[known[token]]
        seen = _known_outputs(before.config)
        for index, concept in enumerate(CONCEPTS):
            if index not in seen:
                vector = model.model.multi_modal_projector.linear_2.weight[:, index]
                vector *= LOUD / vector.norm().clamp(min=LOUD / 1e3)
                novel = torch.zeros_like(table)
                _call(novel, words, concept, vector)
                table[:, size:] += novel[:, size:]
        if not new:
            return float("nan")
        vectors = dict(zip(texts, meaning(list(texts.values())), strict=True))
        both = [token for token in texts if token in known and token in ours]
        there = np.stack([vectors[token] for token in both])
        placed_so_far = old[[known[token] for token in both]].numpy()
        fitted = RidgeCV(np.logspace(-2, 2, 9)).fit(there, placed_so_far)
        placed = fitted.predict(np.stack([vectors[token] for token in new]))
        table[[ours[token] for token in new], :size] = torch.from_numpy(placed).to(table)
    folds = KFold(5, shuffle=True, random_state=0)
    guessed = cross_val_predict(RidgeCV([fitted.alpha_]), there, placed_so_far, cv=folds)
    missed = ((placed_so_far - guessed) ** 2).sum()
    return float(1 - missed / ((placed_so_far - placed_so_far.mean(0)) ** 2).sum())


#: What writes into the states that all layers share: its new rows start silent.
_WRITERS = ("o_proj.weight", "down_proj.weight", "linear_2.weight", "linear_2.bias")


def _take(model: FastVlmForConditionalGeneration, before: FastVlmForConditionalGeneration) -> None:
    """Take what an earlier model has learned, but for its table of words and its eye."""
    mine, theirs = model.state_dict(), before.state_dict()
    places = _known_outputs(before.config)
    for name, old in theirs.items():
        if "vision_tower" in name or "linear_1" in name or "embed" in name or "lm_head" in name:
            continue
        if name not in mine or any(a > b for a, b in zip(old.shape, mine[name].shape, strict=True)):
            raise ValueError(f"the earlier checkpoint has other sizes than this model: {name}")
        made = mine[name].clone()
        if name.endswith("norm.weight"):
            # The norm is taken over more numbers, of which those that are new are zero.
            made[:] = old.mean()
            made[: len(old)] = old
            made *= (len(old) / len(made)) ** 0.5
        elif name.endswith("linear_2.weight"):
            made[: len(old)] = made[:, list(places)] = 0
            made[: len(old), list(places)] = old[:, list(places.values())]
        else:
            if name.endswith(_WRITERS):
                made.zero_()
            made[tuple(map(slice, old.shape))] = old
        mine[name] = made
    model.load_state_dict(mine)


def _known_outputs(config: FastVlmConfig) -> dict[int, int]:
    """Return for each output of the dense head that a checkpoint knows, too, where that has it: concepts, then a box.

    Raises:
        ValueError: its configuration names no concept that is known here.

    """
    labels = [config.id2label[place] for place in range(len(config.id2label))]
    places = {INDEX[name]: place for place, name in enumerate(labels) if name in INDEX}
    if not places:
        raise ValueError("the earlier checkpoint's id2label names no concept of concepts.py")
    return places | {len(CONCEPTS) + side: len(labels) + side for side in range(4)}


def set_tower(model: FastVlmForConditionalGeneration, seer: Seer) -> None:
    """Put a trained tower and its dense head, as the projector's first layer, into the model."""
    model.model.vision_tower.load_state_dict(unfolded(seer).state_dict())
    first = model.model.multi_modal_projector.linear_1
    with torch.no_grad():
        first.weight[:OUTPUTS] = seer.head.weight
        first.bias[:OUTPUTS] = seer.head.bias
        first.weight[: len(CONCEPTS)] *= EASE
        first.bias[: len(CONCEPTS)] = first.bias[: len(CONCEPTS)] * EASE + LIFT


def tower_of(checkpoint: Path) -> Seer:
    """Return a checkpoint's tower with its dense head as they are trained: what `set_tower` put into it.

    Concepts that the checkpoint does not know start from nothing.
    """
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
    seer, first = Seer(), model.model.multi_modal_projector.linear_1
    seer.tower.load_state_dict(folded(model.model.vision_tower).state_dict())
    with torch.no_grad():
        for place, before in _known_outputs(model.config).items():
            weight, bias = first.weight[before], first.bias[before]
            if place < len(CONCEPTS):
                weight, bias = weight / EASE, (bias - LIFT) / EASE
            seer.head.weight[place], seer.head.bias[place] = weight, bias
    return seer


def average(
    model: FastVlmForConditionalGeneration, words: PreTrainedTokenizerFast, checkpoint: Path
) -> None:
    """Give the model the mean of its own weights and a checkpoint's (https://arxiv.org/abs/2203.05482).

    Raises:
        ValueError: the checkpoint has other words, concepts or sizes than this model, so its numbers mean other things.

    """
    other = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    mine, theirs = model.state_dict(), other.state_dict()
    alike = {
        "words": AutoProcessor.from_pretrained(checkpoint).tokenizer.get_vocab()
        == words.get_vocab(),
        "concepts": other.config.id2label == model.config.id2label,
        "sizes": [part.shape for part in mine.values()] == [part.shape for part in theirs.values()],
    }
    if not all(alike.values()):
        differ = " and ".join(name for name, same in alike.items() if not same)
        raise ValueError(
            f"{checkpoint} has other {differ} than this model: their mean says nothing"
        )
    model.load_state_dict(
        {
            name: (part + theirs[name].to(part)) / 2 if part.is_floating_point() else part
            for name, part in mine.items()
        }
    )


def save(
    model: FastVlmForConditionalGeneration, words: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write the checkpoint as transformers reads it, in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    half = FastVlmForConditionalGeneration(model.config)
    half.load_state_dict(model.state_dict())
    half.eval().half().save_pretrained(folder)
    processor(words).save_pretrained(folder)
