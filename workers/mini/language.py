"""Second stage: the language part learns to answer, first with a perfect eye, then with the tower's."""

import json
import multiprocessing
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import Progress
from scipy.special import logit, logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional
from transformers import FastVlmForConditionalGeneration, PreTrainedTokenizerFast

from workers import prompt
from workers.mini.concepts import CONCEPTS
from workers.mini.lessons import KINDS, Belief, Item, Said, Teacher, concerned
from workers.mini.network import EASE, LANGUAGE, LIFT
from workers.mini.scenes import CELLS, Shown
from workers.mini.tower import OUTPUTS
from workers.mini.vocabulary import ASSISTANT, END, IMAGE, USER, used

#: Share of uploads that are nothing but a caption.
WORDS_ALONE = 0.2

#: How often a plain question's thing is shown: less than half, as most policies are about what most uploads are not.
PRESENT = 0.42

#: How often text in the image has slips of OCR, and how often a line tries to steer.
MISREAD, STEERED = 0.4, 0.12

#: Kinds of questions by length, and how many of them share one picture in training: rows of one length waste nothing.
SHORT, LONG = ("plain", "inverted", "caption", "act", "together"), ("carve-out", "many", "theme")
#: What broken policies are explained: a step of its own, so that reasons are learned from many at once.
WHY = ("many", "many", "theme", "plain")
QUESTIONS = {SHORT: 8, LONG: 4, WHY: 4}

#: How often a training step has short questions, and how often reasons alone where a plan asks for them.
SHORTS = 0.55

