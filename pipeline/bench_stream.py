"""How fast uploads become committed decisions, beside a bare loop of the Kafka client that writes as many bytes.

The pipeline runs as it is shipped, in processes of its own that share a Ray pool, with twelve policies. First a backlog
is drained, which gives events a second and CPU; then, with a rate, uploads arrive steadily, which gives latencies.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal
from uuid import uuid4

from pipeline.config import Kafka, Settings, environment
from pipeline.errors import PipelineError
from pipeline.kafka import Producer, Topics, bare_loop, ends, read
from pipeline.messages import AUDIT, DECISIONS, UPLOADS
from pipeline.processes import descendants, die_with_parent
from pipeline.records import Outgoing, Record
from pipeline.specs import access_of
from pipeline.topics import plan
from workers.actors import THREADS
from workers.store import Access, open_stores

Media = Literal["none", "folder", "s3"]
Broker = Literal["embedded", "configured"]

#: As many as a platform would have.
POLICIES: Final = 12
#: Different pictures, so that no cache of one picture flatters the figure.
PICTURES: Final = 40
_PICTURE_PX: Final = 512
#: How many of them are fetched to see how fast their store is.
_DELIVERIES: Final = 400
#: How long to wait for what never comes.
_PATIENCE_S: Final = 180.0
#: How often the bench looks how far the pipeline is.
_LOOKS_S: Final = 0.25
#: The first records say how long a process takes to start, not how fast it is.
_WARM: Final = 200

_POLICY: Final = """\
policy: bench{number}
title: Bench {number}
version: 1
status: live
reads: [image, caption]
definitions:
  thing: an object of kind {number} that a platform does not want to see offered or praised
question: Does this upload offer or praise a thing of kind {number}?
clauses:
  B1: {{text: "Offers a thing of kind {number} for sale, swap or gift.", examples: ["a price tag"]}}
  B2: {{text: "Praises harm done with a thing of kind {number}."}}
allowed:
  A1: {{text: "Toys, film props, games, museums, art."}}
  A2: {{text: "News and documentary reporting."}}
severity: medium
action: restrict
bands: {{review: 0.99, act: 0.999, uncalibrated: act}}
review: {{queue: intake, due: 4h}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is measured."""

    events: int = 5_000
    rate: float = 0.0
    seconds: float = 10.0
    media: Media = "none"
    classifier: Literal["stub", "bundled"] = "stub"
    #: How long a stub sleeps for each upload, as a GPU would work.
    item_s: float = 0.0
    #: CPU threads of the classifier; None: all cores.
    threads: int | None = None
    broker: Broker = "embedded"
    #: Pipeline processes that share the pool; each has one core's worth of Python. The embedded broker takes only one.
    pipelines: int = 1
    #: `s3://BUCKET/PREFIX` for media in S3.
    bucket: str = "s3://weir-bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was found; latencies only where uploads arrived at a rate, CPU only where the system tells."""

    events: int
    events_per_s: float
    bare_per_s: float
    ratio: float
    decision_bytes: int
    cpu_s_per_1000: float | None
    lost: float
    #: Pictures a second that the media store alone delivers to as many threads as a preparer has.
    store_per_s: float | None = None
    rate: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


def measure(
    settings: Settings, load: Load, folder: Path, *, say: Callable[[str], None] = lambda _: None
) -> Figures:
    """Run the whole bench, with its files in an empty folder."""
    write_policies(folder / "policies")
    with _broker(settings.kafka, load.broker) as kafka:
        access = _access(settings, load, folder)
        media = _store_media(access, load)
        store_per_s = None
        if media:
            say("the media store alone")
            store_per_s = _deliveries(access, media)
        say("writing the backlog")
        send(kafka, range(load.events), media)
        with _pipelines(settings, kafka, access, load, folder) as processes:
            say("draining the backlog")
            found, spent_s = _await_decisions(kafka, load.events, processes)
            latencies: list[float] = []
            arrived = 0
            if load.rate:
                say(f"uploads arrive at {load.rate:g} a second")
                arrived, latencies = _steady(kafka, load, media, processes)
        size = sum(len(r.value or b"") + len(r.key or b"") for r in found) // max(1, len(found))
        headers = sum(len(k) + len(v) for k, v in found[0].headers) if found else 0
        say("the bare loop")
        bare_loop(kafka, UPLOADS, AUDIT, value_bytes=size + headers, count=load.events)
        bare = rate_of(list(read(kafka, [AUDIT])))
    per_s = rate_of(found)
    expected = load.events + arrived
    decided = len({source(r) for r in found}) + len(latencies)
    return Figures(
        events=len(found),
        events_per_s=round(per_s, 1),
        bare_per_s=round(bare, 1),
        ratio=round(per_s / bare, 3) if bare else 0.0,
        decision_bytes=size,
        cpu_s_per_1000=None if spent_s is None else round(spent_s * 1000, 3),
        lost=round(max(0, expected - decided) / expected, 6),
        store_per_s=None if store_per_s is None else round(store_per_s, 1),
        rate=load.rate or None,
        p50_ms=percentile(latencies, 50),
        p95_ms=percentile(latencies, 95),
        p99_ms=percentile(latencies, 99),
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which so many per cent of the values lie, in milliseconds; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))] * 1000, 1)


