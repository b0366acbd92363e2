"""End to end on a real Kafka with kcat, a client that is not ours: it sends the uploads and reads what came of them."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.calibration import Calibrations
from pipeline.cli import main
from pipeline.config import Kafka
from pipeline.kafka import Member
from pipeline.messages import DEAD_LETTERS, DECISIONS, RESCORE, UPLOADS
from pipeline.stream import Stream
from pipeline.stub import StubPool, constant
from pipeline.watchdog import Watchdog
from policies.folder import read_policies

POLICIES = Path(__file__).parents[2] / "policies"

pytestmark = pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")


def kcat(settings: Kafka, *arguments: str, given: str | None = None) -> str:
    """Return what kcat says."""
    done = subprocess.run(
        ["kcat", "-b", settings.servers, *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


def work(settings: Kafka, count: int) -> None:
    """Let an upload consumer work until so many records were answered."""
    link = Member(settings, [UPLOADS, RESCORE], group="weir", instance="one")
    policies = read_policies(POLICIES)
    dog = Watchdog(limit_s=60)
    stream = Stream(link, StubPool(constant(-3.0)), lambda: policies, Calibrations, dog)
    deadline = time.monotonic() + 120
    try:
        while sum(mark.offset for mark in link.committed(link.held()).values()) < count:
            assert time.monotonic() < deadline
            stream.turn()
    finally:
        link.close()
        dog.close()


def test_uploads_by_kcat_are_decided_and_read_by_kcat(
    kafka_settings: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every upload has one decision with its headers; what is no JSON is a dead letter that can be replayed."""
    prefix = kafka_settings.topic_prefix
    lines = [
        f"c{n}|" + json.dumps({"event_id": f"e{n}", "content_id": f"c{n}", "text": f"caption {n}"})
        for n in range(50)
    ]
    produce = ("-P", "-t", prefix + UPLOADS, "-K", "|", "-X", "partitioner=murmur2_random")
    kcat(
        kafka_settings,
        *produce,
        "-H",
        "traceparent=00-abc-def-01",
        given="\n".join([*lines, "c99|{"]),
    )
    work(kafka_settings, 51)
    read = ("-C", "-e", "-q", "-X", "isolation.level=read_committed")
    said = kcat(kafka_settings, *read, "-t", prefix + DECISIONS, "-f", "%k\t%h\t%s\n").splitlines()
    rows = [line.split("\t") for line in said]
    assert sorted(row[0] for row in rows) == sorted([f"c{n}" for n in range(50)] + ["c99"])
    for _, headers, value in rows:
        named = dict(header.split("=", 1) for header in headers.split(","))
        decision = json.loads(value)
        assert named["ce_specversion"] == "1.0"
        assert named["ce_id"] == decision["decision_id"]
        assert named["ce_type"] == "org.weir.decision.v1"
        assert named["ce_source"] == "weir"
        assert named["traceparent"] == "00-abc-def-01"
        source = decision["source"]
        assert named["weir_source"] == f"media.uploads/{source['partition']}/{source['offset']}"
    letters = kcat(kafka_settings, *read, "-t", prefix + DEAD_LETTERS, "-f", "%k %s\n").splitlines()
    assert letters == ["c99 {"]

    for name, value in {"SERVERS": kafka_settings.servers, "TOPIC_PREFIX": prefix}.items():
        monkeypatch.setenv(f"WEIR_KAFKA_{name}", value)
    run = CliRunner().invoke
    assert "every topic was there already" in run(main, ["topics", "create"]).output
    account = run(main, ["reconcile", "--json"])
    assert account.exit_code == 0, account.output
    found = json.loads(account.output)
    assert (found["uploads"], found["decided"], found["dead_letters"]) == (51, 51, 1)
    listed = run(main, ["deadletters", "list", "--json"])
    letter = json.loads(listed.output)
    assert (letter["reason"], letter["key"], letter["value"]) == ("undecodable", "c99", "{")
    assert run(main, ["deadletters", "replay", "9/9"]).exit_code == 1
    assert run(main, ["deadletters", "replay"]).exit_code == 2
    assert "replayed 1" in run(main, ["deadletters", "replay", letter["place"]]).output
    account = run(main, ["reconcile"])
    assert "51 decided, 1 dead letters, 1 waiting" in account.output
    assert account.exit_code == 0
