"""How the pipeline and the pool of workers talk: references in, judgements out; never pixels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from policies.question import Question
from workers.classifier import Classification, Rationale
from workers.errors import WorkerError


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where one medium lies and what is claimed about it."""

    uri: str
    sha256: str | None = None
    content_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One upload on its way through the workers; `key` is the caller's own and comes back."""

    key: int
    media: tuple[Location, ...] = ()
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the workers say of one upload: classifications, or the fault that prevented them.

    `fault_by` names the workers whose fault it is, where it is theirs: `Pool.last_answer_at` knows them by it.
    `answered_by` gives the classifier digest of each answered question. `media_digests` are `sha256:…` of the bytes
    that were judged, and `perceptual_hashes` tell what looks alike; `text_in_image` is what was read from their
    pictures. `stages_ms` says how long each stage took.
    """

    key: int
    classifications: tuple[Classification, ...] = ()
    answered_by: Mapping[str, str] = field(default_factory=dict)
    media_digests: tuple[str, ...] = ()
    perceptual_hashes: tuple[str, ...] = ()
    text_in_image: str = ""
    stages_ms: tuple[tuple[str, float], ...] = ()
    fault: WorkerError | None = None
    fault_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """The rationales of one upload; empty where they could not be had: a rationale is never waited for for ever."""

    key: int
    rationales: tuple[Rationale, ...] = ()
    stages_ms: tuple[tuple[str, float], ...] = ()


#: Whether the answer of the classifier with this digest is enough, so that no later one is asked.
Settle = Callable[[Question, Classification, str], bool]


class Pool(Protocol):
    """Judges uploads in the background; every call returns at once except where it takes a timeout.

    Every submitted key comes back exactly once, as a judgement or with a fault:

    - `MediaRefusedError`, `MediaUnavailableError`: the media of this upload.
    - `PoisonError`: the upload killed its worker twice while alone in its call.
    - `ClassifierUnavailableError`: no classifier answers at present; the caller may submit it again later.
    """

    def covers(self, question: Question) -> bool:
        """Return whether any configured classifier can judge the question."""
        ...

    def submit(
        self,
        uploads: Sequence[Upload],
        questions: Sequence[Question],
        *,
        alone: bool = False,
        settle: Settle | None = None,
    ) -> None:
        """Start judging uploads; `alone` puts each upload into a call of its own.

        With `settle`, a question goes on to the next classifier that covers it until an answer is enough; the last
        one's stands. Without it the first classifier's answer stands.
        """
        ...

    def finished(self, *, timeout_s: float = 0.0) -> list[Judged]:
        """Return what was judged since the last call, waiting up to `timeout_s` for the first."""
        ...

    def explain(self, key: int, questions: Sequence[Question]) -> None:
        """Start writing rationales for these questions of a judged upload that was not released."""
        ...

    def explained(self, *, timeout_s: float = 0.0) -> list[Explained]:
        """Return the rationales that were finished since the last call."""
        ...

    def release(self, keys: Sequence[int]) -> None:
        """Let go of everything that is kept for these uploads; unfinished work on them never comes back."""
        ...

    def last_answer_at(self, fault_by: str) -> float | None:
        """Return when the workers that a fault is by last answered (seconds since the epoch), None if never."""
        ...

    def close(self) -> None:
        """Let go of the pool; actors that other pipelines share live on."""
        ...