def rate_of(records: Sequence[Record]) -> float:
    """Return records a second by the times at which they were written, the first ones left out."""
    times = sorted(record.timestamp_s for record in records)
    skipped = min(_WARM, len(times) // 5)
    times = times[skipped:]
    if not times:
        return 0.0
    # Records of one commit bear one time: those of the first were made before the clock started.
    took_s = times[-1] - times[0]
    return sum(time_s > times[0] for time_s in times) / took_s if took_s > 0 else 0.0


def source(record: Record) -> bytes:
    """Return which upload a decision's record belongs to."""
    return record.header("weir_source") or b""


def send(settings: Kafka, numbers: Sequence[int], media: Sequence[str]) -> None:
    """Write uploads."""
    producer = Producer(settings)
    for begin in range(0, len(numbers), 1_000):
        producer.send([upload(number, media) for number in numbers[begin : begin + 1_000]])
    producer.close()


def upload(number: int, media: Sequence[str]) -> Outgoing:
    """Return one upload event, with a caption as people write them and one of the pictures."""
    event: dict[str, Any] = {
        "event_id": f"e{number}",
        "content_id": f"c{number}",
        "author_id": f"a{number % 997}",
        "text": f"number {number}: what a day it was, and look at this thing here, who wants to have one?",
        "context": {"surface": "feed", "reach": number % 5000, "audience": "general"},
    }
    if media:
        event["media"] = [{"uri": media[number % len(media)]}]
    return Outgoing(topic=UPLOADS, key=f"c{number}".encode(), value=json.dumps(event).encode())


def cpu_s(pids: Sequence[int]) -> float | None:
    """Return the CPU seconds of processes and all that they started, or None where the system does not tell."""
    if not Path("/proc/self/stat").exists():
        return None
    ticks = 0
    for one in {child for pid in pids for child in (pid, *descendants(pid))}:
        with suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def write_policies(folder: Path) -> None:
    """Write the policies of the bench into a new folder."""
    folder.mkdir()
    for number in range(1, POLICIES + 1):
        (folder / f"bench{number}.yaml").write_text(_POLICY.format(number=number))
    # Besides the bench's own the pipeline itself puts jobs into these.
    names = ["intake", "appeals", "legal", "minor_safety", "other", "terrorism", "threat_to_life"]
    lines = [f"  {name}: {{due: 4h}}\n" for name in names]
    (folder / "queues.yaml").write_text("queues:\n" + "".join(lines))


def _access(settings: Settings, load: Load, folder: Path) -> Access:
    if load.media == "s3":
        return replace(access_of(settings), folder=None)
    (folder / "media").mkdir()
    return Access(folder=folder / "media")


def _store_media(access: Access, load: Load) -> list[str]:
    if load.media == "none":
        return []
    store = open_stores(access)
    found = []
    for number in range(PICTURES):
        uri = f"{load.bucket}/{number}.jpg" if load.media == "s3" else f"{number}.jpg"
        store.put(uri, picture(number), content_type="image/jpeg")
        found.append(uri)
    return found


def _deliveries(access: Access, media: Sequence[str]) -> float:
    """Return how many pictures a second the store delivers when nothing is done with them."""
    store = open_stores(access)

    def fetch(number: int) -> None:
        store.fetch(media[number % len(media)], max_bytes=10_000_000, timeout_s=60.0)

    with ThreadPoolExecutor(max_workers=THREADS) as threads:
        list(threads.map(fetch, range(THREADS)))  # connections are made
        began = time.monotonic()
        list(threads.map(fetch, range(_DELIVERIES)))
        return _DELIVERIES / (time.monotonic() - began)


def picture(number: int) -> bytes:
    """Return a JPEG that takes as long to decode as a photograph: noise over a gradient."""
    import io

    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(number)
    ramp = np.linspace(0, 200, _PICTURE_PX, dtype=np.float32)
    pixels = ramp[None, :, None] + rng.normal(0, 18, (_PICTURE_PX, _PICTURE_PX, 3)) + number
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    return data.getvalue()


@contextmanager
def _broker(settings: Kafka, which: Broker) -> Iterator[Kafka]:
    """Give settings for topics of the bench's own, on a broker of its own or on the configured one."""
    if which == "embedded":
        command = [sys.executable, "-m", "infra.embedded.broker"]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            preexec_fn=_leash,  # noqa: PLW1509 -- no thread has been started yet
            env=environment(),
        ) as process:
            try:
                line = process.stdout.readline().decode().strip() if process.stdout else ""
                yield Kafka(servers=line, transactions=False, partitions=4)
            finally:
                process.terminate()
        return
    own = settings.model_copy(update={"topic_prefix": f"bench-{uuid4().hex[:8]}.", "partitions": 4})
    topics = Topics(own)
    wanted = plan(own)
    topics.create(
        {t.name: t.options for t in wanted}, partitions={t.name: t.partitions for t in wanted}
    )
    try:
        yield own
    finally:
        topics.delete([topic.name for topic in wanted])
        topics.close()