#: How much each part of a reason counts: most of its tokens are the same in every reason and teach nothing.
REPLY_WEIGHTS = {"clause": 6.0, "text": 3.0, "box": 1.5, "": 0.2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the projector's first layer says of one picture, and what is really there."""

    outputs: npt.NDArray[np.float32]
    shown: tuple[Shown, ...]
    imagined: bool = False

    @property
    def evidence(self) -> npt.NDArray[np.float64]:
        """Return the log-odds of each concept's presence by the dense head: the sum of its odds over all cells."""
        chance = np.clip(self.outputs[:, : len(CONCEPTS)].astype(np.float64), 1e-6, 1 - 1e-6)
        found: npt.NDArray[np.float64] = logsumexp((logit(chance) - LIFT) / EASE, axis=0)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguagePlan:
    """How long, how and on what the language part is trained.

    `seen` and `checked` are files of sights to learn from and to follow the training by; without
    them sights are imagined. `imagine` is the share that is imagined all the same; `reasons` the share of steps that
    ask for nothing but reasons.
    """

    name: str
    steps: int
    uploads: int = 8
    rate: float = 2e-3
    decay_from: float = 0.7
    seed: int = 11
    seen: Path | None = None
    checked: Path | None = None
    imagine: float = 1.0
    explain: float = 0.2
    reasons: float = 0.0
    weights: Mapping[str, float] = field(
        default_factory=lambda: {"answer": 1.0, "reply": 0.25, "noun": 0.7, "clause": 0.7}
    )

    def rate_at(self, step: int) -> float:
        """Return the learning rate: a short rise, level, then down to nearly nothing."""
        left = (1 - step / self.steps) / (1 - self.decay_from)
        return self.rate * min(1.0, step / 60, max(0.02, left))


class Probes(nn.Module):
    """Heads for training alone: is the thing that these words name shown or named; does this clause hold?"""

    #: After which layers they look.
    NOUN_LAYER, CLAUSE_LAYER = 2, 4

    def __init__(self) -> None:
        super().__init__()
        size = LANGUAGE["hidden_size"]
        assert isinstance(size, int)  # noqa: S101 - for the type checker
        self.noun = nn.Linear(size, 2)
        self.clause = nn.Linear(size, 1)


def imagined(rng: np.random.Generator) -> Sight:
    """Return what a good but not perfect eye would say of a scene that nobody drew."""
    count = int(rng.choice([1, 2, 3, 4, 5], p=[0.1, 0.25, 0.3, 0.2, 0.15]))
    concepts = rng.choice(len(CONCEPTS), size=count, replace=False)
    logits = rng.normal(-7.5, 1.2, (CELLS, CELLS, len(CONCEPTS))).astype(np.float32)
    boxes = rng.uniform(0.2, 0.8, (CELLS, CELLS, 4)).astype(np.float32)
    shown = []
    for concept in concepts.tolist():
        size = rng.uniform(0.18, 0.5, 2)
        corner = rng.uniform(0, 1 - size)
        box = (*corner.tolist(), *(corner + size).tolist())
        x0, y0, x1, y1 = (int(CELLS * edge) for edge in box)
        rows, columns = slice(y0, max(y1, y0 + 1)), slice(x0, max(x1, x0 + 1))
        patch = logits[rows, columns]
        strength = rng.normal(3.0, 1.5)
        patch[..., concept] = strength + rng.normal(0, 1.2, patch.shape[:2])
        if rng.random() < 0.3:  # something else that it could be
            patch[..., int(rng.integers(len(CONCEPTS)))] += rng.uniform(2, 6)
        boxes[rows, columns] = np.array(box) + rng.normal(0, 0.03, (*patch.shape[:2], 4))
        shown.append(Shown(concept=concept, box=box))
    outputs = np.concatenate([1 / (1 + np.exp(-logits)), np.clip(boxes, 0, 1)], axis=2)
    made = outputs.reshape(CELLS**2, OUTPUTS).astype(np.float32)
    return Sight(outputs=eased(made), shown=tuple(shown), imagined=True)


def eased(
    outputs: npt.NDArray[np.float32],
    *,
    gain: float = 1.0,
    lift: float | npt.NDArray[np.float64] = 0.0,
) -> npt.NDArray[np.float32]:
    """Return the dense head's probabilities as image tokens are made of them: doubts count too.

    `gain` and `lift` change its log-odds before, as another drawing style would.
    """
    count = len(CONCEPTS)
    chance = np.clip(outputs[..., :count], 1e-6, 1 - 1e-6)
    odds = (np.log(chance) - np.log1p(-chance)) * gain + lift
    soft = 1 / (1 + np.exp(-(EASE * odds + LIFT)))
    return np.concatenate([soft, outputs[..., count:]], axis=-1).astype(np.float32)


# ---- one packed row an upload


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One upload's tokens with all its questions behind them, and where the model is taught."""

    ids: list[int]
    positions: list[int]
    segments: list[int]
    answers: list[tuple[int, float]]
    nouns: list[tuple[int, float, float]]
    clauses: list[tuple[int, float]]
    replies: list[tuple[int, int, float]]


class Packer:
    """Turns uploads and questions into rows of tokens."""

    def __init__(self, words: PreTrainedTokenizerFast) -> None:
        self.words = words
        self._user, self._assistant, self._end, self._image = words.convert_tokens_to_ids(
            [USER, ASSISTANT, END, IMAGE]
        )

    def prefix(self, content: str, *, images: int = 1) -> list[int]:
        """Return the tokens of the shared part, up to its line break."""
        system = self.words(f"{prompt.SYSTEM}\n", add_special_tokens=False)["input_ids"]
        rest = self.words(f"{content}\n", add_special_tokens=False)["input_ids"]
        return [self._user, *system, *[self._image] * (CELLS**2 * images), *rest]

    def row(self, content: str, items: Sequence[Item], *, images: int = 1) -> Row:
        """Return one upload with its questions."""
        ids = self.prefix(content, images=images)
        start = len(ids)
        made = Row(
            ids=ids,
            positions=list(range(start)),
            segments=[0] * start,
            answers=[],
            nouns=[],
            clauses=[],
            replies=[],
        )
        coded = self.words(
            [item.text for item in items], add_special_tokens=False, return_offsets_mapping=True
        )
        for number, item in enumerate(items, 1):
            tokens, offsets = coded["input_ids"][number - 1], coded["offset_mapping"][number - 1]
            ends = np.array([end for _, end in offsets])
            base = len(made.ids)
            for end, shown, named in item.nouns:
                made.nouns.append((base + int(np.searchsorted(ends, end)), shown, named))
            for end, held in item.clauses:
                made.clauses.append((base + int(np.searchsorted(ends, end)), held))
            whole = [*tokens, self._assistant]
            if item.reply:
                coded_reply = self.words(
                    item.reply, add_special_tokens=False, return_offsets_mapping=True
                )
                reply = [*coded_reply["input_ids"], self._end]
                counts = [*weights(item.reply, coded_reply["offset_mapping"]), REPLY_WEIGHTS[""]]
                made.replies.extend(
                    (base + len(whole) - 1 + place, token, count)
                    for place, (token, count) in enumerate(zip(reply, counts, strict=True))
                )
                whole += reply[:-1]
            else:
                made.answers.append((base + len(whole) - 1, item.answer))
            made.ids.extend(whole)
            made.positions.extend(range(start, start + len(whole)))
            made.segments.extend([number] * len(whole))
        return made


def weights(reply: str, offsets: Sequence[tuple[int, int]]) -> list[float]:
    """Return how much each token of a reason counts in training, by the part that it belongs to."""
    parts = re.fullmatch(
        r'\{"clause":"(?P<clause>[^"]*)","text":"(?:Shows )?(?P<text>.*)","media":0,"box":(?P<box>.*)\}',
        reply,
    )
    if parts is None:
        return [1.0] * len(offsets)
    spans = {name: parts.span(name) for name in ("clause", "text", "box")}
    return [
        REPLY_WEIGHTS[next((name for name, (a, b) in spans.items() if start < b and end > a), "")]
        for start, end in offsets
    ]


def lesson(
    teacher: Teacher,
    packer: Packer,
    sight: Sight | None,
    among: tuple[str, ...],
    *,
    explain: float = 0.2,
    believing: "Believing | None" = None,
) -> Row:
    """Return one upload, with or without an image, with a new caption and new questions about it.

    With `believing` what is taught is what can be believed by what is seen and said, instead of what is true.
    """
    things = sight.shown if sight is not None else ()
    said = teacher.words(frozenset(thing.concept for thing in things), seen=sight is not None)
    belief = None
    if believing is not None and sight is not None:
        belief = believing.of(sight, said)
    items = []
    for kind in teacher.kinds(said.upload, QUESTIONS[among], among):
        asked = teacher.ask(said.upload, kind)
        for _ in range(8 if among == WHY else 0):
            if asked.broken(said.upload):
                break
            asked = teacher.ask(said.upload, kind)
        why = bool(asked.broken(said.upload)) and (among == WHY or teacher.rng.random() < explain)
        items.append(teacher.item(asked, said, things, explain=why, belief=belief))
    images = int(sight is not None)
    content = prompt.prefix(
        images=images, caption=said.caption, text_in_image=said.text_in_image
    ).content
    return packer.row(content, items, images=images)


#: Rows of tokens are filled up to a multiple of this.
WIDTHS = 32

#: From which log-odds on evidence counts more: below, things are mostly missed as a whole.
MISSED = -2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Believing:
    """How what is seen and said becomes a belief: a logistic regression of the truth of things that are asked about.

    `evidence` weighs the dense head's log-odds, `found` how far they are above `MISSED`, `named` whether the caption
    names the thing, `others` whether it names anything, `breadth` the logarithm of how many things a question is
    about; `habits` are offsets for each kind of question.
    """

    evidence: float
    found: float
    named: float
    others: float
    breadth: float
    habits: Mapping[str, float]

    def of(self, sight: Sight, said: Said) -> Belief:
        """Return the belief of one who sees and reads this."""
        seen, names = sight.evidence, sorted(said.upload.names)
        odds = self.evidence * seen + self.found * np.maximum(seen - MISSED, 0)
        odds += self.others * bool(names)
        odds[names] += self.named
        return Belief(odds=odds, breadth=self.breadth, habits=self.habits)


def fitted(
    plan: LanguagePlan, seen: "Sights | None", *, imagine: float, uploads: int = 1_500
) -> Believing:
    """Return how to believe sights like those that this plan teaches with, real ones or imagined ones."""
    rng = np.random.default_rng((plan.seed, 2**31))
    teacher = Teacher(rng, present=PRESENT)
    known: list[list[float]] = []
    truth: list[bool] = []
    for _ in range(uploads):
        sight = _sight(rng, seen, imagine)
        evidence = sight.evidence
        said = teacher.words(frozenset(thing.concept for thing in sight.shown))
        names = said.upload.names
        for kind in teacher.kinds(said.upload, 6):
            among = sorted(concerned(teacher.ask(said.upload, kind)))
            habit = [float(kind == each) for each in KINDS]
            for one in among:
                found = max(evidence[one] - MISSED, 0.0)
                said_so = [float(one in names), float(bool(names))]
                known.append([evidence[one], found, *said_so, np.log(len(among)), *habit])
                truth.append(one in said.upload.shown)
    learned = LogisticRegression(C=1e3, max_iter=500, fit_intercept=False)
    weighed = learned.fit(np.array(known), truth).coef_[0].tolist()
    named = ("evidence", "found", "named", "others", "breadth")
    return Believing(
        **dict(zip(named, weighed[: len(named)], strict=True)),
        habits=dict(zip(KINDS, weighed[len(named) :], strict=True)),
    )


def collate(
    rows: Sequence[Row], sights: Sequence[Sight | None], pad: int
) -> dict[str, torch.Tensor]:
    """Return a batch: tokens, positions, segments, image outputs, and the flat places where it is taught."""
    outputs = [sight.outputs for sight in sights if sight is not None]
    # Few different widths: each new one costs the processor's library a plan of its own.
    width = -(-max(len(row.ids) for row in rows) // WIDTHS) * WIDTHS

    def filled(values: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
        return torch.tensor([[*value, *[fill] * (width - len(value))] for value in values])

    def flat(part: str) -> npt.NDArray[np.float64]:
        found = [
            (number * width + place[0], *place[1:])
            for number, row in enumerate(rows)
            for place in getattr(row, part)
        ]
        size = {"nouns": 3, "replies": 3}.get(part, 2)
        return np.array(found, np.float64).reshape(-1, size)

    return {
        "ids": filled([row.ids for row in rows], pad),
        "positions": filled([row.positions for row in rows], 0),
        "segments": filled([row.segments for row in rows], -1),
        "outputs": torch.from_numpy(
            np.stack(outputs) if outputs else np.zeros((0, CELLS**2, OUTPUTS), np.float32)
        ),
        **{
            part: torch.from_numpy(flat(part))
            for part in ("answers", "nouns", "clauses", "replies")
        },
    }


def _teach(
    queue: "multiprocessing.Queue[dict[str, Any]]",
    words: PreTrainedTokenizerFast,
    plan: LanguagePlan,
    start: int,
) -> None:
    torch.set_num_threads(1)
    packer = Packer(words)
    seen = Sights.load(plan.seen) if plan.seen else None
    real, imaginary = (fitted(plan, seen, imagine=share) for share in (0.0, 1.0))
    for number in range(start, plan.steps):
        rng = np.random.default_rng((plan.seed, number))
        teacher = Teacher(rng, present=PRESENT, misread=MISREAD, steer=STEERED)
        sights = [
            None if rng.random() < WORDS_ALONE else _sight(rng, seen, plan.imagine)
            for _ in range(plan.uploads)
        ]
        among: tuple[str, ...] = SHORT if rng.random() < SHORTS else LONG
        if rng.random() < plan.reasons:
            among = WHY
        rows = [
            lesson(
                teacher,
                packer,
                sight,
                among,
                explain=plan.explain,
                believing=imaginary if sight is None or sight.imagined else real,
            )
            for sight in sights
        ]
        batch = collate(rows, sights, words.pad_token_id)
        queue.put({key: value.numpy() for key, value in batch.items()})


def _sight(rng: np.random.Generator, seen: "Sights | None", imagine: float) -> Sight:
    if seen is None or rng.random() < imagine:
        return imagined(rng)
    raw = seen.raw(int(rng.integers(len(seen))))
    lift = rng.uniform(-0.6, 0.6) + rng.normal(0, 0.3, len(CONCEPTS))
    outputs = eased(raw.outputs, gain=rng.uniform(0.75, 1.1), lift=lift)
    return Sight(outputs=outputs, shown=raw.shown)


def lessons(
    words: PreTrainedTokenizerFast, plan: LanguagePlan, start: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches that a child process composes, the same ones for the same plan."""
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[dict[str, Any]] = context.Queue(8)
    child = context.Process(target=_teach, args=(queue, words, plan, start), daemon=True)
    child.start()
    try:
        for _ in range(start, plan.steps):
            yield {key: torch.from_numpy(value) for key, value in queue.get().items()}
    finally:
        child.terminate()


class Sights:
    """What the tower said of many composed scenes, kept on disk so that it need not say it again."""

    def __init__(self, outputs: npt.NDArray[np.float16], shown: list[tuple[Shown, ...]]) -> None:
        self._outputs = outputs
        self._shown = shown

    def __len__(self) -> int:
        return len(self._shown)

    def __getitem__(self, index: int) -> Sight:
        raw = self.raw(index)
        return Sight(outputs=eased(raw.outputs), shown=raw.shown)

    def raw(self, index: int) -> Sight:
        """Return a sight with the dense head's own probabilities."""
        return Sight(outputs=self._outputs[index].astype(np.float32), shown=self._shown[index])

    def save(self, path: Path) -> None:
        """Write what was seen."""
        things = [
            (index, thing.concept, *thing.box)
            for index, shown in enumerate(self._shown)
            for thing in shown
        ]
        np.savez(path, outputs=self._outputs, things=np.array(things, np.float64))

    @classmethod
    def load(cls, path: Path) -> "Sights":
        """Read what was seen."""
        with np.load(path) as kept:
            outputs, things = kept["outputs"], kept["things"]
        shown: list[list[Shown]] = [[] for _ in range(len(outputs))]
        for index, concept, x0, y0, x1, y1 in things.tolist():
            shown[int(index)].append(Shown(concept=int(concept), box=(x0, y0, x1, y1)))
        return cls(outputs, [tuple(each) for each in shown])


# ---- the forward pass


def embedded(
    model: FastVlmForConditionalGeneration, ids: torch.Tensor, outputs: torch.Tensor
) -> torch.Tensor:
    """Return token embeddings with the image's tokens in their places."""
    projector = model.model.multi_modal_projector
    padded = functional.pad(outputs, (0, projector.linear_2.in_features - outputs.shape[-1]))
    vectors = projector.linear_2(padded)
    embeds: torch.Tensor = model.get_input_embeddings()(ids)
    mask = (ids == model.config.image_token_id).unsqueeze(-1)
    return embeds.masked_scatter(mask, vectors.to(embeds.dtype))


def hidden_states(
    model: FastVlmForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Return the states after every layer; each question sees the shared part and itself."""
    segments = batch["segments"]
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    same = segments[:, :, None] == segments[:, None, :]
    mask = causal & (same | (segments[:, None, :] == 0))
    states: tuple[torch.Tensor, ...] = model.model.language_model(
        inputs_embeds=embedded(model, batch["ids"], batch["outputs"]),
        attention_mask=mask[:, None],
        position_ids=batch["positions"],
        output_hidden_states=True,
        use_cache=False,
    ).hidden_states
    return states


def _on(
    model: FastVlmForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return a batch where the model is."""
    return {part: values.to(model.device) for part, values in batch.items()}


def losses(
    model: FastVlmForConditionalGeneration,
    probes: Probes,
    batch: dict[str, torch.Tensor],
    marks: "Marks",
) -> dict[str, torch.Tensor]:
    """Return what is to be made small: answers, rationales, and the probes on the way."""
    batch = _on(model, batch)
    states = hidden_states(model, batch)
    last = states[-1].flatten(0, 1)
    answers, replies, nouns, clauses = (
        batch[part] for part in ("answers", "replies", "nouns", "clauses")
    )
    made: dict[str, torch.Tensor] = {}
    if len(answers):
        chances = model.lm_head(last[answers[:, 0].long()]).float().log_softmax(-1)
        yes = answers[:, 1].to(chances)
        made["answer"] = -(yes * chances[:, marks.yes] + (1 - yes) * chances[:, marks.no]).mean()
    if len(replies):
        places, wanted = replies[:, 0].long(), replies[:, 1].long()
        each = _reply_loss(model.lm_head(last[places]).float(), wanted, marks.near.to(last.device))
        made["reply"] = (each * replies[:, 2]).sum() / replies[:, 2].sum()
    if len(nouns):
        seen = probes.noun(states[Probes.NOUN_LAYER].flatten(0, 1)[nouns[:, 0].long()])
        made["noun"] = functional.binary_cross_entropy_with_logits(
            seen.float(), nouns[:, 1:].float()
        )
    if len(clauses):
        held = probes.clause(
            states[Probes.CLAUSE_LAYER].flatten(0, 1)[clauses[:, 0].long()]
        ).squeeze(-1)
        made["clause"] = functional.binary_cross_entropy_with_logits(
            held.float(), clauses[:, 1].float()
        )
    return made


def _reply_loss(logits: torch.Tensor, wanted: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
    """Return the loss of each of a rationale's tokens; a number near the right one is nearly right."""
    chances = logits.log_softmax(-1)
    number = near[wanted].sum(-1) > 0
    exact = -chances.gather(1, wanted[:, None]).squeeze(1)
    about = -(near[wanted] * chances).sum(-1)
    return torch.where(number, about, exact)


class Marks:
    """Tokens with a meaning of their own: the answers, and the numbers of a box.

    `near` gives for each number's token how right the tokens of all numbers are in its place.
    """

    def __init__(self, words: PreTrainedTokenizerFast, spread: float = 2.5) -> None:
        self.yes, self.no = words.convert_tokens_to_ids(["Yes", "No"])
        ids = torch.tensor(words.convert_tokens_to_ids([str(number) for number in range(101)]))
        line = torch.arange(101).float()
        shares = torch.softmax(-((line[:, None] - line) ** 2) / (2 * spread**2), 1)
        self.near = torch.zeros(len(words), len(words))
        self.near[ids[:, None], ids] = shares


def answers_of(
    model: FastVlmForConditionalGeneration, batch: dict[str, torch.Tensor], yes: int, no: int
) -> npt.NDArray[np.float64]:
    """Return the log-odds of Yes for every question of a batch."""
    with torch.no_grad():
        batch = _on(model, batch)
        last = hidden_states(model, batch)[-1].flatten(0, 1)[batch["answers"][:, 0].long()]
        table = model.lm_head.weight
        odds: npt.NDArray[np.float64] = (last @ (table[yes] - table[no])).double().cpu().numpy()
        return odds


def train_language(
    model: FastVlmForConditionalGeneration,
    words: PreTrainedTokenizerFast,
    folder: Path,
    plan: LanguagePlan,
    probes: Probes | None = None,
) -> Path:
    """Train the language part, from where an earlier try was cut off, and return its state's file."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    torch.set_flush_denormal(True)
    probes, marks = (probes or Probes()).to(model.device), Marks(words)
    frozen = (model.model.vision_tower, model.model.multi_modal_projector.linear_1)
    for part in frozen:
        part.requires_grad_(requires_grad=False)
    trained = [each for each in [*model.parameters(), *probes.parameters()] if each.requires_grad]
    table = model.get_input_embeddings().weight
    others = [each for each in trained if each is not table]
    groups = [{"params": others, "weight_decay": 0.01}, {"params": [table], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), fused=True)
    # Words that no lesson uses stay where their meaning put them; else every loss would push them away.
    learned = used(words).to(table)[:, None]
    table.register_hook(lambda gradient: gradient * learned)
    parts = {"model": model, "probes": probes, "optimiser": optimiser}
    state = folder / f"{plan.name}.pt"
    start = _resume(state, parts)
    examined = examination(words, plan.checked)
    begun, running = time.monotonic(), dict[str, float]()
    # Processors without bfloat16 take several times as long for it.
    half = model.device.type == "cuda" or torch.cpu.get_capabilities().get("amx_bf16", False)
    with Progress() as progress, (folder / f"{plan.name}.jsonl").open("a") as log:
        task = progress.add_task(plan.name, total=plan.steps, completed=start)
        for step, batch in enumerate(lessons(words, plan, start), start + 1):
            for group in optimiser.param_groups:
                group["lr"] = plan.rate_at(step)
            # A fifth faster on two cores, and the same losses to three digits.
            with torch.autocast(model.device.type, torch.bfloat16, enabled=half):
                made = losses(model, probes, batch, marks)
            loss = torch.stack([plan.weights[part] * value for part, value in made.items()]).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            for part, value in made.items():
                running[part] = 0.97 * running.get(part, value.item()) + 0.03 * value.item()
            progress.advance(task)
            last = step == plan.steps
            if step % 25 and not last:
                continue
            line: dict[str, Any] = {"stage": plan.name, "step": step}
            line["seconds"] = round(time.monotonic() - begun)
            line |= {part: round(value, 4) for part, value in running.items()}
            if step % EXAMINED == 0 or last:
                line |= examine(model, examined, marks)
                kept = {name: part.state_dict() for name, part in parts.items()}
                torch.save(kept | {"step": step}, state)
            log.write(json.dumps(line) + "\n")
            log.flush()
    return state


def _resume(state: Path, parts: Mapping[str, Any]) -> int:
    """Load what an earlier try kept and return its step, 0 without one."""
    if not state.exists():
        return 0
    saved = torch.load(state, weights_only=True, map_location="cpu")
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return int(saved["step"])


#: After how many steps the model is examined and its state kept.
EXAMINED = 250

Examination = list[tuple[dict[str, torch.Tensor], list[str], list[bool], bool]]


def examination(
    words: PreTrainedTokenizerFast, kept: Path | None, uploads: int = 40
) -> Examination:
    """Return fixed batches to follow the training by, in trained and in unseen wordings."""
    rng = np.random.default_rng(99)
    packer, seen = Packer(words), Sights.load(kept) if kept else None
    made: Examination = []
    for unseen in (False, True):
        teacher = Teacher(rng, known="validation" if unseen else "train")
        for first in range(0, uploads, 8):
            sights = [
                imagined(rng) if seen is None else seen[(first + place) % len(seen)]
                for place in range(8)
            ]
            kinds: list[str] = []
            answers: list[bool] = []
            rows = []
            for sight in sights:
                said = teacher.words(frozenset(thing.concept for thing in sight.shown))
                each = [*teacher.kinds(said.upload, 8)]
                items = [
                    teacher.item(teacher.ask(said.upload, kind), said, sight.shown) for kind in each
                ]
                content = prompt.prefix(
                    images=1, caption=said.caption, text_in_image=said.text_in_image
                ).content
                rows.append(packer.row(content, items))
                kinds += each
                answers += [bool(item.answer) for item in items]
            made.append((collate(rows, sights, words.pad_token_id), kinds, answers, unseen))
    return made


def examine(
    model: FastVlmForConditionalGeneration, examined: Examination, marks: Marks
) -> dict[str, float]:
    """Return AUROC by kind of question, and in unseen wordings."""
    scores: list[tuple[str, bool, bool, float]] = []
    for batch, kinds, answers, unseen in examined:
        odds = answers_of(model, batch, marks.yes, marks.no)
        scores += zip(kinds, answers, [unseen] * len(kinds), odds.tolist(), strict=True)
    found: dict[str, float] = {}
    for name in sorted({kind for kind, *_ in scores}):
        part = [(truth, score) for kind, truth, _, score in scores if kind == name]
        found[name] = _auroc(part)
    found["seen"] = _auroc([(truth, score) for _, truth, unseen, score in scores if not unseen])
    found["unseen"] = _auroc([(truth, score) for _, truth, unseen, score in scores if unseen])
    return found


def _auroc(part: Iterator[tuple[bool, float]] | list[tuple[bool, float]]) -> float:
    truth, score = zip(*part, strict=True)
    return (
        round(float(roc_auc_score(truth, score)), 3)
        if 0 < sum(truth) < len(truth)
        else float("nan")
    )
