"""The pipeline as it is shipped, from kcat's record to the decision: real Kafka, S3 over HTTP, Ray, the bundled model.

The second test sends it everything hostile that there is, while the S3 is out of reach.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import psutil
import pytest
from moto.server import ThreadedMotoServer

from infra.embedded import trial_policies
from pipeline.config import SHIPPED_POLICIES, Kafka, Settings, environment
from pipeline.kafka import Producer, Topics, read
from pipeline.messages import DEAD_LETTERS, DECISIONS, UPLOADS, Decision
from pipeline.records import Outgoing
from pipeline.topics import plan
from tests.data.hostile import HOSTILE, RECORDS, photo, saved
from tests.pipeline.conftest import RayHead

pytestmark = [
    pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed"),
    pytest.mark.timeout(900),
]

ROOT = Path(__file__).parents[2]
PATIENCE_S = 250.0
#: Peak memory above idle, with two preparers.
MOST_BYTES = 1_500_000_000


@dataclass(eq=False)
class Peaks(threading.Thread):
    """Keeps the highest memory of each process of some trees, as the kernel has noted it."""

    roots: tuple[int, ...]
    idle: dict[int, int] = field(default_factory=dict)
    highest: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()
        for process in self._processes():
            with suppress(OSError):
                # From here on the kernel notes the peak anew.
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")
                self.idle[process.pid] = process.memory_info().rss

    def _processes(self) -> list[psutil.Process]:
        found = []
        for root in self.roots:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(root)
                found += [process, *process.children(recursive=True)]
        return found

    def run(self) -> None:
        """Look until told that it is over."""
        while not self._over.wait(0.1):
            for process in self._processes():
                with suppress(OSError, StopIteration):
                    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
                    known = self.highest.get(process.pid, 0)
                    self.highest[process.pid] = max(known, peak * 1024)

    def above_idle_bytes(self) -> int:
        """Return all peaks added up, as if they had come at one moment, less what there was when it began."""
        self._over.set()
        self.join()
        return sum(max(0, peak - self.idle.get(pid, 0)) for pid, peak in self.highest.items())


@dataclass
class Site:
    """A pipeline that runs, and what is around it."""

    settings: Kafka
    folder: Path
    s3: ThreadedMotoServer
    pipeline: subprocess.Popen[bytes]
    ray: RayHead
    log: Path

    def send(self, *records: tuple[str, bytes]) -> None:
        """Write uploads as a platform does."""
        producer = Producer(self.settings)
        producer.send([Outgoing(topic=UPLOADS, key=k.encode(), value=v) for k, v in records])
        producer.close()

    def decisions(self, *wanted: str) -> dict[str, Decision]:
        """Return the decision on each of these contents; each has one."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            said = [
                Decision.model_validate_json(record.value or b"")
                for record in read(self.settings, [DECISIONS])
            ]
            by_content = {d.content_id: d for d in said if d.content_id in wanted}
            missing = set(wanted) - by_content.keys()
            if not missing:
                assert sum(d.content_id in wanted for d in said) == len(wanted)
                return by_content
            assert self.pipeline.poll() is None, self.words()
            assert time.monotonic() < deadline, (missing, self.words())
            time.sleep(0.5)

    def letters(self) -> set[str]:
        """Return the keys of all dead letters."""
        found = read(self.settings, [DEAD_LETTERS])
        return {(record.key or b"").decode() for record in found}

    def words(self) -> str:
        """Return the end of what the pipeline said."""
        return self.log.read_text(errors="replace")[-3000:]


