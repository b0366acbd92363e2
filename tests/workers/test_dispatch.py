"""The pool's book-keeping against simulated workers, with every fault that workers have."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.question import Question
from tests.workers.simulated import QUESTIONS, World, picture, text
from workers.classifier import Classification
from workers.dispatch import Sizes
from workers.errors import (
    ClassifierUnavailableError,
    MediaRefusedError,
    PoisonError,
    WorkerError,
)
from workers.upload import Judged, Upload


def faults(world: World) -> dict[int, type[WorkerError] | None]:
    """Return the fault of each upload that came back; None for those that were judged."""
    keys = Counter(judged.key for judged in world.judged)
    assert all(count == 1 for count in keys.values()), keys
    return {j.key: type(j.fault) if j.fault else None for j in world.judged}


def test_captions_share_a_call() -> None:
    """Captions that wait together travel in one call, as many as a batch holds."""
    world = World(sizes=Sizes(batch=4))
    world.submit(*(text(key) for key in range(10)))
    world.settle()
    assert sorted(j.key for j in world.judged) == list(range(10))
    assert world.batches == [4, 4, 2]


def test_answers_name_their_classifier() -> None:
    """A judgement holds an answer to every question and the digest of who gave it."""
    world = World()
    world.submit(picture(1))
    world.settle()
    (judged,) = world.judged
    assert [c.question for c in judged.classifications] == [q.id for q in QUESTIONS.all]
    assert judged.answered_by == {"weapons": "classifier-0", "drugs": "classifier-0"}
    assert judged.media_digests == ("sha256:1",)
    assert judged.perceptual_hashes == ("00ff00ff00ff00ff",)
    assert [name for name, _ in judged.stages_ms] == ["fetch", "queue", "classify"]


def test_alone_is_alone() -> None:
    """Uploads that are to be alone get a call each."""
    world = World()
    world.submit(*(text(key) for key in range(3)), alone=True)
    world.settle()
    assert world.batches == [1, 1, 1]


def test_no_question_no_call() -> None:
    """An upload that no question reads anything of is judged at once, without an answer."""
    world = World()
    world.submit(text(1, ""))
    world.settle()
    assert [(j.classifications, j.fault) for j in world.judged] == [((), None)]
    assert world.batches == []


def test_one_poison_in_a_batch_is_found() -> None:
    """The upload that kills its worker comes back as a poison, and all others are judged."""
    world = World()
    world.submit(*(text(key, "kills" if key == 11 else "fine") for key in range(16)))
    world.settle(for_s=60)
    assert faults(world) == {key: PoisonError if key == 11 else None for key in range(16)}


def test_poisons_are_blamed_for_two_deaths_alone() -> None:
    """A poison has killed one worker as one of many and two while alone for certain."""
    world = World()
    world.submit(text(1, "kills"))
    world.settle(for_s=60)
    assert faults(world) == {1: PoisonError}
    assert world.deaths == 3


def test_a_crash_is_a_death() -> None:
    """An error that no upload should cause is found by halves like a death, and the worker does not stay."""
    world = World()
    world.submit(*(text(key, "crashes" if key == 3 else "fine") for key in range(8)))
    world.settle(for_s=60)
    assert faults(world) == {key: PoisonError if key == 3 else None for key in range(8)}


def test_an_item_that_hangs_its_worker_is_a_poison() -> None:
    """A call that takes longer than it may ends its worker, and the upload that hangs it is found."""
    world = World()
    world.submit(*(text(key, "hangs" if key == 2 else "fine") for key in range(4)))
    world.settle(for_s=120)
    assert faults(world) == {key: PoisonError if key == 2 else None for key in range(4)}


def test_own_faults_isolate_the_item() -> None:
    """A fault of one upload in a batch comes back with it and touches no other."""
    world = World()
    world.submit(*(text(key, "refused" if key == 2 else "fine") for key in range(4)))
    world.settle()
    assert faults(world) == {key: MediaRefusedError if key == 2 else None for key in range(4)}
    assert world.deaths == 0


def test_a_silent_worker_is_replaced() -> None:
    """A worker that was stopped is ended and replaced, and its uploads are judged."""
    world = World()
    world.submit(text(0))
    world.settle()
    world.actors["classifier-0", 0].stopped = True
    world.submit(*(text(key) for key in range(1, 5)))
    world.settle(for_s=20)
    assert faults(world) == dict.fromkeys(range(5))


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("kills", "died"),
        ("crashes", "crashed with crashed"),
        ("hangs", "one call took longer than 10 s"),
        ("stops", "silent for 3 s"),
    ],
)
def test_the_log_says_why_a_worker_was_ended(
    caption: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each end of a worker is one warning that names its place, the reason and when it is hired again."""
    world = World()
    world.submit(text(0))
    world.settle()
    world.actors["classifier-0", 0].stopped = caption == "stops"
    world.submit(text(1, caption))
    world.settle(for_s=20)

    said = [vars(record) for record in caplog.records]
    assert {line["message"] for line in said} == {"a worker ended"}
    assert {line["levelname"] for line in said} == {"WARNING"}
    assert {line["worker"] for line in said} == {"classifier-0:0"}
    assert said[0]["reason"] == reason
    assert said[0]["hired_again_in_s"] == 0.1
    assert len(said) == world.deaths


