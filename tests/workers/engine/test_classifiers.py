"""Every kind of classifier, loaded from a folder as configuration would, keeps the contract."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from policies.question import Question
from workers import prompt
from workers.classifier import Classifier, Item, Picture
from workers.errors import CheckpointError
from workers.loading import load
from workers.spec import ClassifierSpec

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

Saved = Callable[[str], Path]
Noise = Callable[..., Image.Image]

LABELS = {"weapon": "weapons", "pill": "drugs"}
SPECS: dict[str, dict[str, Any]] = {
    "fast_vlm": {},
    "qwen2_5_vl": {},
    "paligemma": {},
    "llama": {"kind": "text"},
    "shieldgemma2": {"kind": "guard"},
    "llama_guard": {"kind": "guard", "options": {"lead": "\n\n"}},
    "llava_onevision": {
        "kind": "guard",
        "options": {
            "dialect": "llavaguard",
            "policy_text": "Assess the image.\nO1: Hate\nO3: Sexual Content\nO6: Weapons",
        },
    },
    "llava": {"kind": "guard", "options": {"dialect": "yes_no"}},
    "llava_alibi": {"kind": "guard", "options": {"dialect": "yes_no"}},
    "clip": {"kind": "contrastive"},
    "siglip": {"kind": "contrastive"},
    "siglip2": {"kind": "contrastive"},
    "vit": {"kind": "image", "labels": LABELS},
    "resnet": {"kind": "image", "labels": LABELS},
    "toxicity": {"kind": "text", "labels": {"insult": "hate", "threat": "hate"}},
    "roberta": {"kind": "text", "labels": {"insult": "hate"}},
}


@pytest.fixture(scope="module")
def loaded(saved: Saved) -> Callable[[str], Classifier]:
    """Return a loader that keeps what it loaded."""
    held: dict[str, Classifier] = {}

    def get(kind: str) -> Classifier:
        if kind not in held:
            spec = ClassifierSpec(name=kind, model=str(saved(kind)), **SPECS[kind])
            held[kind] = load(spec)
        return held[kind]

    return get


@pytest.fixture(scope="module")
def mapped(questions: tuple[Question, ...]) -> tuple[Question, ...]:
    """Return the questions with what guards call them; one is known to no guard."""
    names = {
        "weapons": {"shieldgemma2": "dangerous", "llama_guard": "S9", "llavaguard": "O6"},
        "drugs": {},
        "hate": {"llama_guard": "S2", "llavaguard": "O1"},
        "nudity": {"shieldgemma2": "sexual", "llavaguard": "O3"},
    }
    return tuple(replace(question, maps_to=names[question.id]) for question in questions)


@pytest.fixture(scope="module")
def items(noise: Noise) -> list[Item]:
    """Return an upload with two pictures, one with words alone, one with a picture alone."""

    def picture(media: int, seed: int) -> Picture:
        return Picture(media=media, pixels=np.asarray(noise(seed)))

    return [
        Item(pictures=(picture(0, 1), picture(1, 2)), caption="for sale"),
        Item(caption="you are all rats"),
        Item(pictures=(picture(0, 3),)),
    ]


@pytest.mark.parametrize("kind", sorted(SPECS))
def test_contract(
    kind: str,
    loaded: Callable[[str], Classifier],
    mapped: Sequence[Question],
    items: list[Item],
) -> None:
    """Answers come in the items' order, for what is covered and can be read, with finite scores."""
    classifier = loaded(kind)
    answers = classifier.classify(items, mapped)
    assert len(answers) == len(items)
    for item, found in zip(items, answers, strict=True):
        wanted = [
            question.id
            for question in mapped
            if classifier.covers(question) and readable(item, question, classifier)
        ]
        assert [answer.question for answer in found] == wanted
        assert all(np.isfinite(answer.score) for answer in found)
        assert all(answer.media in {p.media for p in item.pictures} | {None} for answer in found)
    again = classifier.classify(items[::-1], mapped)[::-1]
    for first, second in zip(answers, again, strict=True):
        assert [a.score for a in first] == pytest.approx([a.score for a in second], abs=1e-4)


def readable(item: Item, question: Question, classifier: Classifier) -> bool:
    """Return whether there is something to read, in words other than the code's."""
    reads = question.reads & classifier.reads
    return bool(("image" in reads and item.pictures) or ("caption" in reads and item.caption))


