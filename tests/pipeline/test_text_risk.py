"""`weir bench text-risk`: sets are read, cut by cluster, measured, and shown without a word of theirs."""

import csv
from pathlib import Path

import numpy as np
import pytest

from pipeline.text_risk import Texts, measure, read_texts, vectors_of
from pipeline.text_risk_page import page
from workers.sentences import available, encode


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """Write rows as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder laid out as the sets are, with harmless words."""
    tweets = [
        {"class": n % 3, "tweet": f"RT @somebody: word{n % 40} and more {n % 40}"}
        for n in range(120)
    ]
    write(tmp_path / "text-davidson-tweets" / "labeled_data.csv", list(tweets))
    for part in ("train", "validation"):
        rows: list[dict[str, object]] = [
            {"text": f"{part} {n}", "label_gold": n % 2, "matched_text": f"{part} {n ^ 1}"}
            for n in range(20)
        ]
        write(tmp_path / "text-hatemoji" / f"HatemojiBuild_{part}.csv", rows)
    return tmp_path


def test_sets_keep_near_duplicates_and_pairs_together(folder: Path) -> None:
    """Retweets of one text share a cluster, and so do the two texts of a contrast pair."""
    hate, either, emoji = read_texts(folder)

    assert len(set(hate.clusters)) == 40
    assert (hate.labels.sum(), either.labels.sum()) == (40, 80)
    assert len(set(emoji.clusters)) == 20
    assert list(read_texts(folder, limit=50)[0].rows) == sorted(
        read_texts(folder, limit=50)[0].rows
    )


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    """A folder without the sets says which file it misses."""
    with pytest.raises(FileNotFoundError, match=r"labeled_data\.csv is not there"):
        read_texts(tmp_path)


def test_the_page_shows_figures_and_no_text() -> None:
    """Calibration, Brier and automation before and after stand on the page; what people wrote does not."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 1200).astype(float)
    vectors = rng.normal(0, 1, (1200, 30)).astype(np.float32)
    vectors[:, 0] += 1.5 * truth
    texts = Texts(
        name="made up",
        rows=np.arange(1200),
        texts=["SECRET WORDS"] * 1200,
        labels=truth,
        clusters=np.array([str(n) for n in range(1200)]),
    )

    found = measure(texts, vectors)
    shown = page([found], made_by="random numbers")

    assert found.trained + found.held < 1200
    assert found.auroc.value > 0.8
    assert found.ece_after.value < found.floor + 0.05
    assert [a.risk for a in found.automation] == [0.01, 0.02, 0.05]
    assert "SECRET" not in shown
    assert "<script" not in shown
    assert shown.count("<svg") == 2


def test_without_the_encoder_word_shapes_stand_in() -> None:
    """Each text gets a vector, and the page is told what made it."""
    texts = [f"a plain sentence number {n}" for n in range(60)]

    if available():
        vectors = encode(texts[:3])
        assert vectors.shape == (3, 384)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    else:
        vectors, made_by = vectors_of(texts, cache=None)
        assert len(vectors) == 60
        assert made_by == "character n-grams and SVD"
