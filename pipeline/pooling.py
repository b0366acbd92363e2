"""From settings to the pool of workers."""

from pipeline.config import ClassifierSettings, Settings
from workers.bounds import Bounds
from workers.crew import Patience
from workers.dispatch import Sizes
from workers.pool import PoolOptions, RayPool
from workers.spec import ClassifierSpec
from workers.store import Access


def open_pool(settings: Settings) -> RayPool:
    """Return the pool that the settings describe; it joins or starts Ray in the background."""
    return RayPool(
        [spec_of(classifier) for classifier in settings.classifiers],
        access=access_of(settings),
        bounds=bounds_of(settings),
        options=options_of(settings),
    )


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


def options_of(settings: Settings) -> PoolOptions:
    """Return how the pool runs."""
    pool = settings.pool
    return PoolOptions(
        address=pool.address,
        namespace=pool.namespace,
        sizes=Sizes(
            batch=pool.batch,
            classifiers=(pool.classifiers_min, max(pool.classifiers_min, pool.classifiers_max)),
            preparers=(pool.preparers_min, max(pool.preparers_min, pool.preparers_max)),
        ),
        patience=Patience(call_s=pool.call_timeout_s),
        num_gpus=pool.num_gpus,
        idle_s=pool.idle_s,
        threads=pool.threads,
        read_text=settings.media.read_text,
    )


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
