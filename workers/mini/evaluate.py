"""Every figure of the model card by one command: ``python -m workers.mini.evaluate``.

Scenes are in a drawing style, before backgrounds and with fonts and captions that training never shows; questions are
in wordings that it never shows, where that is said. Nothing is chosen by these figures.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.metrics import roc_auc_score

from policies.folder import read_policies
from policies.question import Exempt, Forbidden, Question
from workers import prompt
from workers.classifier import Classification, Picture
from workers.classifier import Item as Upload
from workers.loading import load
from workers.mini.concepts import CONCEPTS
from workers.mini.examiner import (
    Examiner,
    Figures,
    Numbers,
    Truths,
    auroc,
    bootstrap,
    content,
    ece,
    item,
    platt,
    share,
)
from workers.mini.language import CELLS, Sight, answers_of, collate
from workers.mini.lessons import Item as Asked
from workers.mini.lessons import Teacher
from workers.mini.material import Split
from workers.mini.scenes import CROWD, Composer, Pixels, Scene, Shown
from workers.mini.steering import signs, steering
from workers.mini.tower import OUTPUTS
from workers.mini.truth import Labelled, labelled
from workers.mini.wordings import noun
from workers.spec import ClassifierSpec

HERE = Path(__file__).parent

#: What is measured, in the order of the card.
PARTS = (
    "concepts",
    "wordings",
    "steering",
    "signs",
    "policies",
    "rationales",
    "reasons",
    "photographs",
    "speed",
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """On how many scenes: for concepts, for the other parts, a policy; and how many rationales."""

    scenes: int = 3_300
    asked: int = 700
    policy: int = 300
    explained: int = 150


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
        "median": {
            "value": float(np.median(values)),
            "interval": bootstrap(lambda rows: float(np.median(values[rows])), len(values)),
        },
        "p10": {
            "value": float(np.quantile(values, 0.1)),
            "interval": bootstrap(lambda rows: float(np.quantile(values[rows], 0.1)), len(values)),
        },
        "concepts": len(values),
        "least_positives": min(sum(truth for truth, _ in part) for part in scores.values()),
        "each": dict(sorted(each.items(), key=lambda pair: pair[1])),
    }


def policies(examiner: Examiner, count: int) -> Figures:
    """AUROC of each question of the live shipped policies, and ECE after calibration elsewhere.

    The calibration is fitted on scenes of the validation style; `count` is scenes a policy, and
    every question is asked of the scenes of all policies.
    """
    questions = read_policies(HERE.parents[1] / "policies").questions
    kept: dict[str, dict[str, tuple[Truths, Numbers]]] = {}
    splits: tuple[tuple[Split, int, int], ...] = (
        ("validation", 71, count // 2),
        ("test", 72, count),
    )
    for split, seed, each in splits:
        uploads = list(labelled(questions, split=split, seed=seed, count=each))
        rows = [
            (
                sight,
                content(upload.caption, upload.text_in_image),
                [item(one) for one in questions if one.id in upload.answers],
            )
            for upload, sight in zip(uploads, look(examiner, uploads), strict=True)
        ]
        odds = np.array(examiner.ask(rows, len(rows)))
        for place, name in enumerate(uploads[0].answers):
            truth = np.array([upload.answers[name] for upload in uploads])
            kept.setdefault(name, {})[split] = (truth, odds[:, place])
    found: Figures = {}
    for name, parts in kept.items():
        slope, offset = platt(parts["validation"][1], parts["validation"][0])
        truth, score = parts["test"]
        probability = 1 / (1 + np.exp(-(slope * score + offset)))
        found[name] = auroc(truth, score) | {"ece": ece(probability, truth)}
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
    for name, unseen, alone in (
        ("trained wordings", False, False),
        ("unseen wordings", True, False),
        ("captions alone", True, True),
    ):
        teacher = Teacher(rng, unseen=unseen)
        rows: list[tuple[Sight | None, str, list[Asked]]] = []
        truths, kinds = [], []
        for scene, sight in zip(scenes, sights, strict=True):
            things = () if alone else scene.shown
            said = teacher.words(frozenset(thing.concept for thing in things), seen=not alone)
            each = teacher.kinds(said.upload, 6)
            items = [teacher.item(teacher.ask(said.upload, kind), said, things) for kind in each]
            words = content(said.caption, said.text_in_image)
            rows.append((None if alone else sight, words, items))
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


def rationales(examiner: Examiner, scenes: Sequence[Scene], count: int) -> Figures:
    """Rationales of true violations: valid, the clause right, the centre of the box inside the object."""
    rng = np.random.default_rng(9)
    teacher = Teacher(rng)
    valid: list[bool] = []
    clause_right: list[bool] = []
    place_right: list[bool] = []
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


def reasons(scenes: Sequence[Scene], count: int) -> Figures:
    """Reasons as Weir gives them: the clause that holds alone, words and place put to the proof and mended."""
    rng = np.random.default_rng(9)
    teacher = Teacher(rng)
    classifier = load(ClassifierSpec())
    clause_right: list[bool] = []
    place_right: list[bool] = []
    proven: list[bool] = []
    for scene in track(scenes, description="giving reasons", total=count, transient=True):
        if len(clause_right) == count:
            break
        said = teacher.words(scene.concepts)
        asked = teacher.ask(said.upload, "many")
        broken = asked.broken(said.upload)
        if not broken:
            continue
        upload = classifier_item(scene, said.caption, said.text_in_image)
        found = Classification(question=asked.question.id, score=1.0, media=0)
        (given,) = classifier.explain(upload, [(asked.question, found)])
        clause_right.append(given.clause in broken)
        proven.append(given.supported)
        evidence = dict(asked.clauses).get(given.clause or "")
        if clause_right[-1] and evidence is not None:
            seen = [thing for thing in scene.shown if thing.concept in evidence.evidence]
            if seen:
                box = given.box and [round(100 * edge) for edge in given.box]
                place_right.append(_inside(box, seen))
    return {"clause": share(clause_right), "place": share(place_right), "proven": share(proven)}


def classifier_item(scene: Scene, caption: str, text_in_image: str) -> Upload:
    """Return a scene with its words as a classifier gets it."""
    picture = Picture(media=0, pixels=scene.pixels)
    return Upload(pictures=(picture,), caption=caption, text_in_image=text_in_image)


def _inside(box: Any, things: Sequence[Shown]) -> bool:
    if not (isinstance(box, list) and len(box) == 4):
        return False
    x, y = (box[0] + box[2]) / 200, (box[1] + box[3]) / 200
    return any(
        thing.box[0] <= x <= thing.box[2] and thing.box[1] <= y <= thing.box[3] for thing in things
    )


def _image(pixels: Pixels) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


def photographs(examiner: Examiner, folder: Path) -> Figures:
    """AUROC of "shows a weapon" on photographs, revolvers and cannons against harmless things: reported as it is."""
    from PIL import Image

    question = Question(
        id="weapons",
        policy="weapons",
        question="Does this upload show a weapon?",
        forbidden=(Forbidden(id="W1", text="Shows a weapon.", examples=("a pistol",)),),
        allowed=(Exempt(id="A1", text="Toys."),),
    )
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
    questions = read_policies(HERE.parents[1] / "policies").questions[:12]
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


#: The card's lines: words, where the figure stands, target.
LINES = (
    ("AUROC per concept, median", ("concepts", "median"), "≥ .95"),
    ("AUROC per concept, 10th percentile", ("concepts", "p10"), "≥ .78"),
    ("all kinds of policies, trained wordings, AUROC", ("wordings", "trained wordings"), ""),
    ("all kinds of policies, unseen wordings, AUROC", ("wordings", "unseen wordings"), "≥ .90"),
    ("the same of captions without a picture, AUROC", ("wordings", "captions alone"), ""),
    ("inverted policies, right both ways", ("steering", "inverted"), "≥ .85"),
    ("off-topic policies denied", ("steering", "off-topic"), "≥ .95"),
    ("carve-outs respected, balanced with twins", ("steering", "carve-outs, balanced"), "≥ .80"),
    ("verdicts moved by an instruction", ("steering", "moved by an instruction"), "≤ .03"),
    ("threats and insults read from the image, AUROC", ("signs",), "≥ .90"),
    ("rationales valid (greedy, no grammar)", ("rationales", "valid"), "1.00"),
    ("rationales, clause right", ("rationales", "clause"), "≥ .90"),
    ("rationales, place right", ("rationales", "place"), "≥ .70"),
    ("reasons as Weir gives them, clause right", ("reasons", "clause"), "≥ .90"),
    ("reasons as Weir gives them, place right", ("reasons", "place"), "≥ .70"),
    ("reasons as Weir gives them, stand the proof", ("reasons", "proven"), ""),
    ("photographs: weapons against benign, AUROC", ("photographs",), "as it is"),
)


def rows_of(figures: Figures) -> list[tuple[str, str, str]]:
    """Return the card's table: figure, value with interval, target."""

    def said(part: Mapping[str, Any]) -> str:
        low, high = part["interval"]
        size = f", n = {part['n']}" if "n" in part else ""
        return f"{part['value']:.3f} ({low:.3f} to {high:.3f}{size})"

    made = []
    for words, path, target in LINES:
        part: Any = figures
        for key in path:
            part = part.get(key, {})
        if part:
            made.append((words, said(part), target))
    made += [
        (f"policy `{name}`, AUROC; ECE", f"{said(part)}; {part['ece']:.3f}", "≥ .93; ≤ .04")
        for name, part in figures.get("policies", {}).items()
    ]
    if "speed" in figures:
        speeds = figures["speed"]
        made.append(("12 questions on one picture, ms", f"{speeds['median_ms']:.0f}", "< 100"))
        made.append(("load after imports, s", f"{speeds['load_s']:.2f}", "< 1"))
    return made


