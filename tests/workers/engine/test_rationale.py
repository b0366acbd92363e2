"""Reasons: held to their form, read with suspicion, and put to the proof."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from policies.question import Question
from workers import prompt
from workers.classifier import Classification, Item, Picture, Rationale
from workers.continuing import written
from workers.generative import GenerativeClassifier
from workers.loading import load
from workers.passes import Row
from workers.proof import PLACES, around, only, proven
from workers.rationale import Reasons, row_for
from workers.reason import MAX_TEXT, Reason, agreement, ask_alone, read
from workers.scoring import Odds
from workers.spec import ClassifierSpec

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

Noise = Callable[..., Image.Image]


def said(**changes: Any) -> str:
    """Return a good reason as JSON, with changes."""
    good = {"clause": "W1", "text": "A pistol.", "media": 0, "box": [10, 20, 30, 40]}
    return json.dumps(good | changes)


def test_a_good_reason_is_read(questions: tuple[Question, ...]) -> None:
    """Clause, words and place come out; the place as shares of the picture."""
    assert read(said(), questions[0]) == Reason(
        clause="W1", text="A pistol.", seen=True, box=(0.1, 0.2, 0.3, 0.4)
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        said(clause="X9"),
        said(clause="A1"),
        said(text=" \u200b"),
        said(box=[30, 20, 10, 40]),
        said(box=[0, 0, 0, 101]),
        said(box=[1, 2, 3]),
        said(box="all"),
    ],
)
def test_bad_reasons_are_none(text: str, questions: tuple[Question, ...]) -> None:
    """What is no JSON, names no clause of the policy, or no possible place, is no reason."""
    assert read(text, questions[0]) is None


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes reading fail, and no words come out that are hidden or too long."""
    from policies.question import Forbidden

    question = Question(id="q", policy="q", question="?", forbidden=(Forbidden(id="W1", text="x"),))
    assert read(text, question) is None or text
    found = read(said(text=text, box=None), question)
    if found is not None:
        assert len(found.text) <= MAX_TEXT
        assert found.text.isprintable()


def test_clause_alone_drops_beaten_exceptions(questions: tuple[Question, ...]) -> None:
    """The question about one clause leaves out the exceptions that the clause beats."""
    assert ask_alone(questions[0], "W1").allowed == ()
    assert [e.id for e in ask_alone(questions[0], "W2").allowed] == ["A1"]


