"""From settings to the pool of workers."""

from pipeline.config import Settings
from pipeline.specs import access_of, bounds_of, spec_of
from workers.crew import Patience
from workers.dispatch import Sizes
from workers.pool import PoolOptions, RayPool


def open_pool(settings: Settings) -> RayPool:
    """Return the pool that the settings describe; it joins or starts Ray in the background."""
    return RayPool(
        [spec_of(classifier) for classifier in settings.classifiers],
        access=access_of(settings),
        bounds=bounds_of(settings),
        options=options_of(settings),
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
