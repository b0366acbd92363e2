"""On the embedded broker, which has no transactions, nothing is lost, and what is decided twice is one decision."""

import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.embedded import broker
from pipeline.config import Kafka, environment
from pipeline.kafka import read
from pipeline.messages import DECISIONS, Decision
from tests.pipeline.test_kill import IN_HAND, INSIDE, PATIENCE_S, SESSION_S, Scene

UPLOADS_IN_ALL = 150

pytestmark = pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Kafka]:
    """Return settings of an embedded broker of the test's own."""
    part, servers = broker.start(logs=tmp_path, env=environment())
    try:
        yield Kafka(servers=servers, transactions=False, session_s=SESSION_S)
    finally:
        part.stop(grace_s=2)


def decided(settings: Kafka) -> dict[str, list[str]]:
    """Return the ids of the decisions on each content, as often as they were written."""
    found = defaultdict(list)
    for record in read(settings, [DECISIONS]):
        decision = Decision.model_validate_json(record.value or b"")
        found[decision.content_id].append(decision.decision_id)
    return found


@pytest.mark.timeout(400)
def test_nothing_is_lost_and_repeated_decisions_have_one_id(
    embedded: Kafka, tmp_path: Path
) -> None:
    """A process killed twice, once between its decisions and their offsets, loses none and repeats only itself."""
    with Scene(embedded, tmp_path, None, total=UPLOADS_IN_ALL) as scene:
        (one, _) = scene.pipelines
        one.start()
        one.ask(".linger", INSIDE)
        assert one.kill() >= IN_HAND
        one.let_go(".linger")
        one.start()
        assert one.kill() >= IN_HAND
        one.start()
        deadline = time.monotonic() + PATIENCE_S
        while len(found := decided(embedded)) < UPLOADS_IN_ALL and time.monotonic() < deadline:
            time.sleep(0.5)
        words = one.words()

    assert set(found) == {f"c{number}" for number in range(UPLOADS_IN_ALL)}, words
    # What the killed process had written without its offsets was read and decided again.
    assert any(len(ids) > 1 for ids in found.values())
    assert [content for content, ids in found.items() if len(set(ids)) > 1] == []