def test_an_idle_worker_that_died_is_replaced_before_work_comes() -> None:
    """The death of a worker without work is noticed by its pulse."""
    world = World()
    world.settle()
    world.die(world.actors["classifier-0", 0])
    world.settle(for_s=5)
    assert world.actors["classifier-0", 0].alive


def test_a_sick_classifier_condemns_nobody() -> None:
    """Where a worker dies of a harmless upload too, the classifier is to blame and no upload is a poison."""
    world = World()
    world.sick = True
    world.submit(*(text(key) for key in range(4)))
    world.settle(for_s=400)
    assert faults(world) == dict.fromkeys(range(4), ClassifierUnavailableError)


def test_no_worker_for_a_while() -> None:
    """Uploads that wait too long for a classifier that is not there come back as unavailable."""
    world = World()
    world.submit(text(1), picture(2))
    for _ in range(200):
        world.dispatch.tick(world.now_s)  # nobody works: no actor ever describes itself
        world.now_s += 0.5
    assert faults(world) == {1: ClassifierUnavailableError, 2: ClassifierUnavailableError}


def test_an_absence_names_whose_it_is() -> None:
    """In a cascade whose second classifier is away, the fault is its own: it never answered, and the first did."""
    world = World(classifiers=2)
    world.absent = {"classifier-1"}
    world.submit(text(1), settle=lambda *_: False)
    world.settle()
    (judged,) = world.judged
    assert isinstance(judged.fault, ClassifierUnavailableError)
    assert judged.fault_by == "classifier-1"
    assert world.dispatch.last_answer_at("classifier-0") is not None
    assert world.dispatch.last_answer_at("classifier-1") is None
    world.absent = set()
    world.submit(text(2), settle=lambda *_: False)
    world.settle()
    assert world.dispatch.last_answer_at("classifier-1") == world.now_s


def test_lost_pictures_are_fetched_again() -> None:
    """An upload whose pictures are gone is prepared again and counts against nobody."""
    world = World()
    world.submit(picture(1))
    world.lose_pictures = True
    world.settle()
    assert faults(world) == {1: ClassifierUnavailableError}  # lost for ever
    world.submit(picture(2))
    world.dispatch.tick(world.now_s)
    world.lose_pictures = False
    world.settle()
    assert faults(world)[2] is None


def test_a_lost_ray_loses_no_upload() -> None:
    """When Ray is lost every upload goes on once it is back."""
    world = World()
    world.submit(*(text(key) for key in range(20)), *(picture(key) for key in range(20, 40)))
    for actor in world.actors.values():
        world.work(actor)
    for actor in list(world.actors.values()):
        actor.alive = False
    world.arrived.clear()
    world.dispatch.cut_off(list(world.passages.values()), world.now_s)
    world.settle(for_s=5)
    assert faults(world) == dict.fromkeys(range(40))


