"""What the pipeline costs on top of its classifier: images a second beside a bare loop over the same batches.

The bare loop holds decoded pictures in memory and does nothing but classify. The pipeline reads events from Kafka,
fetches and decodes a JPEG for each, classifies in the pool, decides and commits. Both run the same classifier, with the
same batches and threads, in a process of its own; the bare loop runs before and after, so that a machine that becomes
faster or slower meanwhile shows.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pipeline.bench_stream import PICTURES, Load, measure, picture, upload, write_policies
from pipeline.config import Settings, environment

#: Batches that say how long a process takes to get going, not how fast it is.
_WARM: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """One classifier: how fast alone, and how fast with the pipeline around it."""

    classifier: str
    uploads: int
    #: Of the bare loop, before and after.
    bare_per_s: tuple[float, float]
    pipeline_per_s: float
    #: Of the pipeline against the mean of both; 1 is no overhead.
    ratio: float
    lost: float


def compare(
    settings: Settings,
    folder: Path,
    *,
    classifier: Literal["stub", "bundled"],
    uploads: int,
    per_s: float = 0.0,
    threads: int = 1,
    say: Callable[[str], None] = lambda _: None,
) -> Overhead:
    """Return the pipeline's speed beside the bare loop's; a stub sleeps so that it does `per_s` images a second."""
    load = Load(
        events=uploads,
        media="folder",
        classifier=classifier,
        item_s=1 / per_s if per_s else 0.0,
        threads=threads,
    )
    batch = settings.pool.batch
    say("the bare loop")
    before = bare_in_own_process(load, folder / "before", batch=batch)
    (folder / "pipeline").mkdir()
    found = measure(settings, load, folder / "pipeline", say=say)
    say("the bare loop again")
    after = bare_in_own_process(load, folder / "after", batch=batch)
    return Overhead(
        classifier=classifier if not per_s else f"{classifier}, {per_s:g} images a second",
        uploads=found.events,
        bare_per_s=(round(before, 2), round(after, 2)),
        pipeline_per_s=found.events_per_s,
        ratio=round(found.events_per_s / ((before + after) / 2), 3),
        lost=found.lost,
    )


def bare_in_own_process(load: Load, folder: Path, *, batch: int) -> float:
    """Return images a second of the bare loop, run in a new process with as many threads as the pool's."""
    folder.mkdir()
    asked = {
        "classifier": load.classifier,
        "item_s": load.item_s,
        "count": load.events,
        "batch": batch,
    }
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.bench_overhead", json.dumps(asked), str(folder)],
        env=environment() | {"OMP_NUM_THREADS": str(load.threads or 1)},
        check=True,
        stdout=subprocess.PIPE,
    )
    return float(done.stdout.split()[-1])


def bare(
    folder: Path, *, classifier: Literal["stub", "bundled"], item_s: float, count: int, batch: int
) -> float:
    """Return images a second of a loop that does nothing but classify pictures that it holds."""
    from policies.folder import read_policies
    from workers.bounds import Bounds
    from workers.classifier import Item
    from workers.folder import FolderStore
    from workers.loading import load as loaded
    from workers.media import prepare
    from workers.spec import ClassifierSpec
    from workers.upload import Location, Upload

    write_policies(folder / "policies")
    questions = [q for policy in read_policies(folder / "policies") for q in policy.questions]
    kind: Literal["stub", "generative"] = "stub" if classifier == "stub" else "generative"
    options = {"bias": -3.0, "item_s": item_s} if kind == "stub" else {}
    model = loaded(ClassifierSpec(name=classifier, model=classifier, kind=kind, options=options))
    held = []
    for number in range(min(count, PICTURES)):
        (folder / f"{number}.jpg").write_bytes(picture(number))
        one = Upload(key=number, media=(Location(uri=f"{number}.jpg"),))
        held.append(prepare(one, FolderStore(folder), Bounds()).pictures)
    items = []
    for number in range(count):
        event = json.loads(upload(number, ()).value or b"")
        items.append(Item(pictures=held[number % len(held)], caption=event["text"]))
    times = [time.perf_counter()]
    for begin in range(0, count, batch):
        model.classify(items[begin : begin + batch], questions)
        times.append(time.perf_counter())
    warm = min(_WARM, len(times) - 2)
    return (count - warm * batch) / (times[-1] - times[warm])


def main() -> None:
    """Run the bare loop that the arguments say, and print its images a second."""
    asked = json.loads(sys.argv[1])
    print(bare(Path(sys.argv[2]), **asked))  # noqa: T201 -- read by the process that started this one


if __name__ == "__main__":
    main()