@contextmanager
def _pipelines(
    settings: Settings, kafka: Kafka, access: Access, load: Load, folder: Path
) -> Iterator["list[subprocess.Popen[bytes]]"]:
    """Run upload consumers as they are shipped; the last process is the Ray that they share, if it is ours."""
    kind = "stub" if load.classifier == "stub" else "generative"
    config = folder / "weir.toml"
    config.write_text(
        f'[[classifiers]]\nname = "{load.classifier}"\nmodel = "{load.classifier}"\nkind = "{kind}"\n'
        + (f"options = {{bias = -3.0, item_s = {load.item_s}}}\n" if kind == "stub" else "")
    )
    with ExitStack() as open_parts:
        shared = [] if settings.pool.address else [open_parts.enter_context(_ray())]
        variables: Mapping[str, str] = {
            "WEIR_CONFIG": str(config),
            "WEIR_POLICIES": str(folder / "policies"),
            "WEIR_CALIBRATIONS": str(folder / "calibrations"),
            "WEIR_KAFKA_SERVERS": kafka.servers,
            "WEIR_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
            "WEIR_KAFKA_TRANSACTIONS": str(kafka.transactions).lower(),
            "WEIR_POOL_NAMESPACE": f"bench-{uuid4().hex[:8]}",
            "WEIR_TELEMETRY_LOG_LEVEL": "warning",
            "WEIR_POOL_ADDRESS": settings.pool.address or shared[0][1],
            **({"WEIR_POOL_THREADS": str(load.threads)} if load.threads else {}),
            **_store_variables(access),
        }
        log = open_parts.enter_context((folder / "pipeline.log").open("ab"))
        processes = []
        for number in range(load.pipelines):
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline", "run", "--only", "uploads"],
                env=environment() | dict(variables) | {"WEIR_INSTANCE": f"bench-{number}"},
                stderr=log,
                preexec_fn=_leash,  # noqa: PLW1509 -- it calls the kernel and nothing else
            )
            open_parts.callback(_end, process)
            processes.append(process)
        yield [*processes, *(process for process, _ in shared)]