@pytest.mark.parametrize("kind", ["fast_vlm", "paligemma", "llama"])
def test_the_mass_changes_no_score(
    kind: str, saved: Saved, mapped: Sequence[Question], items: list[Item]
) -> None:
    """In 16 bits too a score is the same whether the mass of Yes and No is computed beside it or not."""
    spec = ClassifierSpec(model=str(saved(kind)), dtype="bfloat16", **SPECS[kind])
    plain, beside = (
        [
            answer
            for answers in load(replace(spec, options=options)).classify(items, mapped)
            for answer in answers
        ]
        # Ways of sharing round differently in 16 bits, and which is fastest is chance.
        for options in ({"sharing": "packed"}, {"sharing": "packed", "mass": True})
    )
    assert [a.score for a in plain] == [a.score for a in beside]
    assert all(a.mass is None for a in plain)
    assert all(a.mass is not None and 0 < a.mass <= 1 for a in beside)


@pytest.mark.parametrize("kind", ["toxicity", "roberta"])
def test_a_caption_is_cut(
    kind: str, loaded: Callable[[str], Classifier], mapped: Sequence[Question]
) -> None:
    """Of a caption longer than the places that a model has, the beginning is judged."""
    longer = [Item(caption="you are all rats " * times) for times in (600, 700)]
    first, second = loaded(kind).classify(longer, mapped)
    assert [a.question for a in first] == ["hate"]
    assert first == second


def test_a_tokenizer_says_how_much_is_read(
    saved: Saved, tmp_path: Path, mapped: Sequence[Question]
) -> None:
    """A checkpoint that was trained on less than it has places for is given no more than that."""
    folder = shutil.copytree(saved("toxicity"), tmp_path / "short")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 4
    tokenizer.save_pretrained(folder)
    short = load(ClassifierSpec(name="short", model=str(folder), **SPECS["toxicity"]))
    first, second = short.classify(
        [Item(caption="you are all rats " * times) for times in (20, 40)], mapped
    )
    assert first == second


@pytest.mark.parametrize("kind", ["fast_vlm", "clip", "vit", "shieldgemma2"])
def test_highest_picture_counts(
    kind: str,
    loaded: Callable[[str], Classifier],
    mapped: Sequence[Question],
    items: list[Item],
) -> None:
    """With several pictures a score is the highest of their own, and says which it was."""
    classifier = loaded(kind)
    both = items[0]
    alone = [replace(both, pictures=(picture,)) for picture in both.pictures]
    together, *single = classifier.classify([both, *alone], mapped)
    for number, answer in enumerate(together):
        if answer.media is None:
            continue
        scores = [found[number].score for found in single]
        assert answer.score == pytest.approx(max(scores), abs=1e-4)
        assert answer.media == scores.index(max(scores))


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("kind", ["fast_vlm", "clip", "vit", "shieldgemma2", "llama_guard"])
def test_what_is_no_number_counts(
    kind: str, place: int, loaded: Callable[[str], Classifier], mapped: Sequence[Question]
) -> None:
    """Where a model breaks on one of several pictures, no other picture's score stands in for it."""
    classifier: Any = loaded(kind)
    pixels = [np.full((40, 60, 3), 255 * (number == place), dtype=np.uint8) for number in range(3)]
    item = Item(pictures=tuple(Picture(media=n, pixels=one) for n, one in enumerate(pixels)))
    eye = next(part for part in classifier.model.modules() if isinstance(part, torch.nn.Conv2d))

    def blinded(_: Any, seen: tuple[torch.Tensor], found: torch.Tensor) -> torch.Tensor:
        bright = seen[0].flatten(1).mean(1) > 0
        return torch.where(bright.view(-1, 1, 1, 1), torch.nan, found)

    handle = eye.register_forward_hook(blinded)
    try:
        weapons = [question for question in mapped if question.id == "weapons"]
        ((answer,),) = classifier.classify([item], weapons)
    finally:
        handle.remove()
    assert np.isnan(answer.score)
    assert answer.media == place
    ((answer,),) = classifier.classify([item], weapons)
    assert np.isfinite(answer.score)


def test_image_question_ignores_caption(
    loaded: Callable[[str], Classifier], mapped: Sequence[Question], items: list[Item]
) -> None:
    """A question that reads images alone has the same score whatever is written beside them."""
    classifier = loaded("fast_vlm")
    nudity = [question for question in mapped if question.id == "nudity"]
    told = replace(items[0], caption="something else, and longer")
    one, other = classifier.classify([items[0], told], nudity)
    assert one[0].score == pytest.approx(other[0].score, abs=1e-4)


