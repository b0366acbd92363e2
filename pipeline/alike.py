"""Jobs that look alike: shown beside each other, and answered together by whoever marked them, each by its own verdict.

Only open jobs of one queue are neighbours, of which nothing lies or lay in a sealed queue, and only those that the
person may have anyway. A golden job has none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.desk import ANY_WEIGHT, Answers, Desk
from pipeline.errors import LeaseLostError, RefusedError
from pipeline.messages import Verdict
from pipeline.redis import Entry, bucket_of
from pipeline.review import Person, differ, open_to

#: How many are shown beside one job.
SHOWN: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """An open job whose media look like those of another one."""

    entry: Entry
    bits: int  # in which the perceptual hashes differ
    together: bool  # it asks the same, so that one answer fits both


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What became of a marked job: its verdict, or why there is none."""

    job_id: str
    verdict: Verdict | None = None
    why: str = ""


def neighbours(desk: Desk, person: Person, entry: Entry) -> list[Neighbour]:
    """Return the jobs beside a job that this person may have, the most alike first."""
    queue = desk.queues.get(entry.queue)
    if not entry.hashes or queue is None or entry.part == "golden" or desk.hides(entry):
        return []
    open_queues = open_to(person, desk.queues)
    found: list[Neighbour] = []
    for other in desk.queue.alike(entry):
        if len(found) == SHOWN:
            break
        if not bucket_of(other).admits(person, open_queues, ANY_WEIGHT):
            continue
        whole = desk.queue.entry(other.job_id)
        if whole is not None and whole.ticket is not None and not desk.hides(whole):
            bits = differ(entry.hashes, whole.hashes)
            found.append(Neighbour(entry=whole, bits=bits, together=_asks(entry) == _asks(whole)))
    return found


def answer_together(
    desk: Desk, person: Person, entry: Entry, marked: Sequence[str], said: Answers
) -> list[Answered]:
    """Give the answers of a job to those beside it that were marked; each is claimed, checked and answered by itself.

    What does not stand beside the job, or not any more, is left as it is.
    """
    beside = {n.entry.job_id for n in neighbours(desk, person, entry) if n.together}
    return [
        _answer(desk, person, job, said)
        if job in beside
        else Answered(job_id=job, why="it is not open any more, or asks something else")
        for job in dict.fromkeys(marked)
    ]


def _answer(desk: Desk, person: Person, job_id: str, said: Answers) -> Answered:
    handed = desk.claim(person, only=job_id)
    if not handed.entries:
        why = "somebody else took it" if handed.reason == "empty" else handed.reason
        return Answered(job_id=job_id, why=why)
    [entry] = handed.entries
    try:
        verdict = desk.resolve(person, job_id, entry.lease, said)
    except RefusedError as error:
        desk.release(person, job_id, entry.lease)
        return Answered(job_id=job_id, why=str(error))
    except LeaseLostError as error:
        return Answered(job_id=job_id, why=str(error))
    return Answered(job_id=job_id, verdict=verdict)


def _asks(entry: Entry) -> frozenset[str]:
    review = entry.ticket.decision.review if entry.ticket is not None else None
    return frozenset(review.questions if review is not None else ())
