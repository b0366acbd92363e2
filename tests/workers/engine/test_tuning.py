"""Tuning: what a checkpoint learns from labels, and what is written of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config import environment
from pipeline.labels import read_labels
from pipeline.tuning import fit
from policies.schema import Policy
from workers.bounds import Bounds
from workers.classifier import Item, Picture
from workers.errors import CheckpointError
from workers.generative import GenerativeClassifier
from workers.loading import load
from workers.reading import Reading
from workers.spec import ClassifierSpec
from workers.tuning import Recipe
from workers.weights import loading_of

pytestmark = pytest.mark.filterwarnings(
    # of libraries that peft and torch.compile load
    "ignore:.torch.jit.script:DeprecationWarning",
    "ignore:.is_gradient_checkpointing:FutureWarning",
    "ignore:__array__ implementation",
)

READING = Reading(bounds=Bounds())
POLICY = Policy.model_validate(
    {
        "policy": "bright",
        "title": "Bright",
        "version": 1,
        "status": "live",
        "reads": ["image"],
        "question": "Is the picture bright?",
        "clauses": {"B1": {"text": "Is bright."}},
        "severity": "low",
        "action": "restrict",
        "bands": {"review": 0.5, "act": "never"},
        "review": {"queue": "intake"},
    }
)


def bright_and_dark(folder: Path, count: int) -> Path:
    """Write labelled pictures, half of them bright."""
    folder.mkdir()
    rows = []
    for number in range(count):
        rng = np.random.default_rng(number)
        light = 225 if number % 2 else 30
        pixels = np.clip(rng.normal(light, 12, (48, 48, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(
            {"id": str(number), "media": [f"{number}.png"], "answers": {"bright": bool(number % 2)}}
        )
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_checkpoint_learns_its_platform(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """After tuning, held-back uploads are judged better by the checkpoint as written, and its card says how."""
    spec = ClassifierSpec(model=str(saved("fast_vlm")), rationales=False)
    labelled = read_labels(bright_and_dark(tmp_path / "labels", 48))
    losses: list[float] = []
    found = fit(
        labelled,
        spec,
        [POLICY],
        Recipe(epochs=6, rate=5e-3, batch=8),
        tmp_path / "tuned",
        reading=READING,
        advance=losses.append,
    )
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert found.better
    (one,) = found.questions
    assert one.log_loss_after < one.log_loss_before
    assert found.learned_from + found.held_back == 48
    assert found.held_back == one.violates + one.allowed
    written = load(replace(spec, model=str(tmp_path / "tuned")))
    assert written.digest == found.digest != load(spec).digest
    card = (tmp_path / "tuned" / "README.md").read_text()
    assert POLICY.questions[0].digest in card
    assert f"{one.log_loss_after:.3f}" in card
    with pytest.raises(CheckpointError, match="exists"):
        fit(labelled, spec, [POLICY], Recipe(), tmp_path / "tuned", reading=READING)


def test_one_kind_of_label_teaches_nothing(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """Labels that all say the same are refused, and no folder is left."""
    labelled = [
        row
        for row in read_labels(bright_and_dark(tmp_path / "labels", 24))
        if row.answers["bright"]
    ]
    with pytest.raises(CheckpointError, match="both kinds"):
        fit(
            labelled,
            ClassifierSpec(model=str(saved("fast_vlm")), rationales=False),
            [POLICY],
            Recipe(),
            tmp_path / "tuned",
            reading=READING,
        )
    assert not (tmp_path / "tuned").exists()


def test_quantised_weights_score_nearly_the_same(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    """In 8 bits the language part's layers are smaller, scores move little, and the digest is another."""
    spec = ClassifierSpec(model=str(saved("llava")), rationales=False)
    small = replace(spec, options={"quantise": "int8"})
    (row,) = read_labels(bright_and_dark(tmp_path / "labels", 1))
    pixels = np.asarray(Image.open(row.media[0]))
    item = Item(pictures=(Picture(media=0, pixels=pixels),))
    plain, quantised = load(spec), load(small)
    assert isinstance(quantised, GenerativeClassifier)
    assert quantised.family.tier == "A"
    kinds = {
        name: part.weight.dtype
        for name, part in quantised.model.named_modules()
        if isinstance(part, torch.nn.Linear) and part.weight.dtype == torch.int8
    }
    assert kinds
    assert not any("vision" in name for name in kinds)
    before, after = (c.classify([item], POLICY.questions)[0][0].score for c in (plain, quantised))
    assert before != after
    assert after == pytest.approx(before, abs=0.05 + 0.1 * abs(before))
    assert plain.digest != quantised.digest
    with pytest.raises(CheckpointError, match="quantise is int8"):
        load(replace(spec, options={"quantise": "int3"}))


@pytest.mark.timeout(1200)
@pytest.mark.skipif(not environment().get("WEIR_TEST_LONG"), reason="compiles for minutes")
def test_a_compiled_tower_scores_the_same(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """Compiling the tower is part of the digest, and moves no score by more than rounding."""
    spec = ClassifierSpec(model=str(saved("llava")), rationales=False)
    (row,) = read_labels(bright_and_dark(tmp_path / "labels", 1))
    item = Item(pictures=(Picture(media=0, pixels=np.asarray(Image.open(row.media[0]))),))
    plain, compiled = load(spec), load(replace(spec, options={"compile": True}))
    before, after = (c.classify([item], POLICY.questions)[0][0].score for c in (plain, compiled))
    assert after == pytest.approx(before, abs=1e-3)
    assert plain.digest != compiled.digest


def test_how_it_is_loaded_is_in_the_digest() -> None:
    """What changes scores on loading is told, and the usual way is told as nothing, so that digests stay."""
    assert loading_of(ClassifierSpec()) == {}
    assert loading_of(ClassifierSpec(options={"compile": True, "quantise": "int8"})) == {
        "compile": True,
        "quantise": "int8",
    }