def test_guard_covers_only_its_categories(
    loaded: Callable[[str], Classifier], mapped: Sequence[Question]
) -> None:
    """A policy that maps to no category of the guard is not covered, so it is never a No."""
    covered = {
        kind: [question.id for question in mapped if loaded(kind).covers(question)]
        for kind in ("shieldgemma2", "llama_guard")
    }
    assert covered == {"shieldgemma2": ["weapons", "nudity"], "llama_guard": ["weapons", "hate"]}


def test_shieldgemma_yes_is_first(
    loaded: Callable[[str], Classifier],
    tiny: Callable[[str], Any],
    mapped: Sequence[Question],
    items: list[Item],
) -> None:
    """The score is that of the model's own first probability, which stands for a violation."""
    made = tiny("shieldgemma2")
    tokenizer = made.processor.tokenizer
    made.model.yes_token_index = tokenizer("Yes", add_special_tokens=False)["input_ids"][0]
    made.model.no_token_index = tokenizer("No", add_special_tokens=False)["input_ids"][0]
    picture = Image.fromarray(items[2].pictures[0].pixels)
    inputs = made.processor(images=[picture], policies=["dangerous"], return_tensors="pt")
    inputs = {k: v for k, v in inputs.items() if isinstance(v, torch.Tensor)}
    with torch.inference_mode():
        violates, allowed = made.model(**inputs).probabilities[0].tolist()
    weapons = [question for question in mapped if question.id == "weapons"]
    score = loaded("shieldgemma2").classify([items[2]], weapons)[0][0].score
    assert score == pytest.approx(float(np.log(violates / allowed)), abs=1e-3)


@pytest.mark.parametrize("kind", ["llama_guard", "llava_onevision", "llava", "llava_alibi"])
def test_guards_say_what_their_model_says(
    kind: str,
    loaded: Callable[[str], Classifier],
    tiny: Callable[[str], Any],
    mapped: Sequence[Question],
    items: list[Item],
) -> None:
    """A score is the log-odds of the violating word, with its category, over the model's own next tokens.

    The caption stands in the prompt of what reads captions, the picture in that of what reads pictures.
    """
    made, guard = tiny(kind), loaded(kind)
    item = items[2]
    item = replace(item, caption="for sale")
    asked = [question for question in mapped if guard.covers(question)]
    assert {question.id for question in asked} >= {"weapons", "hate"}
    answers = guard.classify([item], asked)[0]
    assert [answer.question for answer in answers] == [question.id for question in asked]
    for question, answer in zip(asked, answers, strict=True):
        wanted = said_of(kind, made, item, question)
        assert answer.score == pytest.approx(wanted, abs=1e-3), question.id


@pytest.mark.parametrize("kind", ["guard", "generative"])
def test_sharing_is_tried_on_loading(kind: Any, saved: Saved) -> None:
    """Weights with which sharing fails, whatever their type says, are asked in tier C; others share."""
    options = {"dialect": "yes_no"} if kind == "guard" else {}
    odd: Any = load(ClassifierSpec(model=str(saved("llava_alibi")), kind=kind, options=options))
    usual: Any = load(ClassifierSpec(model=str(saved("llava")), kind=kind, options=options))
    assert (odd.family.tier, usual.family.tier) == ("C", "A")


