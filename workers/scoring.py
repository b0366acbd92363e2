"""Many yes/no questions about one image for little more than the price of one.

The shared prefix (system text, image, caption) runs once an item and leaves its keys and values;
all questions run on them, with explicit positions and masks, and of the output layer only the rows
of Yes and No are computed. See `families` for which model may share what.
"""

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import getsource
from typing import Any, Final

import torch
from torch import Tensor

from workers.dialogue import Dialogue, pad
from workers.families import Family
from workers.lengths import Lengths, packed, padded, tokens_of
from workers.passes import Method, Passes, Row, Shared, complete

#: Tokens that one forward pass may hold, by kind of device.
BUDGETS: Final[Mapping[str, int]] = {"cpu": 8_192, "cuda": 65_536, "mps": 16_384}


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """The log-odds of Yes against No, and the probability that both had together, if computed."""

    score: float
    mass: float | None = None


#: A row and one of the questions about it, by their numbers.
_Pair = tuple[int, int]


class YesNo:
    """The two rows of the output layer that a decision needs."""

    def __init__(self, model: Any, yes: int, no: int, *, mass: bool) -> None:
        self._head = model.get_output_embeddings()
        rows = torch.tensor([yes, no], device=self._head.weight.device)
        self._rows = rows
        weight = self._head.weight
        self._weight = weight.detach()[rows].float() if weight.is_floating_point() else None
        bias = getattr(self._head, "bias", None)
        self._bias = None if bias is None else bias.detach()[rows].float()
        text = model.config.get_text_config()
        # Some configurations name these though the model's own forward does not heed them.
        own = getsource(type(model).forward)
        heeded = {name for name in ("final_logit_softcapping", "logits_scaling") if name in own}
        values = {name: getattr(text, name, None) for name in heeded}
        self._cap: float | None = values.get("final_logit_softcapping")
        self._divide: float = values.get("logits_scaling") or 1.0
        self._mass = mass

    def __call__(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the log-odds for each last hidden state, and the mass where it is wanted."""
        pair = self._pair(hidden)
        return pair[..., 0] - pair[..., 1], self._share(hidden) if self._mass else None

    def _pair(self, hidden: Tensor) -> Tensor:
        if self._weight is None:
            return self._logits(hidden)[..., self._rows]
        # Also where the mass is wanted: the layer itself would round the pair to the bits of its weights.
        pair = torch.nn.functional.linear(hidden.float(), self._weight, self._bias)
        return self.settle(pair)

    def _share(self, hidden: Tensor) -> Tensor:
        logits = self._logits(hidden)
        return (logits[..., self._rows].logsumexp(-1) - logits.logsumexp(-1)).exp()

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.settle(self._head(hidden).float())

    def settle(self, logits: Tensor) -> Tensor:
        """Return the logits scaled and capped as the model itself does after its output layer."""
        logits = logits / self._divide
        return logits if self._cap is None else torch.tanh(logits / self._cap) * self._cap


class Scorer:
    """Scores questions on a loaded model; safe to call from several threads, one at a time."""

    def __init__(
        self,
        model: Any,
        dialogue: Dialogue,
        family: Family,
        *,
        budget: int | None = None,
        method: Method | None = None,
        mass: bool = False,
    ) -> None:
        self.model = model
        self.dialogue = dialogue
        self.family = family
        self.device: torch.device = model.device
        self.budget = budget or BUDGETS.get(self.device.type, 8_192)
        self.passes = Passes(model, dialogue, family)
        self.answer = YesNo(model, dialogue.yes, dialogue.no, mass=mass)
        #: Whether what prefixes left is kept for reasons.
        self.keeps = False
        self._method = method
        self._fastest: dict[tuple[int, ...], Method] = {}
        self._lengths = Lengths()
        self._lock = threading.Lock()

    def score(self, rows: Sequence[Row], asks: Sequence[str]) -> list[list[Odds]]:
        """Return, for each row, the odds of the questions that are asked about it, in order."""
        rows = [complete(row, self.family) for row in rows]
        out: list[list[Odds]] = [[] for _ in rows]
        with self._lock, torch.inference_mode():
            for numbers in self._batches(rows, asks):
                batch = [rows[number] for number in numbers]
                texts = [asks[ask] for ask in batch[0].asked]
                for number, odds in zip(numbers, self._score(batch, texts), strict=True):
                    out[number] = odds
        return out

    # --- batches -----------------------------------------------------------------------------

    def _batches(self, rows: Sequence[Row], asks: Sequence[str]) -> Iterator[list[int]]:
        """Yield rows that are asked the same, of similar length, within the budget.

        Lengths are looked up as late as may be: the batch before may have taught them.
        """
        groups: dict[Hashable, list[int]] = {}
        for number, row in enumerate(rows):
            if row.asked:
                groups.setdefault((self._kind(row), row.asked), []).append(number)
        for numbers in groups.values():
            questions = sum(tokens_of(asks[ask]) for ask in rows[numbers[0]].asked)
            batch: list[int] = []
            longest = 0
            for number in sorted(numbers, key=lambda n: self._lengths.order(rows[n])):
                row = rows[number]
                longest = max(longest, self._lengths.of(row))
                full = (len(batch) + 1) * (longest + questions) > self.budget
                if batch and (full or not self._lengths.known(row)):
                    yield batch
                    batch, longest = [], self._lengths.of(row)
                batch.append(number)
                if not self._lengths.known(row):  # it goes alone, and tells what it takes
                    yield batch
                    batch, longest = [], 0
            if batch:
                yield batch

    def _kind(self, row: Row) -> Hashable:
        """Return what rows of one batch must have alike."""
        if row.image is None:
            return False
        # Who knows how a model outside the table pads pictures of different sizes.
        return row.image.size if self.family.tier == "C" else True

    def _score(self, rows: Sequence[Row], asks: Sequence[str]) -> list[list[Odds]]:
        if self.family.tier == "C":
            return self._separate(rows, asks)
        images = rows[0].shared.images
        suffixes = [self.dialogue.suffix(ask, images=images) for ask in asks]
        if self.family.tier == "B":
            return self._on_features(rows, suffixes)
        shared = self.passes.prefix(rows)
        self._learn(rows, shared.valid)
        parts = [self.answer(hidden) for hidden in self._hidden(shared, suffixes)]
        odds = _odds(
            torch.cat([score for score, _ in parts], dim=1),
            None if parts[0][1] is None else torch.cat([m for _, m in parts if m is not None], 1),
        )
        # What is answered with Yes may have to be explained, and its evidence asked back.
        for number, row in enumerate(rows):
            if self.keeps and any(one.score > 0 for one in odds[number]):
                self.passes.kept.keep(row, shared, number)
        return odds

    def _learn(self, rows: Sequence[Row], valid: Tensor) -> None:
        for row, tokens in zip(rows, valid.sum(1).tolist(), strict=True):
            self._lengths.learn(row, tokens)

    # --- tier A ------------------------------------------------------------------------------

    def _hidden(self, shared: Shared, suffixes: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Run the suffixes in portions within the budget, in the way that is fastest for each."""
        rows, prefix = shared.valid.shape
        lengths = [len(suffix) for suffix in suffixes]
        for part in packed(lengths, self.budget // rows - prefix):
            chosen = suffixes[part]
            method = self._way(shared, chosen)
            if method != "expanded":
                yield self.passes.hidden(shared, chosen, method)
                continue
            # Each question has a copy of the prefix there.
            for few in padded([prefix + length for length in lengths[part]], self.budget // rows):
                yield self.passes.hidden(shared, chosen[few], method)

    def _way(self, shared: Shared, suffixes: Sequence[Sequence[int]]) -> Method:
        """Return the way that was fastest for such a shape on this device."""
        if not self.family.packs or len(suffixes) == 1:
            return "expanded"
        if self._method is not None:
            return self._method
        # How many uploads there are side by side hardly changes which way is fastest.
        sizes = (shared.valid.shape[1], len(suffixes), sum(map(len, suffixes)))
        shape = tuple(size.bit_length() for size in sizes)
        if shape not in self._fastest:
            self._fastest[shape] = self._measure(shared, suffixes)
        return self._fastest[shape]

    def _measure(self, shared: Shared, suffixes: Sequence[Sequence[int]]) -> Method:
        methods: list[Method] = ["packed"]
        if self.passes.splits:
            methods += ["split", "branched"]
        rows, prefix = shared.valid.shape
        if rows * len(suffixes) * (prefix + max(map(len, suffixes))) <= self.budget:
            methods.append("expanded")
        took: dict[Method, float] = {}
        for method in methods * 2:  # the first time of each is its warm-up
            self._finish()
            began = time.perf_counter()
            self.passes.hidden(shared, suffixes, method)
            self._finish()
            took[method] = time.perf_counter() - began
        return min(took, key=lambda method: took[method])

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    # --- tiers B and C -----------------------------------------------------------------------

    def _on_features(
        self, rows: Sequence[Row], suffixes: Sequence[Sequence[int]]
    ) -> list[list[Odds]]:
        """Encode each image once, then run every question as a whole sequence on its features."""
        inputs = self.passes.inputs([self.dialogue.prefix(row.shared) for row in rows], rows)
        features = self.passes.base.get_image_features(inputs["pixel_values"])
        valid = inputs["attention_mask"].bool()
        self._learn(rows, valid)
        heads = [ids[real].tolist() for ids, real in zip(inputs["input_ids"], valid, strict=True)]

        def run(pairs: Sequence[_Pair]) -> list[Odds]:
            made = self._padded([[*heads[row], *suffixes[ask]] for row, ask in pairs])
            ids = made.pop("input_ids")
            here = ids == self.model.config.image_token_id
            # The mark of an image may lie past the end of the vocabulary.
            known = self.passes.base.get_input_embeddings()(ids.masked_fill(here, 0))
            looks = features.pooler_output[[row for row, _ in pairs]].to(known)
            seen = self.passes.base(
                **made,
                inputs_embeds=known.masked_scatter(here[..., None].expand_as(known), looks),
                token_type_ids=torch.zeros_like(ids),
            )
            ends = made["attention_mask"].sum(1) - 1
            states = seen.last_hidden_state[torch.arange(len(pairs)), ends]
            score, mass = self.answer(states[None])
            return _odds(score, mass)[0]

        lengths = {
            (row, ask): len(head) + len(suffix)
            for row, head in enumerate(heads)
            for ask, suffix in enumerate(suffixes)
        }
        return self._by_length(lengths, run)

    def _padded(self, whole: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        lengths = torch.tensor([len(ids) for ids in whole], device=self.device)
        ids = torch.tensor(pad(whole, self.dialogue.tokenizer.pad_token_id), device=self.device)
        step = torch.arange(ids.shape[1], device=self.device)
        valid = step < lengths[:, None]
        positions, _ = self.passes.positions({}, valid)
        return {"input_ids": ids, "attention_mask": valid.long(), "position_ids": positions}

    def _separate(self, rows: Sequence[Row], asks: Sequence[str]) -> list[list[Odds]]:
        """Run every question as a whole prompt of its own, through the model's own forward."""

        def run(pairs: Sequence[_Pair]) -> list[Odds]:
            asked = [rows[row] for row, _ in pairs]
            texts = [self.dialogue.whole(rows[row].shared, asks[ask]) for row, ask in pairs]
            inputs = self.passes.inputs(texts, asked)
            tokens = inputs["attention_mask"].sum(1).tolist()
            for (row, ask), length in zip(pairs, tokens, strict=True):
                self._lengths.learn(rows[row], length, ask=asks[ask])
            score, mass = self._through(inputs)
            return _odds(score[None], mass[None])[0]

        lengths = {
            (number, place): self._lengths.of(row) + tokens_of(ask)
            for number, row in enumerate(rows)
            for place, ask in enumerate(asks)
        }
        return self._by_length(lengths, run)

    def _by_length(
        self, lengths: Mapping[_Pair, int], run: Callable[[Sequence[_Pair]], list[Odds]]
    ) -> list[list[Odds]]:
        """Run every question about every row, those of similar length together, and put them in order."""
        pairs = sorted(lengths, key=lambda pair: -lengths[pair])
        found: dict[_Pair, Odds] = {}
        for part in padded([lengths[pair] for pair in pairs], self.budget):
            found |= zip(pairs[part], run(pairs[part]), strict=True)
        out: list[list[Odds]] = [[] for _ in {row for row, _ in lengths}]
        for row, ask in sorted(found):
            out[row].append(found[row, ask])
        return out

    def chosen(self, questions: int) -> str:
        """Return the way of sharing that was fastest for about so many questions, for reports."""
        for shape, method in self._fastest.items():
            if shape[1] == questions.bit_length():
                return method
        return self._method or "expanded"

    def whole(self, rows: Sequence[Row], texts: Sequence[str]) -> list[Odds]:
        """Return the odds of whole prompts, nothing shared: what every sharing is held against."""
        score, mass = self.whole_scores(rows, texts)
        return _odds(score[None], mass[None])[0]

    def whole_scores(self, rows: Sequence[Row], texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the log-odds and the mass of whole prompts, through the model's own forward; what tuning learns by."""
        return self._through(self.passes.inputs(texts, rows))

    def _through(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        ends = inputs["attention_mask"].sum(1) - 1
        kept, places = torch.unique(ends, return_inverse=True)
        logits = self.model(**inputs, logits_to_keep=kept).logits.float()
        logits = logits[torch.arange(len(ends)), places if logits.shape[1] == len(kept) else ends]
        pair = logits[:, [self.dialogue.yes, self.dialogue.no]]
        mass = (pair.logsumexp(-1) - logits.logsumexp(-1)).exp()
        return pair[:, 0] - pair[:, 1], mass


def _odds(score: Tensor, mass: Tensor | None) -> list[list[Odds]]:
    scores: list[list[float]] = score.tolist()
    if mass is None:
        return [[Odds(score=one) for one in row] for row in scores]
    masses: list[list[float]] = mass.tolist()
    return [
        [Odds(score=s, mass=m) for s, m in zip(row, beside, strict=True)]
        for row, beside in zip(scores, masses, strict=True)
    ]
