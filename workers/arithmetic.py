"""The floating-point operations that questions about one image cost a model, shared and apart.

A multiplication and an addition count as two. The output layer is left out: of it only two rows are needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

#: Peak TFLOP/s of dense 16-bit products, by what the device's name holds; the first that fits counts.
PEAKS: Final[Mapping[str, float]] = {
    "H200": 989,
    "H100 PCIe": 756,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
}


def peak_of(device: str) -> float | None:
    """Return the peak of a device in TFLOP/s, where it is known."""
    return next((peak for name, peak in PEAKS.items() if name in device), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """What one image, its prefix and its questions cost."""

    #: FLOPs of the vision tower for the image.
    tower: float
    #: Parameters of the language part that every token passes.
    parameters: int
    #: Of all layers together: heads times their width.
    attended: int
    #: Tokens of the prefix, those of the image among them.
    prefix: int

    @classmethod
    def of(cls, model: Any, *, patches: int, prefix: int) -> Self:
        """Return the arithmetic of a model for an image of so many patches."""
        decoder = model.get_decoder()
        text = decoder.config
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(
            tower=_tower(model, patches),
            parameters=sum(
                p.numel() for name, p in decoder.named_parameters() if "embed" not in name
            ),
            attended=text.num_hidden_layers * text.num_attention_heads * width,
            prefix=prefix,
        )

    def tokens(self, seen: Sequence[int]) -> float:
        """Return the cost of tokens, given how many each has before it."""
        return sum(2 * self.parameters + 4 * self.attended * (before + 0.5) for before in seen)

    @property
    def beginning(self) -> float:
        """The cost of what all questions share."""
        return self.tower + self.tokens(range(self.prefix))

    def asked(self, steps: Sequence[int]) -> float:
        """Return the cost of question tokens on a prefix that ran, given how many of its own each has before it."""
        return self.tokens([self.prefix + step for step in steps])

    def ideal(self, lengths: Sequence[int]) -> float:
        """Return how many times less it costs to ask these questions on one prefix than one by one."""
        own = sum(self.asked(range(length)) for length in lengths)
        return (len(lengths) * self.beginning + own) / (self.beginning + own)


def _tower(model: Any, patches: int) -> float:
    inner = model.base_model
    tower = getattr(inner, "vision_model", None) or getattr(inner, "vision_tower", None)
    tower = inner.visual if tower is None else tower
    vision = model.config.vision_config
    layers = getattr(vision, "num_hidden_layers", None) or vision.depth
    whole = set(getattr(vision, "fullatt_block_indexes", range(layers)))
    window = (getattr(vision, "window_size", 0) // vision.patch_size) ** 2
    seen = sum(patches if layer in whole else min(window, patches) for layer in range(layers))
    # What joins patches runs once for all that it joins.
    joined = getattr(vision, "spatial_merge_size", 1) ** 2
    parameters = sum(
        p.numel() / (joined if "merger" in name else 1) for name, p in tower.named_parameters()
    )
    return float(2 * parameters * patches + 4 * vision.hidden_size * patches * seen)