def _store_variables(access: Access) -> Mapping[str, str]:
    told = {
        "WEIR_STORE_FOLDER": None if access.folder is None else str(access.folder),
        "WEIR_STORE_ENDPOINT": access.endpoint,
        "WEIR_STORE_REGION": access.region,
        "WEIR_STORE_ACCESS_KEY": access.access_key,
        "WEIR_STORE_SECRET_KEY": access.secret_key,
    }
    return {name: value for name, value in told.items() if value is not None}


@contextmanager
def _ray() -> Iterator["tuple[subprocess.Popen[bytes], str]"]:
    """Run a Ray of the bench's own, and give its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.embedded.ray_head"],
        stdout=subprocess.PIPE,
        preexec_fn=_leash,  # noqa: PLW1509 -- it calls the kernel and nothing else
        env=environment(),
    )
    try:
        address = process.stdout.readline().decode().strip() if process.stdout else ""
        if not address:
            raise PipelineError("Ray did not start; the machine may be too busy for it")
        yield process, address
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _leash() -> None:
    import signal

    die_with_parent(signal.SIGTERM)


def _await_decisions(
    kafka: Kafka, count: int, processes: "Sequence[subprocess.Popen[bytes]]"
) -> tuple[list[Record], float | None]:
    """Return the decisions, and the CPU seconds that each took of the pipeline and its pool once they had started.

    They are read when they are there, as what the bare loop writes is: a reader beside it would take its share. The
    embedded broker does not keep them so long, so that they are read meanwhile.
    """
    pids = [process.pid for process in processes]
    started: tuple[float, float | None] | None = None
    written, quiet_since = 0, time.monotonic()

    def over() -> bool:
        return _ended(processes) or time.monotonic() - quiet_since > _PATIENCE_S

    # Markers of transactions have offsets, too, so that the last ones may be read while they are made.
    while kafka.transactions and written < count and not over():
        time.sleep(_LOOKS_S)
        before, written = written, sum(ends(kafka, [DECISIONS]).values())
        if written > before:
            quiet_since = time.monotonic()
        if started is None and written >= min(_WARM, count // 5):
            started = time.time(), cpu_s(pids)
    found: list[Record] = []
    start = dict.fromkeys(ends(kafka, [DECISIONS]), 0)
    for record in read(kafka, [DECISIONS], follow=True, start=start, stop=over):
        found.append(record)
        quiet_since = time.monotonic()
        if started is None and len(found) >= min(_WARM, count // 5):
            started = time.time(), cpu_s(pids)
        if len(found) >= count:
            break
    if started is None or started[1] is None or (end_s := cpu_s(pids)) is None:
        return found, None
    since = sum(record.timestamp_s > started[0] for record in found)
    return found, (end_s - started[1]) / max(1, since)


def _ended(processes: "Sequence[subprocess.Popen[bytes]]") -> bool:
    return any(process.poll() is not None for process in processes)


def _steady(
    kafka: Kafka,
    load: Load,
    media: Sequence[str],
    processes: "Sequence[subprocess.Popen[bytes]]",
) -> tuple[int, list[float]]:
    """Send at the rate, and return how many were sent and how long each took that came back."""
    total = int(load.rate * load.seconds)
    sent_at: dict[str, float] = {}
    took: dict[str, float] = {}
    start = ends(kafka, [DECISIONS])
    done = threading.Event()

    def watch() -> None:
        for record in read(kafka, [DECISIONS], follow=True, start=start, stop=done.is_set):
            key = (record.key or b"").decode()
            if key in sent_at:
                took.setdefault(key, time.monotonic() - sent_at[key])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    producer = Producer(kafka)
    began = time.monotonic()
    for number in range(total):
        due = began + number / load.rate
        if (wait_s := due - time.monotonic()) > 0:
            time.sleep(wait_s)
        record = upload(1_000_000_000 + number, media)
        sent_at[(record.key or b"").decode()] = time.monotonic()
        producer.post(record)
    producer.flush()
    deadline = time.monotonic() + 20
    while len(took) < total and time.monotonic() < deadline and not _ended(processes):
        time.sleep(0.1)
    done.set()
    watcher.join()
    producer.close()
    return total, list(took.values())
