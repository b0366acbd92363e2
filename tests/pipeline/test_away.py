"""Tests of what waits for the classifier or for media."""

from pipeline.away import Away

#: Nobody has waited long by itself.
NOW_S = 990.0


def test_the_wait_counts_from_the_last_answer() -> None:
    """An old backlog is scored, not waved through, once the classifier answered again."""
    away = Away()
    away.wait(1, "eye", since_s=0.0, now_s=NOW_S, retry_s=0.0)
    assert away.over(1000.0, last_answer_s=lambda _: 950.0, after_s=lambda _: 100.0) == []
    assert away.over(1051.0, last_answer_s=lambda _: 950.0, after_s=lambda _: 100.0) == [1]


def test_the_wait_counts_from_the_oldest_record() -> None:
    """Without an answer ever the broker's timestamp of the oldest waiting record counts: it survives restarts."""
    away = Away()
    away.wait(1, "eye", since_s=900.0, now_s=NOW_S, retry_s=0.0)
    away.wait(2, "eye", since_s=990.0, now_s=NOW_S, retry_s=0.0)
    assert away.over(999.0, last_answer_s=lambda _: None, after_s=lambda _: 100.0) == []
    assert away.over(1000.0, last_answer_s=lambda _: None, after_s=lambda _: 100.0) == [1, 2]


def test_the_answers_of_others_do_not_count() -> None:
    """What waits for a classifier that is away is not kept waiting by one that answers, nor decided early by it."""
    away = Away()
    away.wait(1, "eye", since_s=0.0, now_s=NOW_S, retry_s=0.0)
    away.wait(2, "far", since_s=900.0, now_s=NOW_S, retry_s=0.0)
    answered = {"eye": 990.0}
    assert away.over(999.0, last_answer_s=answered.get, after_s=lambda _: 100.0) == []
    assert away.over(1000.0, last_answer_s=answered.get, after_s=lambda _: 100.0) == [2]
    assert away.over(1090.0, last_answer_s=answered.get, after_s=lambda _: 100.0) == [1, 2]


def test_each_upload_waits_as_long_as_its_policies_say() -> None:
    """An upload under a more patient policy waits longer."""
    away = Away()
    away.wait(1, "eye", since_s=0.0, now_s=NOW_S, retry_s=0.0)
    away.wait(2, "eye", since_s=0.0, now_s=NOW_S, retry_s=0.0)
    assert away.over(60.0, last_answer_s=lambda _: None, after_s=lambda key: 50.0 * key) == [1]


def test_media_do_not_make_the_classifier_away() -> None:
    """An upload that waits for its media says nothing about the classifier."""
    away = Away()
    away.retry(1, at_s=5.0)
    assert not away
    assert away.due(4.9) == []
    assert away.due(5.0) == [1]
    assert away.due(5.0) == []


def test_what_is_forgotten_waits_no_more() -> None:
    """A decided upload is neither due nor away."""
    away = Away()
    away.wait(1, "eye", since_s=0.0, now_s=NOW_S, retry_s=0.0)
    away.forget(1)
    assert not away
    assert away.due(10.0) == []


def test_an_upload_that_alone_finds_no_answer_does_not_wait_for_ever() -> None:
    """However often others are answered, what fails again and again is given up when its own wait is over."""
    away = Away()
    away.wait(1, "eye", since_s=0.0, now_s=1000.0, retry_s=1001.0)
    away.wait(1, "eye", since_s=0.0, now_s=1050.0, retry_s=1051.0)
    assert away.over(1099.0, last_answer_s=lambda _: 1099.0, after_s=lambda _: 100.0) == []
    assert away.over(1100.0, last_answer_s=lambda _: 1100.0, after_s=lambda _: 100.0) == [1]
