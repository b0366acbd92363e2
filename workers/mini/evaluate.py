"""Every figure of the model card by one command: ``python -m workers.mini.evaluate``.

Scenes are in a drawing style, before backgrounds and with fonts and captions that training never shows; questions are
in wordings that it never shows, where that is said. Nothing is chosen by these figures.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForImageTextToText, AutoProcessor

from policies.folder import read_policies
from policies.question import Exempt, Forbidden, Question
from workers import prompt
from workers.mini.captions import STEERING
from workers.mini.concepts import CONCEPTS
from workers.mini.language import CELLS, Packer, Sight, answers_of, collate
from workers.mini.lessons import Item, Teacher
from workers.mini.material import Split
from workers.mini.scenes import Composer, Pixels, Scene, Shown
from workers.mini.tower import OUTPUTS, as_input
from workers.mini.truth import Labelled, labelled
from workers.mini.wordings import Asked, Upload, noun

HERE = Path(__file__).parent

Figures = dict[str, Any]
Numbers = npt.NDArray[np.float64]


class Examiner:
    """Asks the checkpoint many questions about many composed uploads."""

    def __init__(self, folder: Path) -> None:
        begun = time.monotonic()
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = AutoProcessor.from_pretrained(folder)
        self.load_s = time.monotonic() - begun
        self.words = self.processor.tokenizer
        self.yes, self.no = self.words.convert_tokens_to_ids(["Yes", "No"])
        self.packer = Packer(self.words)

    def look(self, pixels: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """Return what the projector's first layer says of each picture."""
        seen = []
        for first in range(0, len(pixels), 32):
            with torch.no_grad():
                part = as_input(np.stack(pixels[first : first + 32]))
                features = (
                    self.model.model.vision_tower(part).last_hidden_state.flatten(2).transpose(1, 2)
                )
                seen.append(
                    self.model.model.multi_modal_projector.linear_1(features)
                    .sigmoid()[..., :OUTPUTS]
                    .numpy()
                )
        return np.concatenate(seen)

    def ask(
        self, asked: Iterable[tuple[Sight, str, Sequence[Item]]], total: int | None = None
    ) -> list[list[float]]:
        """Return the log-odds of Yes for each question about each upload (sight, content, questions)."""
        odds: list[list[float]] = []
        waiting: list[tuple[Sight, str, Sequence[Item]]] = []

        def flush() -> None:
            rows = [self.packer.row(content, items) for _, content, items in waiting]
            batch = collate(rows, [sight for sight, _, _ in waiting], self.words.pad_token_id)
            found = answers_of(self.model, batch, self.yes, self.no).tolist()
            for _, _, items in waiting:
                odds.append(found[: len(items)])
                del found[: len(items)]
            waiting.clear()

        for each in track(asked, description="asking", total=total, transient=True):
            waiting.append(each)
            if len(waiting) == 8:
                flush()
        if waiting:
            flush()
        return odds


def item(question: Question, *, answer: bool = False, kind: str = "") -> Item:
    """Return a question as text."""
    return Item(text=prompt.suffix(question), answer=answer, kind=kind)


def content(caption: str, text_in_image: str = "") -> str:
    """Return the quoted words of an upload as the prompt has them."""
    return prompt.prefix(images=1, caption=caption, text_in_image=text_in_image).content


# ---- intervals


