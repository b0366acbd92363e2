"""Second stage: the language part learns to answer, first with a perfect eye, then with the tower's."""

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import Progress
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import FastVlmForConditionalGeneration, PreTrainedTokenizerFast

from workers import prompt
from workers.mini.answering import answers_of, hidden_states, on_its_device
from workers.mini.believing import PRESENT, Believing, fitted
from workers.mini.lasting import Lasting, keep, kept
from workers.mini.lessons import Teacher
from workers.mini.network import LANGUAGE
from workers.mini.rows import Packer, Row, collate
from workers.mini.sights import Sight, Sights, any_sight, imagined
from workers.mini.tower import ahead
from workers.mini.vocabulary import used

#: Share of uploads that are nothing but a caption.
WORDS_ALONE = 0.2

#: How often a line stands in the image and not in the caption, and how often such text has slips of OCR.
WRITTEN, MISREAD = 0.3, 0.5

#: How often a line tries to steer.
STEERED = 0.25

#: Kinds of questions by length, and how many of them share one picture in training: rows of one length waste nothing.
SHORT, LONG = ("plain", "inverted", "caption", "act", "together"), ("carve-out", "many", "theme")
#: What broken policies are explained: a step of its own, so that reasons are learned from many at once.
WHY = ("many", "many", "theme", "plain")
QUESTIONS = {SHORT: 8, LONG: 4, WHY: 4}

#: How often a training step has short questions, and how often reasons alone where a plan asks for them.
SHORTS = 0.55


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguagePlan(Lasting):
    """How long, how and on what the language part is trained.

    `seen` and `checked` are files of sights to learn from and to follow the training by; without
    them sights are imagined. `imagine` is the share that is imagined all the same; `reasons` the share of steps that
    ask for nothing but reasons. `teachers` processes compose lessons ahead.
    """

    name: str
    uploads: int = 8
    teachers: int = field(default=1, compare=False)
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

    def rate_at(self, step: int, share: float) -> float:
        """Return the learning rate: a short rise, level, then down to nearly nothing."""
        left = (1 - share) / (1 - self.decay_from)
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