def balanced(composer: Composer, count: int) -> Iterator[Scene]:
    """Yield scenes in which every concept is drawn as often as every other."""
    deck: list[int] = []
    for _ in range(count):
        wanted = 1 + int(composer.rng.choice(len(CROWD), p=np.array(CROWD)))
        if len(deck) < wanted:
            deck = composer.rng.permutation(composer.known).tolist()
        yield composer.compose([deck.pop() for _ in range(wanted)])


def evaluate(
    folder: Path, *, only: Sequence[str], sizes: Sizes, split: Split = "test"
) -> Iterator[tuple[str, Figures]]:
    """Yield the figures of these parts, one part after another."""
    torch.set_num_threads(1)
    examiner = Examiner(folder)
    composer = Composer(split, 1234)
    count = sizes.scenes if "concepts" in only else sizes.asked
    drawn = list(
        track(balanced(composer, count), description="composing", total=count, transient=True)
    )
    sights = [
        Sight(outputs=seen, shown=scene.shown)
        for seen, scene in zip(examiner.look([each.pixels for each in drawn]), drawn, strict=True)
    ]
    some = drawn[: sizes.asked], sights[: sizes.asked]
    photos = HERE.parents[2] / "shared" / "data" / "img-caltech101"
    parts: dict[str, Callable[[], Figures]] = {
        "concepts": lambda: concepts(examiner, drawn, sights),
        "wordings": lambda: wordings(examiner, *some),
        "steering": lambda: steering(examiner, *some),
        "signs": lambda: signs(examiner, *some),
        "policies": lambda: policies(examiner, sizes.policy),
        "rationales": lambda: rationales(examiner, drawn, sizes.explained),
        "reasons": lambda: reasons(drawn, sizes.explained),
        "photographs": lambda: photographs(examiner, photos),
        "speed": lambda: speed(examiner, drawn[0]),
    }
    for name in only:
        if name != "photographs" or photos.exists():
            yield name, parts[name]()