@pytest.fixture(scope="module")
def site(
    kafka: str, ray_server: RayHead, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Start a pipeline with the shipped policies, as `weir up` tries them, and the bundled model."""
    folder = tmp_path_factory.mktemp("site")
    trial_policies.copy(SHIPPED_POLICIES, Settings().calibrations, folder / "policies")
    settings = Kafka(servers=kafka, topic_prefix=f"e{os.getpid()}.", partitions=2)
    topics = Topics(settings)
    wanted = plan(settings)
    topics.create(
        {t.name: t.options for t in wanted}, partitions={t.name: t.partitions for t in wanted}
    )
    topics.close()
    s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    host, port = s3.get_host_and_port()
    (folder / "media").mkdir()
    log = folder / "pipeline.log"
    variables = {
        "OMP_NUM_THREADS": "1",
        "WEIR_KAFKA_SERVERS": settings.servers,
        "WEIR_KAFKA_TOPIC_PREFIX": settings.topic_prefix,
        "WEIR_POOL_ADDRESS": ray_server.address,
        "WEIR_POOL_NAMESPACE": "end-to-end",
        "WEIR_POOL_PREPARERS_MIN": "2",
        "WEIR_POOL_PREPARERS_MAX": "2",
        "WEIR_POLICIES": str(folder / "policies"),
        "WEIR_STORE_FOLDER": str(folder / "media"),
        "WEIR_STORE_ENDPOINT": f"http://{host}:{port}",
        "WEIR_STORE_ACCESS_KEY": "key",
        "WEIR_STORE_SECRET_KEY": "secret",
        # Long enough for a store that shares two cores with other tests.
        "WEIR_MEDIA_FETCH_DEADLINE_S": "12",
        "WEIR_MEDIA_FETCH_TIMEOUT_S": "8",
        # What cannot be fetched waits for a person at once, not after hours.
        "WEIR_STREAM_MAX_RESCORES": "1",
        "WEIR_STREAM_RATIONALE_WAIT_S": "5",
        "WEIR_TELEMETRY_LOG_LEVEL": "warning",
    }
    with log.open("wb") as out:
        pipeline = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "run", "--only", "uploads"],
            cwd=ROOT,
            env=environment() | variables,
            stdout=out,
            stderr=out,
        )
    try:
        yield Site(settings, folder / "media", s3, pipeline, ray_server, log)
    finally:
        pipeline.terminate()
        try:
            pipeline.wait(20)
        except subprocess.TimeoutExpired:
            pipeline.kill()
            pipeline.wait()
        with suppress(Exception):
            s3.stop()


def test_what_kcat_sends_from_s3_is_decided(site: Site) -> None:
    """Pictures in S3 that a client which is not ours announces are fetched, judged and decided, headers and all."""
    host, port = site.s3.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="uploads")
    lines = []
    for number in range(8):
        client.put_object(
            Bucket="uploads", Key=f"{number}.jpg", Body=saved(photo(320, 240, number), "JPEG")
        )
        event = {
            "event_id": f"s{number}",
            "content_id": f"s3-{number}",
            "text": f"caption {number}",
            "media": [{"uri": f"s3://uploads/{number}.jpg"}],
        }
        lines.append(f"s3-{number}|{json.dumps(event)}")
    topic = site.settings.topic_prefix
    kcat = ("kcat", "-b", site.settings.servers)
    subprocess.run(
        [*kcat, "-P", "-t", topic + UPLOADS, "-K", "|", "-X", "partitioner=murmur2_random"],
        input="\n".join(lines),
        text=True,
        check=True,
        timeout=120,
    )
    found = site.decisions(*(f"s3-{number}" for number in range(8)))
    for decision in found.values():
        assert decision.fault is None
        assert len(decision.content.media) == 1
        assert len(decision.content.perceptual) == 1
        assert decision.findings
        assert not decision.unjudged
    said = subprocess.run(
        [
            *(*kcat, "-C", "-e", "-q", "-t", topic + DECISIONS, "-f", "%k\t%h\n"),
            *("-X", "isolation.level=read_committed"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    headers = dict(line.split("\t") for line in said.splitlines())
    assert "ce_type=org.weir.decision.v1" in headers["s3-0"]


def test_whatever_is_hostile_ends_as_a_decision_that_says_why(site: Site) -> None:
    """Each of 74 hostile inputs ends with its reason, nothing dies, and memory stays bounded."""
    site.send(*(_picture(site, f"before-{number}") for number in range(4)))
    site.decisions(*(f"before-{number}" for number in range(4)))
    site.s3.stop()
    alive = {process.pid: process.cmdline()[0] for process in site.ray.workers("Actor")}
    peaks = Peaks((site.pipeline.pid, site.ray.pid))
    peaks.start()
    media = []
    for hostile in HOSTILE:
        where = hostile.lay(site.folder)
        event = {
            "event_id": f"e-{hostile.name}",
            "content_id": hostile.name,
            "media": [{"uri": where.uri, "sha256": where.sha256}],
        }
        media.append((hostile.name, json.dumps(event).encode()))
    site.send(*media, *((record.name, record.build(record.name)) for record in RECORDS))
    found = site.decisions(*(h.name for h in HOSTILE), *(r.name for r in RECORDS))
    above_bytes = peaks.above_idle_bytes()
    wanted = {h.name: h.expected for h in HOSTILE}
    wanted |= {r.name: r.expected for r in RECORDS if r.outcome == "decision" and r.expected}
    reasons = {name: None if (f := found[name].fault) is None else f.reason for name in wanted}
    assert reasons == wanted
    for name, decision in found.items():
        # An error never becomes allow: whatever names a reason waits for somebody, or for a later try.
        assert decision.fault is None or decision.action.value != "allow", name
    assert {r.name for r in RECORDS if r.outcome == "dead letter"} <= site.letters()
    after = {process.pid for process in site.ray.workers("Actor")}
    assert not {name for pid, name in alive.items() if pid not in after}
    assert above_bytes < MOST_BYTES, above_bytes
    site.send(_picture(site, "after"))
    assert site.decisions("after")["after"].fault is None
    assert site.pipeline.poll() is None


def test_the_bench_says_how_fast_and_that_nothing_was_lost(site: Site) -> None:
    """`weir bench stream` prints rates, latencies and CPU of pictures that come in and are decided, and loses none."""
    told = {"WEIR_KAFKA_SERVERS": site.settings.servers, "WEIR_POOL_ADDRESS": site.ray.address}
    load = ("--events", "300", "--rate", "10", "--seconds", "2", "--media", "folder")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pipeline", "bench", "stream", "--json"),
            *("--broker", "configured", *load),
        ],
        cwd=ROOT,
        env=environment() | told,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["events"], found["lost"]) == (300, 0)
    assert found["events_per_s"] > 0
    assert found["ratio"] == pytest.approx(found["events_per_s"] / found["bare_per_s"], abs=0.01)
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
    assert found["cpu_s_per_1000"] > 0
    assert found["store_per_s"] > 0
    # Twelve policies, each finding with its score.
    assert found["decision_bytes"] > 12 * 200


def _picture(site: Site, name: str) -> tuple[str, bytes]:
    (site.folder / f"{name}.jpg").write_bytes(saved(photo(640, 480), "JPEG"))
    event = {"event_id": name, "content_id": name, "media": [{"uri": f"{name}.jpg"}]}
    return name, json.dumps(event).encode()
