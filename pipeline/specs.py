"""From settings to what the workers' floor is told: classifiers, the way to the media, and how those are read."""

from pipeline.config import ClassifierSettings, Settings
from workers.bounds import Bounds
from workers.reading import Reading
from workers.signals.ocr import TextReader
from workers.spec import ClassifierSpec
from workers.store import Access


def bounds_of(settings: Settings) -> Bounds:
    """Return the bounds on what is fetched and decoded."""
    media = settings.media
    return Bounds(
        max_bytes=media.max_bytes,
        max_pixels=media.max_pixels,
        max_frames=media.max_frames,
        max_media=media.max_media,
        fetch_timeout_s=media.fetch_timeout_s,
    )


def reading_of(settings: Settings) -> Reading:
    """Return how uploads are prepared in this process: as the pool prepares them.

    Raises:
        CheckpointError: text in pictures is to be read, and the extra `ocr` is missing.
    """
    text = TextReader().read if settings.media.read_text else None
    return Reading(bounds=bounds_of(settings), text=text)


def spec_of(classifier: ClassifierSettings) -> ClassifierSpec:
    """Return one configured classifier in the workers' words."""
    return ClassifierSpec(**classifier.model_dump())


def access_of(settings: Settings) -> Access:
    """Return what it takes to reach the media."""
    store = settings.store
    return Access(
        folder=store.folder,
        endpoint=store.endpoint,
        region=store.region,
        access_key=store.access_key.get_secret_value() if store.access_key else None,
        secret_key=store.secret_key.get_secret_value() if store.secret_key else None,
    )
