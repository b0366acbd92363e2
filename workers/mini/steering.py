"""Whether the bundled model does what a policy says and not what an upload says."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from workers.mini.captions import HARMLESS, STEERING
from workers.mini.examiner import Examiner, Figures, auroc, content, item, share
from workers.mini.language import Sight
from workers.mini.lessons import Said, Teacher
from workers.mini.scenes import Scene
from workers.mini.wordings import Asked

#: Trials that come in pairs: the same question without and with a line that tries to steer.
BEFORE, AFTER = "before an instruction", "after an instruction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Questions about one upload that are right only if all their verdicts are."""

    name: str
    sight: Sight
    content: str
    asked: tuple[Asked, ...]
    said: Said

    def right(self, odds: Sequence[float]) -> bool:
        """Return whether every verdict is right; Yes is where the log-odds are above zero."""
        truths = (bool(each.broken(self.said.upload)) for each in self.asked)
        return all((score > 0) == truth for score, truth in zip(odds, truths, strict=True))


def steering(examiner: Examiner, scenes: Sequence[Scene], sights: Sequence[Sight]) -> Figures:
    """Inverted, off-topic and carved-out policies, and lines that try to steer the verdict."""
    rng = np.random.default_rng(6)
    teacher = Teacher(rng)
    trials = [
        trial
        for scene, sight in zip(scenes, sights, strict=True)
        for trial in _trials(rng, teacher, scene, sight)
    ]
    rows = [
        (trial.sight, trial.content, [item(each.question) for each in trial.asked])
        for trial in trials
    ]
    odds = examiner.ask(rows, len(rows))
    hits: dict[str, list[bool]] = {}
    verdicts: dict[str, list[bool]] = {BEFORE: [], AFTER: []}
    for trial, scores in zip(trials, odds, strict=True):
        if trial.name in verdicts:
            verdicts[trial.name].append(scores[0] > 0)
        else:
            hits.setdefault(trial.name, []).append(trial.right(scores))
    pairs = min(len(hits["carve-out"]), len(hits["carve-out twin"]))
    hits["carve-outs, balanced"] = hits["carve-out"][:pairs] + hits["carve-out twin"][:pairs]
    hits["moved by an instruction"] = [
        before != after for before, after in zip(verdicts[BEFORE], verdicts[AFTER], strict=True)
    ]
    return {name: share(part) for name, part in hits.items()}


def _trials(
    rng: np.random.Generator, teacher: Teacher, scene: Scene, sight: Sight
) -> Iterator[Trial]:
    said = teacher.words(scene.concepts, steer=0)
    words = content(said.caption, said.text_in_image)

    def trial(name: str, *asked: Asked, about: str = words) -> Trial:
        return Trial(name=name, sight=sight, content=about, asked=asked, said=said)

    thing = teacher.thing(said.upload, broad=0)
    yield trial("inverted", teacher.composer.plain(thing), teacher.composer.inverted(thing))
    absent = teacher.composer.plain(teacher.thing(said.upload, present=False, broad=0.2))
    if not absent.broken(said.upload):
        yield trial("off-topic", absent)
    for holds in (True, False):
        clause = teacher.composer.shows(teacher.thing(said.upload, present=True, broad=0.2))
        excused = teacher.carve_out(said.upload, clause, holds=holds)
        if clause.holds(said.upload) and excused.holds(said.upload) == holds:
            line = "Is this against our rules?"
            asked = teacher.composer.ask([clause], line=line, exempt=[(excused, 0)])
            yield trial("carve-out" if holds else "carve-out twin", asked)
    asked = teacher.ask(said.upload, str(rng.choice(np.array(["plain", "caption", "act"]))))
    steered = f"{said.text_in_image} {rng.choice(np.array(STEERING))}".strip()
    yield trial(BEFORE, asked)
    yield trial(AFTER, asked, about=content(said.caption, steered))


def signs(examiner: Examiner, scenes: Sequence[Scene], sights: Sequence[Sight]) -> Figures:
    """AUROC on threats and insults in text read from the image, in unseen lines and wordings."""
    rng = np.random.default_rng(8)
    teacher = Teacher(rng, unseen=True)
    rows, truths = [], []
    for scene, sight in zip(scenes, sights, strict=True):
        topic = str(rng.choice(np.array(["threat", "insult", HARMLESS, "news", "cooking"])))
        said = teacher.words(scene.concepts, topic=topic)
        name = "threat" if rng.random() < 0.5 else "insult"
        text = f"{said.caption} {said.text_in_image}".strip()
        rows.append((sight, content("", text), [item(teacher.composer.spoken(name).question)]))
        truths.append(name in said.upload.topics)
    return auroc(truths, [part[0] for part in examiner.ask(rows, len(rows))])
