"""Figures of classifiers: planted quality comes out, and the cheapest good enough is named."""

import numpy as np
import pytest

from pipeline.evaluating import Evaluated, Watched, good_enough
from pipeline.evaluation_page import page
from pipeline.reliability import auroc, average_precision, bootstrap, ece, ece_floor
from pipeline.scored import Scores
from workers.classifier import Item, Picture
from workers.spec import ClassifierSpec
from workers.stub import StubClassifier


def evaluated(name: str, *, noise: float, ms: float, seed: int = 3) -> Evaluated:
    """Return figures of a classifier whose scores are the truth with so much noise."""
    labels = np.tile([0.0, 1.0], 200)
    rng = np.random.default_rng(seed)
    scores = labels * 2 - 1 + rng.normal(0, noise, len(labels))
    probabilities = 1 / (1 + np.exp(-scores))
    return Evaluated(
        question="weapons",
        classifier=name,
        digest=f"sha256:{name}",
        violates=200,
        allowed=200,
        auroc=bootstrap(auroc, scores, labels),
        average_precision=bootstrap(average_precision, scores, labels),
        ece=bootstrap(ece, probabilities, labels),
        ece_floor=ece_floor(probabilities),
        calibrated=False,
        bands=(),
        mass=None,
        ms_per_upload=ms,
        ms_per_image=None,
        scores=Scores(
            scores=scores,
            labels=labels,
            weights=np.ones(len(labels)),
            clusters=tuple(map(str, range(len(labels)))),
        ),
        probabilities=probabilities,
    )


def test_cheapest_good_enough() -> None:
    """A cheaper equal is chosen; a cheaper one that is measurably worse is not."""
    best = evaluated("best", noise=0.5, ms=100)
    equal = evaluated("equal", noise=0.5, ms=10, seed=4)
    poor = evaluated("poor", noise=4, ms=1)
    assert good_enough([best, equal, poor]) == {"weapons": "equal"}
    assert good_enough([best, poor]) == {"weapons": "best"}


def test_time_is_counted_by_the_picture() -> None:
    """Of uploads with several pictures the time is an image's; a classifier of captions has none."""
    picture = Picture(media=0, pixels=np.zeros((8, 8, 3), np.uint8))
    items = [Item(pictures=(picture,) * 3), Item(pictures=(picture,), caption="x"), Item()]
    for reads in (("image", "caption"), ("caption",)):
        spec = ClassifierSpec(kind="stub", model="stub", reads=reads, options={"batch_s": 0.01})
        watched = Watched(StubClassifier(spec))
        watched.classify(items, [])
        assert watched.ms_per_upload == pytest.approx(1e3 * watched.seconds / 3)
        each = pytest.approx(1e3 * watched.seconds / 5) if "image" in reads else None
        assert watched.ms_per_image == each


def test_page_is_one_file() -> None:
    """The page names the figures, has its pictures inside, and neither runs nor fetches anything."""
    found = [evaluated("<b>odd</b>", noise=1, ms=5)]
    text = page(found, {"weapons": "<b>odd</b>"}, source="labels")
    assert text.count("<svg") == 3
    assert "<script" not in text
    assert "http" not in text
    assert "<b>odd</b></b>" not in text