def test_media_that_kill_a_preparer() -> None:
    """Media that kill their preparer are found in a worker that nobody shares."""
    world = World()
    world.submit(*(picture(key, "kills" if key == 5 else "a.jpg") for key in range(12)))
    world.settle(for_s=60)
    assert faults(world) == {key: PoisonError if key == 5 else None for key in range(12)}


def test_broken_media() -> None:
    """Media that are refused come back with the reason."""
    world = World()
    world.submit(picture(1, "broken"), picture(2))
    world.settle()
    assert faults(world) == {1: MediaRefusedError, 2: None}


def test_the_window_bounds_what_is_prepared() -> None:
    """No more uploads are prepared and not judged than the window holds, and all are judged."""
    world = World(sizes=Sizes(window=10))
    most = 0
    world.submit(*(picture(key) for key in range(100)))
    for _ in range(2_000):
        world.dispatch.tick(world.now_s)
        for actor in list(world.actors.values()):
            world.work(actor)
        while world.arrived:
            world.deliver()
            most = max(most, world.dispatch.numbers()["prepared"])
    assert most == 10
    assert len(faults(world)) == 100


def test_kept_pictures_are_bounded() -> None:
    """Pictures of judged uploads go when there are too many, and a reason fetches them again."""
    world = World(sizes=Sizes(window_bytes=5_000_000))
    world.submit(*(picture(key) for key in range(20)))
    world.settle()
    assert sum(p.pictures is not None for p in world.passages.values()) <= 5
    assert world.passages[0].pictures is None
    world.explain(0)
    world.settle()
    (explained,) = world.reasons
    assert [r.question for r in explained.rationales] == ["weapons", "drugs"]


def test_reasons_cost_no_second_worker() -> None:
    """An upload that kills its worker while it is explained goes without reasons and stays judged."""
    world = World()
    world.submit(text(1, "unspeakable"))
    world.settle()
    world.explain(1)
    world.settle(for_s=5)
    assert [(e.key, e.rationales) for e in world.reasons] == [(1, ())]
    assert faults(world) == {1: None}


def test_the_released_never_come_back() -> None:
    """Whatever was under way for a released key is dropped."""
    world = World()
    world.submit(*(picture(key) for key in range(10)))
    world.release(*range(5))
    world.settle()
    assert sorted(faults(world)) == [5, 6, 7, 8, 9]
    assert world.dispatch.numbers()["prepared"] == 0


