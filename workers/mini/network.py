"""The bundled model as transformers knows it, and how its parts are put together."""

from pathlib import Path

import torch
from transformers import (
    EfficientNetConfig,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from workers.mini.concepts import CONCEPTS, GROUPS, INDEX
from workers.mini.tower import FEATURES, OUTPUTS, TOWER, Seer, unfolded
from workers.mini.vocabulary import END, IMAGE, PAD, processor

#: Sizes of the language part.
LANGUAGE = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "initializer_range": 0.05,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
}


#: How the dense head's log-odds become image tokens: eased, so that doubts are seen as well.
EASE, LIFT = 0.7, 1.0

#: How many rows of the first two layers' queries and keys start as comparisons: two heads of 32.
COMPARING = 64


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
        image_seq_length=64,
        projector_hidden_act="sigmoid",
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        multimodal_projector_bias=True,
        tie_word_embeddings=True,
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
        named = [(each.words, vectors[index]) for index, each in enumerate(CONCEPTS)]
        for group in GROUPS:
            mean = vectors[[INDEX[name] for name in group.members]].sum(0)
            named.append((group.words, mean / mean.norm()))
        for spellings, vector in named:
            forms = [
                form
                for pair in spellings
                for one in pair
                for form in (f" {one}", f" {one.capitalize()}", one, one.capitalize())
            ]
            for form in dict.fromkeys(forms):
                ids = words(form, add_special_tokens=False)["input_ids"]
                share = 1.0 if len(ids) == 1 else 0.6
                table[ids[-1]] = (1 - share) * table[ids[-1]] + share * vector
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


def set_tower(model: FastVlmForConditionalGeneration, seer: Seer) -> None:
    """Put a trained tower and its dense head, as the projector's first layer, into the model."""
    model.model.vision_tower.load_state_dict(unfolded(seer).state_dict())
    first = model.model.multi_modal_projector.linear_1
    with torch.no_grad():
        first.weight[:OUTPUTS] = seer.head.weight
        first.bias[:OUTPUTS] = seer.head.bias
        first.weight[: len(CONCEPTS)] *= EASE
        first.bias[: len(CONCEPTS)] = first.bias[: len(CONCEPTS)] * EASE + LIFT


def save(
    model: FastVlmForConditionalGeneration, words: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write the checkpoint as transformers reads it, in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    half = FastVlmForConditionalGeneration(model.config)
    half.load_state_dict(model.state_dict())
    half.eval().half().save_pretrained(folder)
    processor(words).save_pretrained(folder)
