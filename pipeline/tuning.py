"""A checkpoint fitted to a platform's own verdicts: what it learns from, what it is held against, and its card."""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.labels import Labelled
from pipeline.reliability import Figure, auroc, bootstrap, log_loss
from pipeline.scored import item_of, score
from policies.question import Question
from policies.schema import Policy
from workers.classifier import Classifier
from workers.errors import CheckpointError
from workers.generative import GenerativeClassifier
from workers.loading import load
from workers.reading import Reading
from workers.spec import ClassifierSpec
from workers.tuning import Example, Recipe, tune
from workers.weights import folder_of, revision_of

#: Of so many clusters of uploads one is held back.
_HELD_BACK: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """One question on the held-back uploads, before and after."""

    question: str
    violates: int
    allowed: int
    auroc_before: Figure
    auroc_after: Figure
    log_loss_before: float
    log_loss_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What came of tuning."""

    base: str
    base_revision: str
    digest: str
    recipe: Recipe
    learned_from: int
    held_back: int
    questions: tuple[Fitted, ...]

    @property
    def better(self) -> bool:
        """Return whether the mean log-loss on the held-back uploads went down."""
        before = sum(one.log_loss_before for one in self.questions)
        return sum(one.log_loss_after for one in self.questions) < before


def fit(
    labelled: Sequence[Labelled],
    spec: ClassifierSpec,
    policies: Sequence[Policy],
    recipe: Recipe,
    folder: Path,
    *,
    reading: Reading,
    advance: Callable[[float], None] = lambda _: None,
    refused: Callable[[Labelled, str], None] = lambda _row, _why: None,
) -> Tuned:
    """Tune a configured classifier on labelled uploads, and write the checkpoint and its card.

    What is held back goes by the uploads' clusters, so that near-duplicates are on one side; the figures are of the
    checkpoint as it was written, loaded again.

    Raises:
        CheckpointError: the classifier cannot be tuned, or there is nothing to learn from.
    """
    questions = [question for policy in policies for question in policy.questions]
    held = [row for row in labelled if _is_held_back(row)]
    taught = [row for row in labelled if not _is_held_back(row)]
    classifier = load(spec)
    if not isinstance(classifier, GenerativeClassifier):
        raise CheckpointError("tune", f"{spec.name}: only generative classifiers can be tuned")
    before = _figures(held, classifier, questions, reading, refused)
    by_id = {question.id: question for question in questions}
    examples = []
    for row in taught:
        item = item_of(row, reading, refused)
        answers = tuple((by_id[name], said) for name, said in row.answers.items() if name in by_id)
        if item is not None and answers:
            examples.append(Example(item=item, answers=answers))
    source = folder_of(spec)
    tune(classifier, examples, recipe, folder, source=source, advance=advance)
    written = load(replace(spec, model=str(folder), revision=None))
    after = _figures(held, written, questions, reading, refused)
    tuned = Tuned(
        base=spec.model,
        base_revision=revision_of(source),
        digest=written.digest,
        recipe=recipe,
        learned_from=len(examples),
        held_back=len(held),
        questions=tuple(_compared(name, before[name], after[name]) for name in before),
    )
    (folder / "README.md").write_text(card(tuned, by_id), encoding="utf-8")
    (folder / "tuning.json").write_text(json.dumps(asdict(tuned), indent=1) + "\n")
    return tuned


def card(tuned: Tuned, questions: Mapping[str, Question]) -> str:
    """Return the page that goes with the checkpoint."""
    recipe = tuned.recipe
    rows = "\n".join(
        f"| `{one.question}` | {one.violates} / {one.allowed} | {_told(one.auroc_before)}"
        f" | {_told(one.auroc_after)} | {one.log_loss_before:.3f} | {one.log_loss_after:.3f} |"
        for one in tuned.questions
    )
    wordings = "\n".join(
        f"- `{one.question}`: {questions[one.question].digest}" for one in tuned.questions
    )
    return f"""# A checkpoint tuned by Weir

Made on {datetime.now(UTC):%Y-%m-%d} from `{tuned.base}` (revision {tuned.base_revision}) by `weir model tune`: LoRA of
rank {recipe.rank} on the language part, {recipe.epochs} epochs at a rate of {recipe.rate:g}, merged. It learned from
{tuned.learned_from} labelled uploads; {tuned.held_back} were held back, by cluster, and are what the figures are about.

| question | violates / allowed | AUROC before | after | log-loss before | after |
|---|---|---|---|---|---|
{rows}

Figures are of this checkpoint as written, with 95 % intervals. It answers these wordings, and has not been tried on
others; run `weir model probe` to see whether it still follows a policy at all, and `weir calibrate` before it acts:
calibrations of the checkpoint that it was made from do not count for it.

{wordings}
"""


def _told(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _is_held_back(row: Labelled) -> bool:
    return zlib.crc32((row.cluster or row.id).encode()) % _HELD_BACK == 0


def _figures(
    rows: Sequence[Labelled],
    classifier: Classifier,
    questions: Sequence[Question],
    reading: Reading,
    refused: Callable[[Labelled, str], None],
) -> Mapping[str, tuple[Figure, float, int, int]]:
    found = {}
    scored = score(rows, classifier, questions, reading=reading, refused=refused)
    for name, column in scored.items():
        probabilities = 1 / (1 + np.exp(-np.clip(column.scores, -50, 50)))
        violates = int(column.labels.sum())
        found[name] = (
            bootstrap(auroc, column.scores, column.labels),
            log_loss(probabilities, column.labels),
            violates,
            len(column.labels) - violates,
        )
    return found


def _compared(
    name: str,
    before: tuple[Figure, float, int, int],
    after: tuple[Figure, float, int, int],
) -> Fitted:
    return Fitted(
        question=name,
        violates=before[2],
        allowed=before[3],
        auroc_before=before[0],
        auroc_after=after[0],
        log_loss_before=before[1],
        log_loss_after=after[1],
    )
