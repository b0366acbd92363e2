"""`weir bench text-risk`: what calibration buys on real labels, with a plain logistic head on sentence embeddings.

Each set of texts is cut in three by cluster (retweets and contrast pairs stay together): a head is trained on the
first, a calibration fitted on the second, and everything is measured on the third. Texts are never shown: rows have
numbers.
"""

import csv
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from pipeline.calibrating import at, fit_answers
from pipeline.calibration import logistic
from pipeline.reliability import Figure, Vector, auroc, bootstrap, brier, ece, ece_floor
from pipeline.scored import Scores
from pipeline.thresholds import act_at, independent
from policies.schema import Precision

#: Shares of wrong decisions at which automation is measured.
RISKS: Final = (0.01, 0.02, 0.05)
#: What the sets are called, and the columns of text and label.
_DAVIDSON: Final = "text-davidson-tweets/labeled_data.csv"
_HATEMOJI: Final = (
    "text-hatemoji/HatemojiBuild_train.csv",
    "text-hatemoji/HatemojiBuild_validation.csv",
)
#: Texts that are encoded, and kept, together.
_PART: Final = 500
_WORD: Final = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Labelled texts; `rows` are their numbers in the file, `clusters` what near-duplicates share."""

    name: str
    rows: NDArray[np.int64]
    texts: Sequence[str]
    labels: Vector
    clusters: NDArray[np.str_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Automation:
    """What is decided without a person at a stated risk: the share, and how much of it was wrong."""

    risk: float
    #: Taking the head's probabilities at their word, then the calibrated ones, then a proven threshold.
    before: tuple[float, float]
    after: tuple[float, float]
    proven: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One set's figures on held-back texts."""

    name: str
    trained: int
    fitted: int
    held: int
    share: float
    auroc: Figure
    method: str
    ece_before: Figure
    ece_after: Figure
    floor: float
    brier_before: float
    brier_after: float
    automation: tuple[Automation, ...]
    #: Said and was, for the diagrams, before and after.
    before: tuple[tuple[float, float], ...]
    after: tuple[tuple[float, float], ...]


def read_texts(folder: Path, *, limit: int | None = None, seed: int = 0) -> list[Texts]:
    """Return the labelled sets below a folder: tweets for two questions, emoji hate for one; at most `limit` of each.

    Raises:
        FileNotFoundError: a file is missing; the message names it.
    """
    tweets = _rows(folder / _DAVIDSON)
    chosen = _chosen(len(tweets), limit, seed)
    words = [tweets[n]["tweet"] for n in chosen]
    kinds = np.array([int(tweets[n]["class"]) for n in chosen])
    clusters = np.array([_shape(text) for text in words])
    emoji = [row for file in _HATEMOJI for row in _rows(folder / file)]
    picked = _chosen(len(emoji), limit, seed)
    pairs = np.array(
        [(emoji[n]["matched_text"] and "p" + _pair(emoji[n])) or "s" + str(n) for n in picked]
    )
    return [
        Texts(
            name="hate, tweets",
            rows=chosen,
            texts=words,
            labels=(kinds == 0).astype(float),
            clusters=clusters,
        ),
        Texts(
            name="hate or insult, tweets",
            rows=chosen,
            texts=words,
            labels=(kinds <= 1).astype(float),
            clusters=clusters,
        ),
        Texts(
            name="hate, emoji",
            rows=picked,
            texts=[emoji[n]["text"] for n in picked],
            labels=np.array([float(emoji[n]["label_gold"]) for n in picked]),
            clusters=pairs,
        ),
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there; name the folder that holds {path.parent.name}"
        )
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _chosen(count: int, limit: int | None, seed: int) -> NDArray[np.int64]:
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[: limit or count])


def _shape(text: str) -> str:
    """Return what retweets of one text share: its words, without whom it mentions."""
    words = [w for w in _WORD.findall(text.lower()) if w != "rt"]
    return hashlib.sha256(" ".join(words[-8:]).encode()).hexdigest()[:16]


def _pair(row: dict[str, str]) -> str:
    both = sorted((row["text"], row["matched_text"]))
    return hashlib.sha256("\n".join(both).encode()).hexdigest()[:16]


