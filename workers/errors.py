"""Errors of the workers' floor, named by their remedy."""


class WorkerError(Exception):
    """Raised when an upload cannot be judged as it is; `reason` is a stable word, `detail` is for people."""

    def __init__(self, reason: str, detail: str = "", *, media: int | None = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = str(reason)  # a member of an enumeration becomes the plain word
        self.detail = detail
        self.media = media

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuilt, (type(self), self.reason, self.detail, self.media))


class MediaRefusedError(WorkerError):
    """Raised when media are broken, refused or out of bounds: trying again gives the same."""


class MediaUnavailableError(WorkerError):
    """Raised when the media store could not deliver in time: trying again later may help."""


class ClassifierUnavailableError(WorkerError):
    """Raised when no classifier answers at present: the policies' `when_unavailable` applies after a while."""


class PoisonError(WorkerError):
    """Raised when an upload killed its worker twice while alone in its call."""


class CheckpointError(WorkerError):
    """Raised when a checkpoint or classifier setting is unusable: an operator has to mend it."""


def _rebuilt(kind: type[WorkerError], reason: str, detail: str, media: int | None) -> WorkerError:
    return kind(reason, detail, media=media)