def test_only_the_place_is_left() -> None:
    """Inside the place the picture is as it was, far from it there is one colour; size stays."""
    pixels = np.random.default_rng(0).integers(0, 255, (100, 200, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    for box in ((0.0, 0.0, 0.1, 0.1), (0.9, 0.9, 1.0, 1.0), (0.3, 0.3, 0.6, 0.7)):
        alone = np.asarray(only(image, box))
        rows = slice(int(box[1] * 100), int(box[3] * 100))
        columns = slice(int(box[0] * 200), int(box[2] * 200))
        assert np.array_equal(alone[rows, columns], pixels[rows, columns])
        far = alone[50, 150] if box[0] < 0.9 and box[2] < 0.65 else alone[10, 10]
        assert np.array_equal(far, alone[99, 0] if box[1] < 0.9 else alone[0, 0])
    assert np.array_equal(np.asarray(only(image, (0.0, 0.0, 1.0, 1.0))), pixels)


@pytest.mark.parametrize("kind", ["fast_vlm", "paligemma", "mllama", "qwen2_5_vl"])
def test_form_is_kept_by_random_weights(
    kind: str, tiny: Callable[[str], Any], questions: tuple[Question, ...], noise: Noise
) -> None:
    """Even random weights write JSON of the form, with a clause of the policy, in every tier."""
    reasons = Reasons(tiny(kind).scorer())
    row = Row(shared=prompt.prefix(images=1), image=noise(1), asked=(0,))
    text = reasons._write(row, questions[0])
    assert json.loads(text)["clause"] in {"W1", "W2"}


def test_the_cache_writes_what_the_model_writes(tiny: Callable[[str], Any], noise: Noise) -> None:
    """Continuing on the shared prefix gives the tokens of the model's own generation."""
    made = tiny("qwen2_5_vl")
    scorer = made.scorer()
    row = Row(shared=prompt.prefix(images=1, caption="for sale"), image=noise(2), asked=(0,))
    tokens = written(scorer.passes, row, "Why?", lambda logits: int(logits.argmax()), limit=8)
    inputs = scorer.passes.inputs([scorer.dialogue.whole(row.shared, "Why?")], [row])
    with torch.inference_mode():
        out = made.model.generate(
            **inputs, max_new_tokens=8, min_new_tokens=8, do_sample=False, pad_token_id=0
        )
    assert tokens == out[0, inputs["input_ids"].shape[1] :].tolist()


class Written(Reasons):
    """Reasons whose model wrote given texts: first the likeliest, then those that are drawn."""

    def __init__(self, scorer: Any, *texts: str) -> None:
        super().__init__(scorer)
        self._texts = texts

    def _write(self, row: Row, question: Question, *, draw: int = 0) -> str:
        del row, question
        return self._texts[draw]


class Seeing:
    """Scores as of a model that sees one white square: it believes some words, and a place that holds the square."""

    def __init__(self, real: Any, believed: set[str], *, blind: bool = False) -> None:
        self.passes, self.dialogue = real.passes, real.dialogue
        self._believed = believed
        self._blind = blind

    def score(self, rows: list[Row], asks: list[str]) -> list[list[Odds]]:
        """Answer for each row what is asked about it."""
        return [[self._odds(row, asks[ask]) for ask in row.asked] for row in rows]

    def _odds(self, row: Row, ask: str) -> Odds:
        if row.image is None or not any(f": {words}" in ask for words in self._believed):
            return Odds(score=-2.0)
        seen = int((np.asarray(row.image) == 255).all(axis=2).sum()) / SQUARE.area
        whole = np.array_equal(np.asarray(row.image), SQUARE.pixels)
        return Odds(score=3.0 if whole else -1.0 if self._blind else 4 * seen - 2)


class SQUARE:
    """A white square on black, and where it is."""

    pixels = np.zeros((120, 120, 3), dtype=np.uint8)
    pixels[72:96, 60:84] = 255
    area = 24 * 24
    box = (0.5, 0.6, 0.7, 0.8)
    item = Item(pictures=(Picture(media=2, pixels=pixels),))


#: The clause's own words, and the reason's.
SELLS, PISTOL = "Offers a weapon for sale.", "A pistol."


def inside(box: Any) -> bool:
    """Return whether the middle of a place is on the square."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return bool(SQUARE.box[0] <= x <= SQUARE.box[2] and SQUARE.box[1] <= y <= SQUARE.box[3])


def explained(
    real: Any, question: Question, believed: set[str], text: str, *, blind: bool = False
) -> Rationale:
    """Return the rationale of a model that believes some words and wrote a text."""
    found = Classification(question="weapons", score=1.0, media=2)
    seeing = Seeing(real, believed, blind=blind)
    return Written(seeing, text).explain(SQUARE.item, question, found)


def test_unreadable_reasons_are_unsupported(
    tiny: Callable[[str], Any], questions: tuple[Question, ...]
) -> None:
    """What cannot be read names no clause and has no support, whatever is believed."""
    given = explained(tiny("fast_vlm").scorer(), questions[0], {SELLS, PISTOL}, "{")

    assert (given.clause, given.supported, given.box) == (None, False, None)


def test_confirmed_reasons_stand_as_they_were_written(
    tiny: Callable[[str], Any], questions: tuple[Question, ...]
) -> None:
    """Clause, words and place that are confirmed are shown as they are, with their picture."""
    text = said(box=[50, 60, 70, 80])
    given = explained(tiny("fast_vlm").scorer(), questions[0], {SELLS, PISTOL}, text)

    assert (given.clause, given.text, given.supported) == ("W1", PISTOL, True)
    assert (given.media, given.box) == (2, SQUARE.box)


def test_a_denied_clause_has_no_support(
    tiny: Callable[[str], Any], questions: tuple[Question, ...]
) -> None:
    """Where the clause is denied by itself, words that are believed do not help."""
    given = explained(tiny("fast_vlm").scorer(), questions[0], {PISTOL}, said(box=None))

    assert (given.clause, given.supported) == ("W1", False)


def test_denied_words_give_way_to_the_clause(
    tiny: Callable[[str], Any], questions: tuple[Question, ...]
) -> None:
    """Words that are denied are not shown; the clause's own, which were confirmed, are, and stand."""
    given = explained(tiny("fast_vlm").scorer(), questions[0], {SELLS}, said(box=None))

    assert (given.clause, given.text, given.supported) == ("W1", SELLS, True)


def test_a_place_that_the_model_did_not_name_is_looked_for(
    tiny: Callable[[str], Any], questions: tuple[Question, ...]
) -> None:
    """Where the picture breaks the clause and the text alone would not, a person is shown where."""
    given = explained(tiny("fast_vlm").scorer(), questions[0], {SELLS, PISTOL}, said(box=None))

    assert given.supported
    assert inside(given.box)


@given(text=st.sampled_from([2.0, -2.0, float("nan")]), there=st.sampled_from([2.0, -2.0]))
def test_no_place_is_made_up(text: float, there: float, questions: tuple[Question, ...]) -> None:
    """What the text breaks by itself has no place in the picture, and what no window confirms has none either."""

    def ask(images: Any, about: Any) -> list[list[float]]:
        if images == [None]:
            return [[text]]
        return [[there if len(images) > 1 or len(about) == 1 else 2.0] * len(about) for _ in images]

    reason = Reason(clause="W1", text=PISTOL, seen=True, box=None)
    stands = proven(ask, questions[0], reason, Image.fromarray(SQUARE.pixels))

    assert stands.supported
    assert (stands.reason.box is not None) == (text < 0 and there > 0)


def test_a_denied_place_gives_way_to_one_that_is_confirmed(
    tiny: Callable[[str], Any], questions: tuple[Question, ...]
) -> None:
    """A place without the thing is not shown; the one where the windows have it is, and was asked about too."""
    text = said(box=[5, 5, 25, 25])
    given = explained(tiny("fast_vlm").scorer(), questions[0], {SELLS, PISTOL}, text)

    assert given.supported
    assert inside(given.box)


def test_a_place_that_is_denied_everywhere_has_no_support(
    tiny: Callable[[str], Any], questions: tuple[Question, ...]
) -> None:
    """Where the whole is confirmed but no place alone, the reason is unsupported."""
    text = said(box=[50, 60, 70, 80])
    real = tiny("fast_vlm").scorer()
    given = explained(real, questions[0], {SELLS, PISTOL}, text, blind=True)

    assert not given.supported


@pytest.mark.parametrize("again", [2.0, -2.0])
def test_a_mended_place_is_itself_asked_about(
    again: float, questions: tuple[Question, ...]
) -> None:
    """A place put together from windows is shown where it is confirmed; else the surest window is, which was."""
    asked: list[int] = []
    windows = [
        3.0 if place == PLACES[7] else 2.5 if place == PLACES[8] else -3.0 for place in PLACES
    ]

    def ask(images: Any, about: Any) -> list[list[float]]:
        asked.append(len(images))
        if len(images) > 1:
            return [[one] * len(about) for one in (-1.0, *windows)]
        return [[1.0, 1.0] if len(about) == 2 else [again]]

    reason = Reason(clause="W1", text=PISTOL, seen=True, box=(0.0, 0.8, 0.1, 0.9))
    stands = proven(ask, questions[0], reason, Image.fromarray(SQUARE.pixels))

    assert asked == [1, 1 + len(PLACES), 1]
    assert (stands.supported, stands.denied) == (True, ("box",))
    assert stands.reason.box == (around(windows) if again > 0 else PLACES[7])


@pytest.mark.parametrize("excused", [3.0, -1.0])
def test_a_place_is_looked_for_without_carve_outs_too(
    excused: float, questions: tuple[Question, ...]
) -> None:
    """Where carve-outs leave all windows alike, the clause without them says where; it stands if they allow it."""
    assert questions[0].allowed

    def ask(images: Any, about: Any) -> list[list[float]]:
        if len(images) == 1:
            return [[1.0, 1.0] if len(about) == 2 else [excused]]
        bare = [2.0 if place == PLACES[7] else -3.0 for place in PLACES]
        return [[-2.0, -3.0], *([excused, one] for one in bare)]

    reason = Reason(clause="W1", text=PISTOL, seen=True, box=(0.0, 0.8, 0.1, 0.9))
    stands = proven(ask, questions[0], reason, Image.fromarray(SQUARE.pixels))

    left, top, right, bottom = stands.reason.box or (0.0, 0.0, 0.0, 0.0)
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx(
        ((PLACES[7][0] + PLACES[7][2]) / 2, (PLACES[7][1] + PLACES[7][3]) / 2), abs=0.06
    )
    assert stands.supported == (excused > 0)


def test_a_place_that_carve_outs_excuse_gives_way_to_a_confirmed_one(
    questions: tuple[Question, ...],
) -> None:
    """However sure the clause alone is of the model's own place: what is denied there may be confirmed elsewhere."""

    def ask(images: Any, about: Any) -> list[list[float]]:
        if len(images) == 1:
            return [[1.0, 1.0] if len(about) == 2 else [2.0]]
        windows = [[2.0, 2.0] if place == PLACES[7] else [-3.0, -3.0] for place in PLACES]
        return [[-1.0, 8.0], *windows]

    reason = Reason(clause="W1", text=PISTOL, seen=True, box=(0.0, 0.8, 0.1, 0.9))
    stands = proven(ask, questions[0], reason, Image.fromarray(SQUARE.pixels))

    assert stands.reason.box != reason.box
    assert (stands.supported, stands.denied) == (True, ("box",))


@given(
    clause=st.sampled_from([2.0, -2.0]),
    words=st.sampled_from([2.0, -2.0]),
    place=st.sampled_from([2.0, -2.0, float("nan")]),
    elsewhere=st.sampled_from([3.0, -3.0]),
)
def test_what_the_model_denies_of_its_own_is_named(
    clause: float, words: float, place: float, elsewhere: float, questions: tuple[Question, ...]
) -> None:
    """Each part is named where it was denied, and only there; a surer place elsewhere denies nothing by itself."""

    def ask(images: Any, about: Any) -> list[list[float]]:
        if len(images) > 1:
            return [[one] * len(about) for one in (place, *[elsewhere] * len(PLACES))]
        return [[clause, words] if len(about) == 2 else [3.0]]

    reason = Reason(clause="W1", text=PISTOL, seen=True, box=(0.0, 0.8, 0.1, 0.9))
    stands = proven(ask, questions[0], reason, Image.fromarray(SQUARE.pixels))

    odds = {"clause": clause, "text": words, "box": place}
    assert stands.denied == tuple(part for part, sure in odds.items() if not sure > 0)
    assert not (stands.supported and "text" in stands.denied and stands.reason.text == PISTOL)


def test_what_is_no_number_confirms_nothing(questions: tuple[Question, ...]) -> None:
    """A model that broke on one place alone has confirmed no place."""

    def ask(images: Any, about: Any) -> list[list[float]]:
        broken = 5 if len(images) > 1 else None
        return [
            [float("nan") if number == broken else 3.0] * len(about)
            for number in range(len(images))
        ]

    reason = Reason(clause="W1", text=PISTOL, seen=True, box=(0.0, 0.8, 0.1, 0.9))
    stands = proven(ask, questions[0], reason, Image.fromarray(SQUARE.pixels))

    assert (stands.reason, stands.supported) == (reason, False)


def test_no_place_is_shown_where_no_picture_was_judged(questions: tuple[Question, ...]) -> None:
    """A place that was written of a text alone goes; what is said of the text may stand."""
    reason = Reason(clause="W1", text=PISTOL, seen=True, box=(0.0, 0.8, 0.1, 0.9))
    stands = proven(lambda *_: [[1.0, 1.0]], questions[0], reason, None)

    assert (stands.reason.box, stands.supported) == (None, True)


@given(
    x=st.floats(0.17, 0.83),
    y=st.floats(0.17, 0.83),
    size=st.floats(0.15, 0.34),
    doubt=st.floats(-6, -1),
)
def test_a_thing_is_placed_where_windows_hold_it(
    x: float, y: float, size: float, doubt: float
) -> None:
    """Where a model is surer the more of a thing it sees, the middle of the place lies on the thing."""
    thing = (x - size / 2, y - size / 2, x + size / 2, y + size / 2)

    def seen(place: tuple[float, float, float, float]) -> float:
        wide = min(place[2], thing[2]) - max(place[0], thing[0])
        high = min(place[3], thing[3]) - max(place[1], thing[1])
        return doubt + 8 * max(wide, 0) * max(high, 0) / size**2

    left, top, right, bottom = around([seen(place) for place in PLACES])

    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1
    assert thing[0] <= (left + right) / 2 <= thing[2]
    assert thing[1] <= (top + bottom) / 2 <= thing[3]


def test_of_two_things_one_is_placed() -> None:
    """A model that sees two things far apart is not told that what it sees lies between them."""
    odds = [4.0 if place in {PLACES[0], PLACES[-1]} else -4.0 for place in PLACES]

    assert around(odds) == pytest.approx(PLACES[0], abs=0.02)


def test_the_clause_is_the_one_that_holds_alone(
    tiny: Callable[[str], Any], questions: tuple[Question, ...], noise: Noise
) -> None:
    """Of several clauses that is explained of which the model is surest, asked about each alone without carve-outs."""
    scorer = tiny("fast_vlm").scorer()
    for seed in range(4):
        picture = Picture(media=0, pixels=np.asarray(noise(seed)))
        item = Item(pictures=(picture,))
        (chosen,) = Reasons(scorer).likeliest(item, questions[0], picture).forbidden
        row = row_for(item, questions[0], picture)
        odds = {}
        for clause in questions[0].forbidden:
            alone = replace(ask_alone(questions[0], clause.id), allowed=())
            odds[clause.id] = scorer.score([row], [prompt.suffix(alone)])[0][0].score
        assert chosen.id == max(odds, key=odds.__getitem__)


def test_switched_off_reasons_are_empty(
    saved: Callable[[str], Path], questions: tuple[Question, ...]
) -> None:
    """Without rationales a classifier explains nothing."""
    spec = ClassifierSpec(model=str(saved("fast_vlm")), rationales=False)
    item = Item(caption="for sale")
    classifier = load(spec)
    found = classifier.classify([item], questions[:1])[0][0]
    assert classifier.explain(item, [(questions[0], found)]) == []
    shown = load(replace(spec, rationales=True)).explain(item, [(questions[0], found)])
    assert [reason.question for reason in shown] == ["weapons"]


def test_a_reason_continues_where_scoring_was(
    saved: Callable[[str], Path], questions: tuple[Question, ...], noise: Noise
) -> None:
    """What was answered with Yes is explained on the prefix that scoring left, with the same words."""
    classifier = load(ClassifierSpec(model=str(saved("fast_vlm"))))
    assert isinstance(classifier, GenerativeClassifier)
    seen = []
    classifier.model.base_model.vision_tower.register_forward_hook(
        lambda *_: seen.append(1), prepend=True
    )
    item = Item(pictures=(Picture(media=0, pixels=np.asarray(noise(5))),))
    question = questions[0]
    one = Classification(question=question.id, score=1.0, media=0)

    def explained() -> tuple[int, list[Rationale]]:
        before = len(seen)
        told = classifier.explain(item, [(question, one)])
        return len(seen) - before, told

    classifier.scorer.keeps = False
    (alone,) = classifier.classify([item], [question])[0]
    fresh, first = explained()
    row = row_for(item, question, item.pictures[0])
    classifier.scorer.passes.kept.keep(row, classifier.scorer.passes.prefix([row]), 0)
    continued, again = explained()
    assert (again, continued < fresh) == (first, True)
    assert classifier.classify([item], [question])[0][0].score == pytest.approx(
        alone.score, abs=1e-5
    )


def test_a_reason_is_on_what_the_score_is_on(
    saved: Callable[[str], Path], questions: tuple[Question, ...], noise: Noise
) -> None:
    """A classifier of pictures alone gives its reasons without the caption, on the prefix that scoring left."""
    picture = Picture(media=0, pixels=np.asarray(noise(5)))
    question = questions[0]
    told = []
    for caption in ("", "for sale"):
        classifier = load(ClassifierSpec(model=str(saved("fast_vlm")), reads=("image",)))
        assert isinstance(classifier, GenerativeClassifier)
        item = Item(pictures=(picture,), caption=caption)
        (found,) = classifier.classify([item], [question])[0]
        row = row_for(item, question, picture, reads=classifier.reads)
        classifier.scorer.passes.kept.keep(row, classifier.scorer.passes.prefix([row]), 0)
        seen: list[int] = []
        classifier.model.base_model.vision_tower.register_forward_hook(
            lambda *_, seen=seen: seen.append(1), prepend=True
        )
        told.append((found.score, classifier.explain(item, [(question, found)]), len(seen)))
    assert told[0] == told[1]


def test_only_what_may_need_a_reason_is_kept(
    saved: Callable[[str], Path], questions: tuple[Question, ...], noise: Noise
) -> None:
    """The prefix of an upload stays exactly where one of its questions was answered with Yes."""
    for rationales in (True, False):
        classifier = load(ClassifierSpec(model=str(saved("fast_vlm")), rationales=rationales))
        assert isinstance(classifier, GenerativeClassifier)
        items = [
            Item(pictures=(Picture(media=0, pixels=np.asarray(noise(n, 90, 60))),))
            for n in range(6)
        ]
        answers = classifier.classify(items, questions[:2])
        violating = sum(any(one.score > 0 for one in found) for found in answers)
        assert len(classifier.scorer.passes.kept) == (violating if rationales else 0)


@pytest.mark.parametrize("kind", ["mllama", "idefics", "qwen2_5_vl", "gemma3"])
def test_what_is_kept_scores_the_same(
    kind: str, tiny: Callable[[str], Any], questions: tuple[Question, ...], noise: Noise
) -> None:
    """A prefix cut out of a batch gives the scores that it gave in the batch, and another picture none of them."""
    scorer = tiny(kind).scorer()
    asks = [prompt.suffix(question) for question in questions[:2]]
    rows = [
        Row(shared=prompt.prefix(images=1, caption=words), image=noise(seed), asked=(0, 1))
        for seed, words in ((1, "for sale"), (2, "a much longer caption than the other one has"))
    ]
    apart = [scorer.score([row], asks)[0] for row in rows]
    with torch.inference_mode():
        batch = scorer.passes.prefix(rows)
        for number, row in enumerate(rows):
            scorer.passes.kept.keep(row, batch, number)
    assert len(scorer.passes.kept) == 2
    for row, wanted in zip(rows, apart, strict=True):
        got = scorer.score([row], asks)[0]
        assert [o.score for o in got] == pytest.approx([o.score for o in wanted], abs=1e-4)
    assert scorer.passes.kept.find(replace(rows[0], image=noise(3))) is None


@pytest.mark.parametrize("kind", ["fast_vlm", "mllama", "idefics", "qwen2_5_vl", "gemma3"])
def test_padding_of_a_batch_is_not_read(
    kind: str, tiny: Callable[[str], Any], noise: Noise
) -> None:
    """A reason that continues on a row kept out of a padded batch is written as on a row of its own."""
    scorer = tiny(kind).scorer()
    short, long = (
        Row(shared=prompt.prefix(images=1, caption=words), image=noise(seed), asked=(0,))
        for seed, words in ((1, "for sale"), (2, "a much longer caption than the other one has"))
    )

    def told() -> tuple[list[int], list[torch.Tensor]]:
        logits: list[torch.Tensor] = []

        def choose(seen: torch.Tensor) -> int:
            logits.append(seen)
            return int(seen.argmax())

        return written(scorer.passes, short, "Why?", choose, limit=4), logits

    fresh, wanted = told()
    with torch.inference_mode():
        batch = scorer.passes.prefix([short, long])
        assert not batch.valid[0].all()
        scorer.passes.kept.keep(short, batch, 0)
    kept, got = told()
    assert kept == fresh
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("drawn", "share"),
    [
        ([{"text": "A gun."}, {}, {"box": [50, 60, 70, 79]}], 1.0),
        ([{"clause": "W2"}, {}, {"box": [0, 0, 20, 20]}], 1 / 3),
        ([{"clause": "W2"}, {"text": ""}, {"box": [0, 0, 20, 20]}], 0.0),
    ],
)
def test_drawn_reasons_that_differ_show(
    drawn: list[dict[str, Any]],
    share: float,
    tiny: Callable[[str], Any],
    questions: tuple[Question, ...],
) -> None:
    """With samples a reason says which share of the drawn ones names its clause and place; without, nothing."""
    found = Classification(question="weapons", score=1.0, media=2)
    place = {"box": [50, 60, 70, 80]}
    seeing = Seeing(tiny("fast_vlm").scorer(), {SELLS, PISTOL})
    reasons = Written(seeing, said(**place), *(said(**(place | one)) for one in drawn))

    given = reasons.explain(SQUARE.item, replace(questions[0], samples=3), found)
    assert given.agreement == share
    assert reasons.explain(SQUARE.item, questions[0], found).agreement is None


def test_draws_repeat(
    saved: Callable[[str], Path], questions: tuple[Question, ...], noise: Noise
) -> None:
    """The same number draws the same reason from a model, and another number another one."""
    classifier = load(ClassifierSpec(model=str(saved("fast_vlm"))))
    assert isinstance(classifier, GenerativeClassifier)
    reasons = Reasons(classifier.scorer)
    row = Row(shared=prompt.prefix(images=1), image=noise(5), asked=(0,))
    first, second, again = (reasons._write(row, questions[0], draw=n) for n in (1, 2, 1))

    assert first == again
    assert first != second


def test_agreement_counts_clause_and_place() -> None:
    """Another clause, another place or no reason disagrees; other words do not."""
    shown = Reason(clause="W1", text="A pistol.", seen=True, box=(0.1, 0.1, 0.5, 0.5))
    drawn = [
        replace(shown, text="A gun."),
        replace(shown, box=(0.1, 0.1, 0.5, 0.4)),
        replace(shown, box=(0.6, 0.6, 0.9, 0.9)),
        replace(shown, clause="W2"),
        None,
    ]
    assert agreement(shown, drawn) == 2 / 5
    assert agreement(shown, []) is None