def measure(texts: Texts, vectors: NDArray[np.float32], *, seed: int = 0) -> Found:
    """Train a head, calibrate it, and return how both do on texts that neither has seen."""
    rng = np.random.default_rng(seed)
    names, cluster = np.unique(texts.clusters, return_inverse=True)
    part = rng.choice(3, len(names), p=[0.5, 0.25, 0.25])[cluster]
    train, fit_on, held = (part == n for n in range(3))
    head = LogisticRegression(C=10.0, max_iter=2000)
    head.fit(vectors[train], texts.labels[train])
    scores = np.asarray(head.decision_function(vectors), float)
    scored = Scores(
        scores=scores[fit_on],
        labels=texts.labels[fit_on],
        weights=np.ones(int(fit_on.sum())),
        clusters=tuple(texts.clusters[fit_on]),
    ).one_a_cluster(seed)
    fitted = fit_answers(scored, seed=seed)
    truth = texts.labels[held]
    raw = np.array([logistic(float(s)) for s in scores[held]])
    said = at(fitted.curve, scores[held])
    for_proof = at(fitted.curve, scored.scores)
    return Found(
        name=texts.name,
        trained=int(train.sum()),
        fitted=len(scored.labels),
        held=int(held.sum()),
        share=float(texts.labels.mean()),
        auroc=bootstrap(auroc, scores[held], truth),
        method=fitted.method,
        ece_before=bootstrap(ece, raw, truth),
        ece_after=bootstrap(ece, said, truth),
        floor=ece_floor(said),
        brier_before=brier(raw, truth),
        brier_after=brier(said, truth),
        automation=tuple(
            Automation(
                risk=risk,
                before=_at_its_word(raw, truth, risk),
                after=_at_its_word(said, truth, risk),
                proven=_proven(for_proof, scored, said, truth, risk),
            )
            for risk in RISKS
        ),
        before=tuple(zip(raw.tolist(), truth.tolist(), strict=True)),
        after=tuple(zip(said.tolist(), truth.tolist(), strict=True)),
    )


def _at_its_word(said: Vector, truth: Vector, risk: float) -> tuple[float, float]:
    """Return the share that is decided where the probability itself says that the risk is no larger."""
    return _automated(said >= 1 - risk, said <= risk, truth)


def _proven(
    for_proof: Vector, scored: Scores, said: Vector, truth: Vector, risk: float
) -> tuple[float, float]:
    """Return the share beyond thresholds that keep the risk with 95 % confidence on either side."""
    promise = Precision(precision=1 - risk)
    up = act_at(independent(for_proof, scored.labels), promise).value
    # What passes is the same thing seen from below.
    down = act_at(independent(1 - for_proof, 1 - scored.labels), promise).value
    return _automated(
        np.zeros(len(said), bool) if up is None else said >= up,
        np.zeros(len(said), bool) if down is None else 1 - said >= down,
        truth,
    )


def _automated(
    acts: NDArray[np.bool_], passes: NDArray[np.bool_], truth: Vector
) -> tuple[float, float]:
    decided = acts | passes
    wrong = (acts & (truth == 0)) | (passes & ~acts & (truth == 1))
    return float(decided.mean()), float(wrong.sum() / decided.sum()) if decided.any() else 0.0


def vectors_of(
    texts: Sequence[str],
    *,
    cache: Path | None,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[NDArray[np.float32], str]:
    """Return a vector for each text and what made it: the sentence encoder, or word shapes where it is absent."""
    from workers.sentences import available, encode

    if not available():
        advance(len(texts))
        return _shapes(texts), "character n-grams and SVD"
    name = "all-MiniLM-L6-v2"
    parts = []
    # In parts, so that an interrupted run goes on where it was.
    for start in range(0, len(texts), _PART):
        part = texts[start : start + _PART]
        digest = hashlib.sha256("\0".join((name, *part)).encode("utf-8", "replace")).hexdigest()
        path = None if cache is None else cache / f"{digest[:24]}.npy"
        if path is not None and path.is_file():
            vectors = np.asarray(np.load(path), np.float32)
        else:
            vectors = encode(part)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, vectors)
        parts.append(vectors)
        advance(len(part))
    return np.concatenate(parts), name


def _shapes(texts: Sequence[str]) -> NDArray[np.float32]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    grams = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), max_features=60_000, sublinear_tf=True
    )
    table = grams.fit_transform(texts)
    size = min(256, table.shape[1] - 1, len(texts) - 1)
    return np.asarray(TruncatedSVD(size, random_state=0).fit_transform(table), np.float32)