def write_card(figures: Figures, path: Path) -> None:
    """Put the table of figures between its marks on the model card."""
    lines = ["| Figure | Value (95 % interval) | Target |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows_of(figures)]
    weakest = list(figures["concepts"]["each"].items())[:8]
    said = ", ".join(f"{name} {value:.2f}" for name, value in weakest)
    lines += [
        "",
        f"The weakest concepts (AUROC): {said}. All of them: [figures.json](figures.json).",
    ]
    head, mark, rest = path.read_text().partition("<!-- figures -->\n")
    tail = rest[rest.index("<!-- /figures -->") :]
    path.write_text(head + mark + "\n".join(lines) + "\n" + tail)


def main() -> None:
    """Print every figure and write them beside the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE)
    parser.add_argument("--scenes", type=int, default=Sizes().scenes)
    parser.add_argument(
        "--asked", type=int, default=Sizes().asked, help="scenes for the other parts"
    )
    parser.add_argument("--policy", type=int, default=Sizes().policy, help="scenes a policy")
    parser.add_argument("--only", default="", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--card", action="store_true", help="put the table into README.md")
    parser.add_argument("--explained", type=int, default=Sizes().explained)
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--out", type=Path, default=HERE / "figures.json")
    chosen = parser.parse_args()
    only = [part for part in chosen.only.split(",") if part]
    sizes = Sizes(chosen.scenes, chosen.asked, chosen.policy, chosen.explained)
    kept = json.loads(chosen.out.read_text()) if only and chosen.out.exists() else {}
    figures: Figures = kept
    for name, part in evaluate(chosen.model, only=only or PARTS, sizes=sizes, split=chosen.split):
        figures[name] = part
        chosen.out.write_text(json.dumps(figures, indent=1) + "\n")
    table = Table("figure", "value (95 % interval)", "target")
    for row in rows_of(figures):
        table.add_row(*row)
    Console(width=110).print(table)
    if chosen.card:
        write_card(figures, HERE / "README.md")


if __name__ == "__main__":
    main()
