"""Tests of the offset bookkeeping."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.checkpoint import MAX_DEATHS_ALONE, MAX_RESTARTS, Checkpoint, Note
from pipeline.records import Partition

P = Partition("media.uploads", 0)
Q = Partition("media.uploads", 1)
NOTES = st.builds(
    Note,
    restarts=st.integers(0, 10),
    alone_until=st.integers(0, 10**12),
    deaths=st.integers(0, 10),
)


def open_checkpoint(*offsets: int) -> Checkpoint[int]:
    """Return a checkpoint with these records of one partition in work."""
    checkpoint: Checkpoint[int] = Checkpoint()
    checkpoint.start(P, Note())
    for offset in offsets:
        checkpoint.begin(P, offset)
    return checkpoint


def test_a_gap_holds_back_what_is_behind_it() -> None:
    """Only the longest finished run is due; a record that waits holds back those behind it."""
    checkpoint = open_checkpoint(5, 6, 7, 9)
    for offset in (9, 5, 7):
        checkpoint.finish(P, offset, offset)
    due = checkpoint.due(at_most=10)
    assert due.results == (5,)
    assert due.marks[P].offset == 6


def test_a_waiting_record_holds_only_its_partition() -> None:
    """Other partitions go on."""
    checkpoint = open_checkpoint(0, 1)
    checkpoint.start(Q, Note())
    checkpoint.begin(Q, 40)
    checkpoint.finish(P, 1, 1)
    checkpoint.finish(Q, 40, 40)
    due = checkpoint.due(at_most=10)
    assert due.results == (40,)
    assert set(due.marks) == {Q}


def test_a_dropped_partition_is_never_due() -> None:
    """Work on a partition that was taken away leaves nothing to commit."""
    checkpoint = open_checkpoint(0)
    checkpoint.finish(P, 0, 0)
    checkpoint.drop(P)
    assert checkpoint.due(at_most=10).results == ()
    assert not checkpoint.known(P)


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
    st.integers(1, 7),
)
def test_every_record_is_committed_once_and_in_order(
    gaps: list[int], random: st.DataObject, at_most: int
) -> None:
    """Whatever the order of finishing: results leave once each, in offset order, and the mark is behind the last."""
    offsets, offset = [], 0
    for gap in gaps:
        offset += gap
        offsets.append(offset)
    checkpoint = open_checkpoint(*offsets)
    waiting = list(offsets)
    random.shuffle(waiting)  # type: ignore[attr-defined]
    left: list[int] = []
    finished: set[int] = set()
    for one in waiting:
        checkpoint.finish(P, one, one)
        finished.add(one)
        due = checkpoint.due(at_most=at_most)
        if not due.results:
            continue
        assert len(due.results) <= at_most
        left += due.results
        mark = due.marks[P].offset
        # Nothing below the mark is still in work.
        assert all(o in finished for o in offsets if o < mark)
        assert mark == due.results[-1] + 1
        checkpoint.settle(due)
    while (due := checkpoint.due(at_most=at_most)).results:
        left += due.results
        checkpoint.settle(due)
    assert left == offsets
    assert len(checkpoint) == 0


@given(NOTES)
def test_notes_survive_the_broker(note: Note) -> None:
    """What is written beside an offset is read back."""
    assert Note.parse(str(note)) == note


@given(st.text())
def test_strange_notes_count_as_none(text: str) -> None:
    """A note of somebody else's, or of another version, never stops the pipeline."""
    assert isinstance(Note.parse(text), Note)


def test_the_culprit_of_a_window_is_found_and_set_aside() -> None:
    """A record that kills its process is alone after three restarts, and set aside after two deaths alone."""
    window, culprit, last = 10, 4, 12
    offset, note, starts, set_aside = 0, Note(), 0, []
    while offset <= last:
        starts += 1
        assert starts < 20, "it never gets past the culprit"
        note = note.started(offset, window=window)
        while offset <= last:
            alone = note.alone(offset)
            if note.poisonous(offset):
                set_aside.append(offset)
            elif offset == culprit if alone else offset <= culprit < offset + window:
                break  # the process dies with all that it has in work
            offset += 1 if alone else window
            note = note.advanced(offset)
    assert set_aside == [culprit]
    assert starts <= 1 + MAX_RESTARTS + MAX_DEATHS_ALONE + 1


def test_an_orderly_end_is_no_death() -> None:
    """Many restarts in good order never put a healthy record aside."""
    note = Note(restarts=4, alone_until=50, deaths=1)
    for _ in range(10):
        note = note.undone()
        note = note.started(0, window=10)
        assert not note.poisonous(0)


def test_progress_clears_the_count() -> None:
    """One committed record ends the suspicion; below the window's end the work stays one by one."""
    note = Note(restarts=2, alone_until=10, deaths=2)
    assert note.advanced(10) == Note()
    assert note.advanced(9).alone(9)
    assert note.advanced(9).restarts == 0
