"""Errors of the pipeline's floor, named by their remedy."""


class PipelineError(Exception):
    """Raised when something cannot go on as it is; the message names file or part and says what to mend."""


class AbortedError(PipelineError):
    """Raised when nothing was committed and trying again may help: rewind, wait a little, go on."""


class KafkaError(PipelineError):
    """Raised when Kafka cannot be used as configured; the message says what to do."""


class ProjectionLostError(PipelineError):
    """Raised when Redis does not stand where the projection left it: read on from where it stands."""


class LeaseLostError(PipelineError):
    """Raised when somebody acts on a review job that this person does not hold (any more): claim again."""


class RefusedError(PipelineError):
    """Raised when a person may not do this, or left something out; the message says what to do instead."""