def said_of(kind: str, made: Any, item: Item, question: Question) -> float:
    """Return the score by the dialect's description, from whole prompts."""
    image = None
    if "image" in question.reads:
        image = Image.fromarray(item.pictures[0].pixels)
    content = item.caption if "caption" in question.reads else ""

    def begun(*lines: str) -> str:
        parts = [{"type": "image"}] if image else []
        parts.append({"type": "text", "text": "\n".join(line for line in lines if line)})
        text: str = made.processor.apply_chat_template(
            [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
        )
        return text

    def after(text: str) -> torch.Tensor:
        tokens = {"text": [text], "add_special_tokens": False, "return_tensors": "pt"}
        inputs = (
            made.processor(images=[[image]], **tokens)
            if image
            else made.processor.tokenizer(**tokens)
        )
        with torch.inference_mode():
            logits: torch.Tensor = made.model(**inputs).logits[0, -1].double()
        return logits

    def word(text: str, said: str) -> int:
        before, both = (made.processor.tokenizer(told)["input_ids"] for told in (text, text + said))
        assert both[: len(before)] == before
        return int(both[len(before)])

    if kind in {"llava", "llava_alibi"}:
        text = begun(content, prompt.statement(question))
        logits = after(text)
        return float(logits[word(text, "yes")] - logits[word(text, "no")])
    if kind == "llama_guard":
        text, unsafe, safe, then = begun(content) + "\n\n", "unsafe", "safe", "\nS"
        numbers = ["1", "9", "2"]
        number = question.maps_to["llama_guard"][1:]
    else:
        text = begun(content, SPECS[kind]["options"]["policy_text"]) + '{\n    "rating": "'
        unsafe, safe, then = "Unsafe", "Safe", '",\n    "category": "O'
        numbers = ["1", "3", "6"]
        number = question.maps_to["llavaguard"][1:]
    logits = after(text)
    verdict = (logits[word(text, unsafe)] - logits[word(text, safe)]).sigmoid()
    text += unsafe + then
    shares = after(text)[[word(text, one) for one in numbers]].softmax(-1)
    both = verdict * shares[numbers.index(number)]
    return float(torch.logit(both))


def test_llavaguard_needs_its_policy(saved: Saved, mapped: Sequence[Question]) -> None:
    """Without the policy that its card gives, the dialect is refused with the remedy."""
    spec = ClassifierSpec(
        model=str(saved("llava_onevision")), kind="guard", options={"dialect": "llavaguard"}
    )
    with pytest.raises(CheckpointError, match=r"options\.policy_text"):
        load(spec)
    text = "Assess the image.\nO1: Hate\nO3: Sexual Content\nO6: Weapons"
    guard = load(replace(spec, options={"dialect": "llavaguard", "policy_text": text}))
    assert [question.id for question in mapped if guard.covers(question)] == [
        "weapons",
        "hate",
        "nudity",
    ]


@pytest.mark.parametrize("kind", ["fast_vlm", "llama_guard", "clip", "vit", "toxicity"])
def test_digest_names_what_matters(kind: str, saved: Saved, tmp_path: Path) -> None:
    """Other weights, words, pixels, number format or attention make another digest; figures and times do not."""
    copy = tmp_path / "copy"
    shutil.copytree(saved(kind), copy)
    spec = ClassifierSpec(model=str(copy), **SPECS[kind])
    first = load(spec).digest
    assert load(spec).digest == first
    assert load(replace(spec, dtype="bfloat16")).digest != first
    assert load(replace(spec, options={**spec.options, "attention": "eager"})).digest != first
    (copy / "figures.json").write_text("{}")
    (copy / "README.md").write_text("# A card")
    for path in copy.iterdir():
        os.utime(path, (1, 1))
    assert load(spec).digest == first
    others = {"figures.json", "README.md", "model.safetensors", "generation_config.json"}
    for path in [path for path in sorted(copy.iterdir()) if path.name not in others]:
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        assert load(spec).digest != first, path.name
        path.write_bytes(before)
    assert load(spec).digest == first
    tensors = load_file(copy / "model.safetensors")
    name = next(key for key, value in tensors.items() if value.dim() > 1)
    tensors[name] = tensors[name] + 0.01
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert load(spec).digest != first


@pytest.mark.parametrize("kind", ["fast_vlm", "llama_guard"])
def test_digest_names_what_is_read(kind: str, saved: Saved) -> None:
    """A classifier that may read images alone has calibrations of its own."""
    spec = ClassifierSpec(model=str(saved(kind)), **SPECS[kind])
    assert load(replace(spec, reads=("image",))).digest != load(spec).digest


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    """A folder without safetensors is refused by name, never unpickled."""
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match="safetensors"):
        load(ClassifierSpec(model=str(tmp_path)))


@pytest.mark.parametrize("kind", ["fast_vlm", "clip", "vit", "shieldgemma2"])
def test_unknown_option_is_refused(kind: str, saved: Saved) -> None:
    """A misspelt option is refused with the names that there are, before anything is loaded."""
    options = {"token_budgte": 1}
    spec = replace(ClassifierSpec(model=str(saved(kind)), **SPECS[kind]), options=options)
    with pytest.raises(CheckpointError, match="device"):
        load(spec)