def test_workers_follow_the_backlog() -> None:
    """More workers are hired while much waits, up to the maximum."""
    world = World(sizes=Sizes(batch=2, classifiers=(1, 3)))
    world.submit(*(text(key) for key in range(1000)))
    for _ in range(200):
        world.dispatch.tick(world.now_s)
        for actor in list(world.actors.values()):
            world.work(actor)
        while world.arrived:
            world.deliver()
        world.now_s += 0.1
    assert sorted(slot for role, slot in world.actors if role == "classifier-0") == [0, 1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_two_classifiers_share_the_questions(seed: int) -> None:
    """With a second classifier behind it the first answers whatever it covers."""
    world = World(classifiers=2, seed=seed)
    world.submit(*(picture(key) for key in range(20)))
    world.settle()
    assert {d for j in world.judged for d in j.answered_by.values()} == {"classifier-0"}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_every_key_comes_back_once(seed: int) -> None:
    """Whatever dies, hangs, is stopped, lost or released, every other key comes back exactly once and rightly."""
    chance = random.Random(seed)
    world = World(
        classifiers=chance.choice([1, 1, 2]),
        seed=seed,
        sizes=Sizes(
            batch=chance.choice([1, 4, 16]),
            window=chance.choice([2, 8]),
            window_bytes=chance.choice([3_000_000, 50_000_000]),
            classifiers=(1, chance.choice([1, 3])),
            preparers=(1, chance.choice([1, 2])),
        ),
    )
    released: set[int] = set()
    expected: dict[int, type[WorkerError] | None] = {}
    for _ in range(chance.randrange(20, 120)):
        _something(chance, world, expected, released)
    for actor in world.actors.values():
        actor.stopped = False
    world.lose_pictures = False
    world.settle(for_s=200, step_s=1.0)
    came = {judged.key: judged for judged in world.judged}
    assert len(came) == len(world.judged)
    assert set(came) | released == set(expected)
    for key in set(came) - released:
        _rightly(came[key], expected[key])
    world.release(*expected)
    assert world.dispatch.numbers()["prepared"] == 0


def _something(
    chance: random.Random,
    world: World,
    expected: dict[int, type[WorkerError] | None],
    released: set[int],
) -> None:
    event = chance.random()
    if event < 0.3:
        for _ in range(chance.randrange(1, 20)):
            upload, fault = _anything(chance, len(expected))
            world.submit(upload, alone=chance.random() < 0.05)
            expected[upload.key] = fault
    elif event < 0.8:
        actors = list(world.actors.values())
        for actor in chance.choices(actors, k=5) if actors else []:
            world.work(actor)
            if chance.random() < 0.7:
                world.deliver()
    elif event < 0.85 and expected:
        gone = chance.choice(list(expected))
        world.release(gone)
        released.add(gone)
    elif event < 0.9:
        _misfortune(chance, world)
    else:
        world.now_s += chance.random() * 2
        world.dispatch.tick(world.now_s)


def _anything(chance: random.Random, key: int) -> tuple[Upload, type[WorkerError] | None]:
    kind = chance.random()
    if kind < 0.03:
        return text(key, "kills"), PoisonError
    if kind < 0.06:
        return picture(key, "kills"), PoisonError
    if kind < 0.1:
        return text(key, "refused"), MediaRefusedError
    if kind < 0.14:
        return picture(key, "broken"), MediaRefusedError
    if kind < 0.2:
        return picture(key, "slow"), None
    return (text(key), None) if kind < 0.6 else (picture(key), None)


def _misfortune(chance: random.Random, world: World) -> None:
    # Two misfortunes that hit one upload on trial make it a poison, rightly: so they hit others here.
    actors = [
        actor
        for actor in world.actors.values()
        if actor.role != "quarantine" and not any(c[1] == "classify_suspect" for c in actor.calls)
    ]
    if not actors:
        return
    kind = chance.random()
    if kind < 0.5:
        world.die(chance.choice(actors))
    elif kind < 0.8:
        chance.choice(actors).stopped = True
    elif kind < 0.9:
        world.lose_pictures = not world.lose_pictures
    else:
        for actor in actors:
            actor.alive = False
            actor.calls.clear()
        world.arrived.clear()
        world.dispatch.cut_off(list(world.passages.values()), world.now_s)


def _rightly(judged: Judged, fault: type[WorkerError] | None) -> None:
    """Check an outcome: what is a poison, refused or fine stays so; all may find the classifier away."""
    found = type(judged.fault) if judged.fault else None
    assert found in {fault, ClassifierUnavailableError}, judged
    if found is None:
        assert [c.question for c in judged.classifications] == [q.id for q in QUESTIONS.all]


def test_a_cascade_asks_on_what_is_not_settled() -> None:
    """What the first classifier settles reaches no other; of the rest the last one's answer stands."""
    world = World(classifiers=2)
    asked: list[tuple[str, str]] = []

    def settle(question: Question, found: Classification, digest: str) -> bool:
        asked.append((found.question, digest))
        return question.id == "weapons"

    world.submit(text(0), settle=settle)
    world.settle()
    (judged,) = world.judged
    first, last = (bench.digest for bench in world.dispatch.benches)
    assert judged.answered_by == {"weapons": first, "drugs": last}
    assert [found.question for found in judged.classifications] == ["weapons", "drugs"]
    assert asked == [("weapons", first), ("drugs", first)]
    world.submit(text(1), settle=lambda *_: True)
    world.settle()
    assert set(world.judged[-1].answered_by.values()) == {first}
    assert world.dispatch.benches[1].batched == 1