def wilson(good: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share."""
    z = float(norm.ppf(0.975))
    middle = (good + z * z / 2) / (count + z * z)
    half = z * np.sqrt(good * (count - good) / count + z * z / 4) / (count + z * z)
    return float(middle - half), float(middle + half)


def share(hits: Sequence[bool]) -> Figures:
    """Return a share with its interval."""
    good, count = sum(hits), len(hits)
    return {"value": good / max(1, count), "interval": wilson(good, count), "n": count}


def bootstrap(
    value: Callable[[npt.NDArray[np.int64]], float], count: int, rounds: int = 300
) -> tuple[float, float]:
    """Return the 95 % interval of a value over resampled rows."""
    rng = np.random.default_rng(0)
    found = [value(rng.integers(count, size=count)) for _ in range(rounds)]
    return float(np.nanquantile(found, 0.025)), float(np.nanquantile(found, 0.975))


def auroc(truth: Sequence[bool] | Numbers, score: Sequence[float] | Numbers) -> Figures:
    """Return AUROC with its interval."""
    right, odds = np.asarray(truth, bool), np.asarray(score, float)

    def value(rows: npt.NDArray[np.int64]) -> float:
        part = right[rows]
        return (
            float(roc_auc_score(part, odds[rows])) if 0 < part.sum() < len(part) else float("nan")
        )

    return {
        "value": value(np.arange(len(right))), "interval": bootstrap(value, len(right)), "n": len(right),
        "positives": int(right.sum()),
    }  # fmt: skip


# ---- what is measured


def concepts(
    examiner: Examiner, scenes: Sequence[Scene], sights: Sequence[Sight], negatives: int = 200
) -> Figures:
    """AUROC of each concept, asked as a one-clause policy in trained wordings, at least 100 positives each."""
    rng = np.random.default_rng(1)
    teacher = Teacher(rng)
    asked: dict[int, list[tuple[int, bool]]] = {}
    for concept in range(len(CONCEPTS)):
        there = [index for index, scene in enumerate(scenes) if concept in scene.concepts]
        without = [index for index, scene in enumerate(scenes) if concept not in scene.concepts]
        for index in rng.permutation(there)[:150].tolist():
            asked.setdefault(index, []).append((concept, True))
        for index in rng.permutation(without)[:negatives].tolist():
            asked.setdefault(index, []).append((concept, False))
    scores: dict[int, list[tuple[bool, float]]] = {}
    rows = []
    for index, wanted in asked.items():
        said = teacher.words(scenes[index].concepts)
        questions = [
            item(teacher.composer.plain(noun(rng, frozenset({concept}))).question)
            for concept, _ in wanted
        ]
        rows.append((sights[index], content(said.caption, said.text_in_image), questions))
    for wanted, odds in zip(asked.values(), examiner.ask(rows, len(rows)), strict=True):
        for (concept, truth), score in zip(wanted, odds, strict=True):
            scores.setdefault(concept, []).append((truth, score))
    each = {
        CONCEPTS[concept].name: float(roc_auc_score(*zip(*part, strict=True)))
        for concept, part in scores.items()
    }
    values = np.array(list(each.values()))
    return {
        "median": {"value": float(np.median(values)), "interval": bootstrap(lambda rows: float(np.median(values[rows])), len(values))},
        "p10": {
            "value": float(np.quantile(values, 0.1)),
            "interval": bootstrap(lambda rows: float(np.quantile(values[rows], 0.1)), len(values)),
        },
        "concepts": len(values), "least_positives": min(sum(truth for truth, _ in part) for part in scores.values()),
        "each": dict(sorted(each.items(), key=lambda pair: pair[1])),
    }  # fmt: skip


def platt(odds: Numbers, truth: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return slope and offset of a logistic calibration."""
    fitted = LogisticRegression(C=1e3).fit(odds[:, None], truth)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def ece(probability: Numbers, truth: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Return the expected calibration error over bins of equal mass."""
    order = np.argsort(probability)
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(
        sum(
            len(part) / len(order) * abs(probability[part].mean() - truth[part].mean())
            for part in parts
        )
    )


def policies(examiner: Examiner, count: int) -> Figures:
    """AUROC and, after calibration on scenes of another style, ECE of each question of the live shipped policies."""
    questions = read_policies(HERE.parents[1] / "policies").questions
    kept: dict[str, dict[str, list[tuple[bool, float]]]] = {}
    for split, seed in (("validation", 71), ("test", 72)):
        for policy in dict.fromkeys(question.policy for question in questions):
            mine = [question for question in questions if question.policy == policy]
            uploads = list(labelled(mine, split=split, seed=seed, count=count))  # type: ignore[arg-type]
            if not uploads:
                continue
            sights = look(examiner, uploads)
            rows = [
                (
                    sight,
                    content(upload.caption, upload.text_in_image),
                    [item(each) for each in mine if each.id in upload.answers],
                )
                for upload, sight in zip(uploads, sights, strict=True)
            ]
            for upload, odds in zip(uploads, examiner.ask(rows, len(rows)), strict=True):
                for (name, truth), score in zip(upload.answers.items(), odds, strict=True):
                    kept.setdefault(name, {}).setdefault(split, []).append((truth, score))
    found: Figures = {}
    for name, parts in kept.items():
        fit, test = (
            tuple(np.array(column) for column in zip(*parts[split], strict=True))
            for split in ("validation", "test")
        )
        slope, offset = platt(fit[1], fit[0])
        probability = 1 / (1 + np.exp(-(slope * test[1] + offset)))
        found[name] = auroc(test[0], test[1]) | {"ece": ece(probability, test[0])}
    return found


def look(examiner: Examiner, uploads: Sequence[Labelled]) -> list[Sight]:
    """Return what the tower sees of labelled uploads."""
    outputs = examiner.look([upload.pixels for upload in uploads])
    return [
        Sight(outputs=seen, shown=upload.shown)
        for seen, upload in zip(outputs, uploads, strict=True)
    ]


def wordings(examiner: Examiner, scenes: Sequence[Scene], sights: Sequence[Sight]) -> Figures:
    """AUROC over all kinds of policies, in wordings and on captions that training never shows."""
    rng = np.random.default_rng(5)
    found: Figures = {}
    for name, unseen in (("trained wordings", False), ("unseen wordings", True)):
        teacher = Teacher(rng, unseen=unseen)
        rows, truths, kinds = [], [], []
        for scene, sight in zip(scenes, sights, strict=True):
            said = teacher.words(scene.concepts)
            each = teacher.kinds(said.upload, 6)
            items = [
                teacher.item(teacher.ask(said.upload, kind), said, scene.shown) for kind in each
            ]
            rows.append((sight, content(said.caption, said.text_in_image), items))
            truths += [one.answer for one in items]
            kinds += each
        odds = [score for part in examiner.ask(rows, len(rows)) for score in part]
        found[name] = auroc(truths, odds) | {
            "kinds": {
                kind: float(
                    roc_auc_score(
                        *zip(
                            *[
                                (t, s)
                                for t, s, k in zip(truths, odds, kinds, strict=True)
                                if k == kind
                            ],
                            strict=True,
                        )
                    )
                )
                for kind in sorted(set(kinds))
            }
        }
    return found


def steering(examiner: Examiner, scenes: Sequence[Scene], sights: Sequence[Sight]) -> Figures:
    """Inverted policies right both ways, off-topic policies denied, carve-outs respected, steering lines ignored."""
    rng = np.random.default_rng(6)
    teacher = Teacher(rng)
    rows: list[tuple[Sight, str, list[Item]]] = []
    judge: list[Callable[[list[float]], tuple[str, bool]]] = []

    def right(asked: Asked, upload: Upload, score: float) -> bool:
        return (score > 0) == bool(asked.broken(upload))

    for scene, sight in zip(scenes, sights, strict=True):
        said = teacher.words(scene.concepts, steer=0)
        words = content(said.caption, said.text_in_image)
        thing = teacher.thing(said.upload, broad=0)
        pair = teacher.composer.plain(thing), teacher.composer.inverted(thing)
        rows.append((sight, words, [item(one.question) for one in pair]))
        judge.append(
            lambda odds, pair=pair, up=said.upload: (
                "inverted",
                all(right(a, up, s) for a, s in zip(pair, odds, strict=True)),
            )
        )  # type: ignore[misc]
        absent = teacher.composer.plain(teacher.thing(said.upload, present=False, broad=0.2))
        if not absent.broken(said.upload):
            rows.append((sight, words, [item(absent.question)]))
            judge.append(lambda odds: ("off-topic", odds[0] < 0))
        for holds in (True, False):
            clause = teacher.composer.shows(teacher.thing(said.upload, present=True, broad=0.2))
            excused = teacher.carve_out(said.upload, clause, holds=holds)
            if clause.holds(said.upload) and excused.holds(said.upload) == holds:
                asked = teacher.composer.ask(
                    [clause], line="Is this against our rules?", exempt=[(excused, 0)]
                )
                rows.append((sight, words, [item(asked.question)]))
                name = "carve-out" if holds else "carve-out twin"
                judge.append(
                    lambda odds, asked=asked, up=said.upload, name=name: (
                        name,
                        right(asked, up, odds[0]),
                    )
                )  # type: ignore[misc]
        line = str(rng.choice(np.array(STEERING)))
        asked = teacher.ask(said.upload, str(rng.choice(np.array(["plain", "caption", "act"]))))
        rows.append((sight, words, [item(asked.question)]))
        rows.append(
            (
                sight,
                content(said.caption, f"{said.text_in_image} {line}".strip()),
                [item(asked.question)],
            )
        )
        first: list[float] = []
        judge.append(lambda odds, first=first: (first.append(odds[0]) or "", True))  # type: ignore[misc, func-returns-value]
        judge.append(
            lambda odds, first=first: ("moved by an instruction", (odds[0] > 0) != (first[0] > 0))
        )  # type: ignore[misc]
    hits: dict[str, list[bool]] = {}
    for odds, judged in zip(examiner.ask(rows, len(rows)), judge, strict=True):
        name, good = judged(odds)
        hits.setdefault(name, []).append(good)
    hits.pop("", None)
    pairs = min(len(hits["carve-out"]), len(hits["carve-out twin"]))
    hits["carve-outs, balanced"] = hits["carve-out"][:pairs] + hits["carve-out twin"][:pairs]
    return {name: share(part) for name, part in hits.items()}


def signs(examiner: Examiner, scenes: Sequence[Scene], sights: Sequence[Sight]) -> Figures:
    """AUROC on threats and insults in text that was read from the image, in unseen lines and wordings."""
    rng = np.random.default_rng(8)
    teacher = Teacher(rng, unseen=True)
    rows, truths = [], []
    for scene, sight in zip(scenes, sights, strict=True):
        topic = str(rng.choice(np.array(["threat", "insult", "", "news", "cooking"])))
        said = teacher.words(scene.concepts, topic=topic)
        name = "threat" if rng.random() < 0.5 else "insult"
        rows.append(
            (
                sight,
                content("", f"{said.caption} {said.text_in_image}".strip()),
                [item(teacher.composer.spoken(name).question)],
            )
        )
        truths.append(name in said.upload.topics)
    return auroc(truths, [part[0] for part in examiner.ask(rows, len(rows))])


def rationales(examiner: Examiner, scenes: Sequence[Scene], count: int) -> Figures:
    """Rationales of true violations: valid, the clause right, the centre of the box inside the object."""
    rng = np.random.default_rng(9)
    teacher = Teacher(rng)
    valid, clause_right, place_right = [], [], []
    for scene in track(scenes, description="explaining", total=count, transient=True):
        if len(valid) == count:
            break
        said = teacher.words(scene.concepts)
        asked = teacher.ask(said.upload, "many")
        broken = asked.broken(said.upload)
        if not broken:
            continue
        shared = prompt.prefix(images=1, caption=said.caption, text_in_image=said.text_in_image)
        turn = prompt.messages(shared, prompt.explain(asked.question))
        text = examiner.processor.apply_chat_template(turn, add_generation_prompt=True)
        inputs = examiner.processor(text=text, images=_image(scene.pixels), return_tensors="pt")
        with torch.no_grad():
            made = examiner.model.generate(**inputs, max_new_tokens=80, do_sample=False)
        reply = examiner.words.decode(
            made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        try:
            said_why = json.loads(reply)
            valid.append(set(said_why) == {"clause", "text", "media", "box"})
        except (json.JSONDecodeError, TypeError):
            valid.append(False)
            clause_right.append(False)
            continue
        clause_right.append(said_why.get("clause") in broken)
        evidence = dict(asked.clauses).get(broken[0])
        if clause_right[-1] and evidence is not None and said_why["clause"] == broken[0]:
            seen = [thing for thing in scene.shown if thing.concept in evidence.evidence]
            if seen:
                place_right.append(_inside(said_why.get("box"), seen))
    return {"valid": share(valid), "clause": share(clause_right), "place": share(place_right)}


def _inside(box: Any, things: Sequence[Shown]) -> bool:
    if not (isinstance(box, list) and len(box) == 4):  # noqa: PLR2004 - corners
        return False
    x, y = (box[0] + box[2]) / 200, (box[1] + box[3]) / 200
    return any(
        thing.box[0] <= x <= thing.box[2] and thing.box[1] <= y <= thing.box[3] for thing in things
    )


def _image(pixels: Pixels) -> Any:
    from PIL import Image  # noqa: PLC0415

    return Image.fromarray(pixels)


def photographs(examiner: Examiner, folder: Path) -> Figures:
    """AUROC of "shows a weapon" on photographs, revolvers and cannons against harmless things: reported as it is."""
    from PIL import Image  # noqa: PLC0415

    question = Question(
        id="weapons", policy="weapons", question="Does this upload show a weapon?",
        forbidden=(Forbidden(id="W1", text="Shows a weapon.", examples=("a pistol",)),),
        allowed=(Exempt(id="A1", text="Toys."),),
    )  # fmt: skip
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".png"})
    size = (
        examiner.processor.image_processor.size["width"],
        examiner.processor.image_processor.size["height"],
    )
    pixels = [
        np.asarray(Image.open(file).convert("RGB").resize(size, Image.Resampling.BICUBIC), np.uint8)
        for file in files
    ]
    truth = [
        any(
            word in str(file.relative_to(folder)).lower()
            for word in ("weapon", "revolver", "cannon")
        )
        for file in files
    ]
    rows = [
        (Sight(outputs=seen, shown=()), content(""), [item(question)])
        for seen in examiner.look(pixels)
    ]
    return auroc(truth, [part[0] for part in examiner.ask(rows, len(rows))])


def speed(examiner: Examiner, scene: Scene) -> Figures:
    """Time of 12 questions of policy length on one picture, preprocessing included, on two threads."""
    torch.set_num_threads(2)
    questions = [question for question in read_policies(HERE.parents[1] / "policies").questions][
        :12
    ]
    times = []
    for _ in range(12):
        begun = time.perf_counter()
        inputs = examiner.processor(
            text="<|image|>", images=_image(scene.pixels), return_tensors="pt"
        )
        with torch.no_grad():
            features = (
                examiner.model.model.vision_tower(inputs["pixel_values"])
                .last_hidden_state.flatten(2)
                .transpose(1, 2)
            )
            outputs = examiner.model.model.multi_modal_projector.linear_1(features).sigmoid()[
                0, :, :OUTPUTS
            ]
        row = examiner.packer.row(
            content("Good morning everyone"), [item(question) for question in questions]
        )
        batch = collate(
            [row],
            [Sight(outputs=outputs.numpy().reshape(CELLS, OUTPUTS), shown=())],
            examiner.words.pad_token_id,
        )
        answers_of(examiner.model, batch, examiner.yes, examiner.no)
        times.append(1000 * (time.perf_counter() - begun))
    torch.set_num_threads(1)
    return {
        "median_ms": float(np.median(times[2:])),
        "questions": len(questions),
        "load_s": examiner.load_s,
    }


def rows_of(figures: Figures) -> list[tuple[str, str, str]]:
    """Return the card's table: figure, value with interval, target."""

    def said(part: Mapping[str, Any]) -> str:
        low, high = part["interval"]
        return f"{part['value']:.3f} ({low:.3f} to {high:.3f})"

    made = [
        ("AUROC per concept, median", said(figures["concepts"]["median"]), "≥ .95"),
        ("AUROC per concept, 10th percentile", said(figures["concepts"]["p10"]), "≥ .78"),
        (
            "all kinds of policies, trained wordings, AUROC",
            said(figures["wordings"]["trained wordings"]),
            "",
        ),
        (
            "all kinds of policies, unseen wordings, AUROC",
            said(figures["wordings"]["unseen wordings"]),
            "≥ .90",
        ),
        ("inverted policies, right both ways", said(figures["steering"]["inverted"]), "≥ .85"),
        ("off-topic policies denied", said(figures["steering"]["off-topic"]), "≥ .95"),
        (
            "carve-outs respected, balanced with twins",
            said(figures["steering"]["carve-outs, balanced"]),
            "≥ .80",
        ),
        (
            "verdicts moved by an instruction in the text",
            said(figures["steering"]["moved by an instruction"]),
            "≤ .03",
        ),
        ("threats and insults read from the image, AUROC", said(figures["signs"]), "≥ .90"),
        ("rationales valid (greedy, no grammar)", said(figures["rationales"]["valid"]), "1.00"),
        ("rationales, clause right", said(figures["rationales"]["clause"]), "≥ .90"),
        ("rationales, place right", said(figures["rationales"]["place"]), "≥ .70"),
    ]
    made += [
        (f"policy `{name}`, AUROC; ECE", f"{said(part)}; {part['ece']:.3f}", "≥ .93; ≤ .04")
        for name, part in figures["policies"].items()
    ]
    if "photographs" in figures:
        made.append(
            ("photographs: weapons against benign, AUROC", said(figures["photographs"]), "as it is")
        )
    made.append(
        ("12 questions on one picture, ms", f"{figures['speed']['median_ms']:.0f}", "< 100")
    )
    made.append(("load after imports, s", f"{figures['speed']['load_s']:.2f}", "< 1"))
    return made


def evaluate(
    folder: Path, *, scenes: int, policy_scenes: int, explained: int, split: Split = "test"
) -> Figures:
    """Return every figure."""
    torch.set_num_threads(1)
    examiner = Examiner(folder)
    composer = Composer(split, 1234)
    drawn = [
        composer.compose() for _ in track(range(scenes), description="composing", transient=True)
    ]
    sights = [
        Sight(outputs=seen, shown=scene.shown)
        for seen, scene in zip(examiner.look([each.pixels for each in drawn]), drawn, strict=True)
    ]
    figures: Figures = {"split": split, "scenes": scenes}
    figures["concepts"] = concepts(examiner, drawn, sights)
    figures["wordings"] = wordings(examiner, drawn[:800], sights[:800])
    figures["steering"] = steering(examiner, drawn[:900], sights[:900])
    figures["signs"] = signs(examiner, drawn[:800], sights[:800])
    figures["policies"] = policies(examiner, policy_scenes)
    figures["rationales"] = rationales(examiner, drawn, explained)
    photos = HERE.parents[2] / "shared" / "data" / "img-caltech101"
    if photos.exists():
        figures["photographs"] = photographs(examiner, photos)
    figures["speed"] = speed(examiner, drawn[0])
    return figures


def main() -> None:
    """Print every figure and write them beside the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE)
    parser.add_argument("--scenes", type=int, default=3_400)
    parser.add_argument("--policy-scenes", type=int, default=2_000)
    parser.add_argument("--explained", type=int, default=200)
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--out", type=Path, default=HERE / "figures.json")
    chosen = parser.parse_args()
    figures = evaluate(
        chosen.model,
        scenes=chosen.scenes,
        policy_scenes=chosen.policy_scenes,
        explained=chosen.explained,
        split=chosen.split,
    )
    chosen.out.write_text(json.dumps(figures, indent=1) + "\n")
    table = Table("figure", "value (95 % interval)", "target")
    for row in rows_of(figures):
        table.add_row(*row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
