"""What differs between families of vision-language models when one image serves many questions.

A family that is not in the table is asked in tier C, which makes no assumption about its inside.
"""

from dataclasses import dataclass
from typing import Final, Literal

#: A: questions share the prefix's keys and values. B: they share what the vision tower saw.
#: C: every question is a whole sequence of its own, images included.
Tier = Literal["A", "B", "C"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How prompts of one model type may be shared.

    `positions`: plain counts tokens; grid takes three coordinates a token from the model's own
    `get_rope_index`; from_one counts from 1. `masks`: one for all layers, or one a layer type.
    `packs`: whether suffixes may stand in one row. `carries`: inputs with a row for each token,
    whose last row holds for every later token. `again`: inputs that later passes must be given
    again, with the field of the first pass's output that holds them. `ends_line`: the processor
    itself ends a prompt with a line break. `needs_image`: the processor refuses a prompt without
    one. `interleaved`: the processor takes images and text in one list and makes the marks itself.
    """

    tier: Tier
    positions: Literal["plain", "grid", "from_one"] = "plain"
    masks: Literal["one", "by_layer"] = "one"
    packs: bool = True
    carries: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    ends_line: bool = False
    needs_image: bool = False
    interleaved: bool = False


_PLAIN: Final = Family(tier="A")
_GRID: Final = Family(tier="A", positions="grid")

#: Model type -> family. Each entry is proven by tests/workers/engine/test_families.py.
FAMILIES: Final = {
    "fast_vlm": _PLAIN,  # the bundled model's
    "llava": _PLAIN,
    "llava_next": _PLAIN,
    "llava_onevision": _PLAIN,
    "internvl": _PLAIN,
    "idefics2": _PLAIN,
    "idefics3": _PLAIN,
    "smolvlm": _PLAIN,
    "qwen2_vl": _GRID,
    "qwen2_5_vl": _GRID,
    "qwen3_vl": _GRID,
    # Images attend in both directions, but only inside the prefix; some layers see a window.
    "gemma3": Family(tier="A", masks="by_layer"),
    # The question is part of what attends in both directions: only the image features are shared.
    "paligemma": Family(tier="B", positions="from_one", ends_line=True, needs_image=True),
    # Images enter by cross-attention. Mllama keeps their keys in the cache, Idefics does not.
    "mllama": Family(tier="A", packs=False, carries=("cross_attention_mask",)),
    "idefics": Family(
        tier="A",
        packs=False,
        carries=("image_attention_mask",),
        again=("image_encoder_embeddings",),
        interleaved=True,
    ),
    # Text models, for uploads without media and as a first pass on captions.
    "llama": _PLAIN,
    "mistral": _PLAIN,
    "qwen2": _PLAIN,
    "qwen3": _PLAIN,
    "gemma3_text": Family(tier="A", masks="by_layer"),
}

UNKNOWN: Final = Family(tier="C")