def lesson(
    teacher: Teacher,
    packer: Packer,
    sight: Sight | None,
    among: tuple[str, ...],
    *,
    explain: float = 0.2,
    believing: Believing | None = None,
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


class Lessons(Dataset[dict[str, npt.NDArray[Any]]]):
    """Batches of lessons by the number of their step: the same number gives the same lessons, in whichever process."""

    def __init__(self, words: PreTrainedTokenizerFast, plan: LanguagePlan) -> None:
        self._packer = Packer(words)
        self._plan = plan
        seen = Sights.load(plan.seen) if plan.seen else None
        self._believing = {
            imagine: fitted(plan.seed, seen, imagine=imagine) for imagine in (0.0, 1.0)
        }
        self._seen: Sights | None = None

    def __getitem__(self, number: int) -> dict[str, npt.NDArray[Any]]:
        """Return a batch as `collate` makes it."""
        plan = self._plan
        if self._seen is None and plan.seen:  # read where it is used: it is too large to travel
            torch.set_num_threads(1)
            self._seen = Sights.load(plan.seen)
        rng = np.random.default_rng((plan.seed, number))
        teacher = Teacher(rng, present=PRESENT, written=WRITTEN, misread=MISREAD, steer=STEERED)
        sights = [
            None if rng.random() < WORDS_ALONE else any_sight(rng, self._seen, plan.imagine)
            for _ in range(plan.uploads)
        ]
        among: tuple[str, ...] = SHORT if rng.random() < SHORTS else LONG
        if rng.random() < plan.reasons:
            among = WHY
        rows = [
            lesson(
                teacher,
                self._packer,
                sight,
                among,
                explain=plan.explain,
                believing=self._believing[1.0 if sight is None or sight.imagined else 0.0],
            )
            for sight in sights
        ]
        batch = collate(rows, sights, self._packer.words.pad_token_id)
        return {key: value.numpy() for key, value in batch.items()}


class Marks:
    """Tokens with a meaning of their own: the answers, and the numbers of a box.

    `near` gives for each number's token how right the tokens of all numbers are in its place.
    """

    def __init__(
        self,
        words: PreTrainedTokenizerFast,
        spread: float = 2.5,
        device: str | torch.device = "cpu",
    ) -> None:
        self.yes, self.no = words.convert_tokens_to_ids(["Yes", "No"])
        ids = torch.tensor(words.convert_tokens_to_ids([str(number) for number in range(101)]))
        line = torch.arange(101).float()
        shares = torch.softmax(-((line[:, None] - line) ** 2) / (2 * spread**2), 1)
        self.near = torch.zeros(len(words), len(words))
        self.near[ids[:, None], ids] = shares
        self.near = self.near.to(device)


def losses(
    model: FastVlmForConditionalGeneration,
    probes: Probes,
    batch: dict[str, torch.Tensor],
    marks: Marks,
) -> dict[str, torch.Tensor]:
    """Return what is to be made small: answers, rationales, and the probes on the way."""
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
        each = _reply_loss(model.lm_head(last[places]).float(), wanted, marks.near)
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
    probes = (probes or Probes()).to(model.device)
    marks = Marks(words, device=model.device)
    frozen = (model.model.vision_tower, model.model.multi_modal_projector.linear_1)
    for part in frozen:
        part.requires_grad_(requires_grad=False)
    trained = [each for each in [*model.parameters(), *probes.parameters()] if each.requires_grad]
    optimiser = _optimiser(trained, model.get_input_embeddings().weight, words, plan)
    parts = {"model": model, "probes": probes, "optimiser": optimiser}
    state = folder / f"{plan.name}.pt"
    start, spent_s = 0, 0.0
    if saved := kept(state, plan):
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        start, spent_s = saved["step"], saved["seconds"]
    examined = examination(words, plan.checked)
    begun, running = time.monotonic() - spent_s, dict[str, torch.Tensor]()
    # Processors without bfloat16 take several times as long for it.
    half = model.device.type == "cuda" or torch.cpu.get_capabilities().get("amx_bf16", False)
    batches = ahead(Lessons(words, plan), itertools.count(start), plan.teachers)
    step, share = start, plan.share(start, spent_s)
    with Progress() as progress, (folder / f"{plan.name}.jsonl").open("a") as log:
        task = progress.add_task(plan.name, total=1.0)
        while share < 1:
            batch = {part: torch.from_numpy(each) for part, each in next(batches).items()}
            step += 1
            share = plan.share(step, time.monotonic() - begun)
            for group in optimiser.param_groups:
                group["lr"] = plan.rate_at(step, share)
            # A fifth faster on two cores, and the same losses to three digits.
            with torch.autocast(model.device.type, torch.bfloat16, enabled=half):
                made = losses(model, probes, on_its_device(model, batch), marks)
            loss = torch.stack([plan.weights[part] * value for part, value in made.items()]).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            for part, value in made.items():
                now = value.detach()
                running[part] = now.lerp(running[part], 0.97) if part in running else now
            progress.update(task, completed=share)
            last = share >= 1
            if step % 25 and not last:
                continue
            line: dict[str, Any] = {"stage": plan.name, "step": step}
            line["seconds"] = round(time.monotonic() - begun)
            line |= {part: round(value.item(), 4) for part, value in running.items()}
            if step % EXAMINED == 0 or last:
                line |= examine(model, examined, marks)
                states = {name: part.state_dict() for name, part in parts.items()}
                keep(state, plan, states | {"step": step, "seconds": line["seconds"]})
            log.write(json.dumps(line) + "\n")
            log.flush()
    return state


def _optimiser(
    trained: Sequence[nn.Parameter],
    table: nn.Parameter,
    words: PreTrainedTokenizerFast,
    plan: LanguagePlan,
) -> torch.optim.AdamW:
    others = [each for each in trained if each is not table]
    groups = [{"params": others, "weight_decay": 0.01}, {"params": [table], "weight_decay": 0.0}]
    # Words that no lesson uses stay where their meaning put them; else every loss would push them away.
    learned = used(words).to(table)[:, None]
    table.register_hook(lambda gradient: gradient * learned)  # type: ignore[no-untyped-call]
    return torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), fused=True)


#: After how many steps the model is examined and its state kept.
EXAMINED = 250

Examination = list[tuple[dict[str, torch.Tensor], list[str], list[bool], bool]]


def examination(
    words: PreTrainedTokenizerFast, checked: Path | None, uploads: int = 40
) -> Examination:
    """Return fixed batches to follow the training by, in trained and in unseen wordings."""
    rng = np.random.default_rng(99)
    packer, seen = Packer(words), Sights.load(checked) if checked else None
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
