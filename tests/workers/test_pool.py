"""The pool on a real Ray: what only real processes show."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.data.hostile import photo, saved
from tests.workers.simulated import QUESTIONS, picture, text
from workers.crew import Patience
from workers.dispatch import Sizes
from workers.errors import MediaRefusedError, PoisonError
from workers.pool import PoolOptions, RayPool, look, stop
from workers.spec import ClassifierSpec
from workers.store import Access
from workers.threads import WAITING
from workers.upload import Judged, Upload

#: Long enough for a busy machine; nothing here waits for as long.
PATIENCE_S = 100.0

Opener = Callable[..., RayPool]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a media folder with one photo and one file that is none."""
    (tmp_path / "a.jpg").write_bytes(saved(photo(), "JPEG"))
    (tmp_path / "broken.jpg").write_bytes(saved(photo(), "JPEG")[:300])
    return tmp_path


@pytest.fixture
def opened(pool_options: PoolOptions, folder: Path) -> Iterator[Opener]:
    """Return what opens pools of this test, with a stub that has these options."""
    pools: list[RayPool] = []

    def opening(options: PoolOptions = pool_options, **stub: Any) -> RayPool:
        spec = ClassifierSpec(name="stub", model="stub", kind="stub", options=stub)
        pools.append(RayPool([spec], access=Access(folder=folder), options=options))
        assert pools[-1].ready(QUESTIONS.all, timeout_s=PATIENCE_S)
        return pools[-1]

    yield opening
    for pool in pools:
        pool.close()


def finish(pool: RayPool, count: int) -> list[Judged]:
    """Wait until so many uploads have come back, and a moment longer in case more do."""
    came: list[Judged] = []
    until_s = time.monotonic() + PATIENCE_S
    while len(came) < count and time.monotonic() < until_s:
        came += pool.finished(timeout_s=0.2)
    came += pool.finished(timeout_s=0.05)
    assert len({judged.key for judged in came}) == len(came) == count
    return came


def pid_of(options: PoolOptions, kind: str) -> int:
    """Return the process of the first worker of this kind."""
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        for state in look(options):
            if state.name.startswith(kind) and state.pid is not None:
                return state.pid
        time.sleep(0.1)
    raise AssertionError(kind)


def test_the_whole_way(opened: Opener) -> None:
    """Captions and media are judged, refused and explained, and then let go."""
    started = time.time()
    pool = opened()
    assert pool.last_answer_at("classifier-0") is None
    pool.submit(
        [text(1), picture(2), picture(3, "broken.jpg"), picture(4, "none.jpg")], QUESTIONS.all
    )
    came = {judged.key: judged for judged in finish(pool, 4)}
    assert {key: type(j.fault) for key, j in came.items() if j.fault} == {
        3: MediaRefusedError,
        4: MediaRefusedError,
    }
    assert [c.media for c in came[1].classifications] == [None, None]
    assert [c.media for c in came[2].classifications] == [0, 0]
    assert len(came[2].media_digests) == 1
    assert len(came[2].perceptual_hashes) == 1
    assert (pool.last_answer_at("classifier-0") or 0.0) >= started
    pool.explain(2, QUESTIONS.all)
    (explained,) = pool.explained(timeout_s=PATIENCE_S)
    assert [reason.question for reason in explained.rationales] == [q.id for q in QUESTIONS.all]
    assert pool.covers(QUESTIONS.all[0])
    pool.release([1, 2, 3, 4])
    backlog = pool.backlog()
    assert (backlog.prepared, backlog.judging, backlog.batched) == (0, 0, 2)
    with pytest.raises(ValueError, match="submitted before"):
        pool.submit([text(5), text(5)], QUESTIONS.all)


def test_the_same_content_scores_the_same(opened: Opener) -> None:
    """Scores come from the content alone, whatever the batch and the process."""
    pool = opened()
    pool.submit([picture(key) for key in range(8)], QUESTIONS.all)
    scores = {tuple(c.score for c in judged.classifications) for judged in finish(pool, 8)}
    assert len(scores) == 1


def test_a_worker_killed_in_its_batch(opened: Opener, pool_options: PoolOptions) -> None:
    """When a classifier is killed with a batch in its hands, every upload comes back judged."""
    pool = opened(batch_s=0.5)
    pid = pid_of(pool_options, "classifier")
    pool.submit([text(key) for key in range(40)], QUESTIONS.all)
    time.sleep(0.3)
    os.kill(pid, signal.SIGKILL)
    assert not [judged for judged in finish(pool, 40) if judged.fault]
    assert pool.backlog().restarts["classifier-0"] == 1


def test_a_stopped_worker(opened: Opener, pool_options: PoolOptions) -> None:
    """A worker that is stopped is ended, its process too, and replaced."""
    pool = opened(replace(pool_options, patience=Patience(silence_s=4.0, pulse_s=0.5)), batch_s=0.2)
    pid = pid_of(pool_options, "classifier")
    os.kill(pid, signal.SIGSTOP)
    pool.submit([text(key) for key in range(10)], QUESTIONS.all)
    assert not [judged for judged in finish(pool, 10) if judged.fault]
    until_s = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until_s:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


def test_a_poison_is_found(opened: Opener) -> None:
    """An upload that kills its worker comes back as a poison, and those beside it judged."""
    pool = opened(crash_on="kills")
    pool.submit([text(k, "kills" if k == 3 else f"fine {k}") for k in range(6)], QUESTIONS.all)
    faults = {judged.key: type(judged.fault) for judged in finish(pool, 6) if judged.fault}
    assert faults == {3: PoisonError}


def test_an_exhausted_memory_halves_the_batch(opened: Opener) -> None:
    """A batch that runs out of memory is done in halves, and no worker dies of it."""
    pool = opened(exhaust_on="large", refuse_on="refused")
    uploads = [text(k, f"large {k}" if k != 4 else "refused") for k in range(8)]
    pool.submit(uploads, QUESTIONS.all)
    faults = {judged.key: type(judged.fault) for judged in finish(pool, 8) if judged.fault}
    assert faults == {4: MediaRefusedError}
    assert pool.backlog().restarts["classifier-0"] == 0


def test_pictures_lost_with_their_preparer(opened: Opener, pool_options: PoolOptions) -> None:
    """Uploads whose pictures die with the preparer that kept them are prepared again."""
    pool = opened(replace(pool_options, sizes=Sizes(preparers=(1, 1))), batch_s=0.4)
    pool.submit([picture(key) for key in range(40)], QUESTIONS.all)
    came = pool.finished(timeout_s=PATIENCE_S)
    os.kill(pid_of(pool_options, "preparer"), signal.SIGKILL)
    came += finish(pool, 40 - len(came))
    assert not [judged for judged in came if judged.fault]


def test_the_released_stay_away(opened: Opener) -> None:
    """Released keys never come back, and may be submitted again."""
    pool = opened(batch_s=0.2)
    pool.submit([text(key) for key in range(64)], QUESTIONS.all)
    pool.release(range(0, 64, 2))
    assert sorted(judged.key for judged in finish(pool, 32)) == list(range(1, 64, 2))
    pool.submit([text(0)], QUESTIONS.all)
    assert [judged.key for judged in finish(pool, 1)] == [0]


def test_workers_end_when_nobody_uses_them(opened: Opener, pool_options: PoolOptions) -> None:
    """An open pool keeps its workers; once it is closed they end by themselves."""
    options = replace(pool_options, idle_s=2.0)
    pool = opened(options)
    time.sleep(3.0)
    assert look(options)
    pool.close()
    until_s = time.monotonic() + PATIENCE_S
    while look(options) and time.monotonic() < until_s:
        time.sleep(0.3)
    assert not look(options)


def test_a_worker_has_its_threads_and_its_time(opened: Opener, pool_options: PoolOptions) -> None:
    """A classifier computes with as many threads as it is given, and waits for work as long as it may."""
    seldom = Patience(pulse_s=60.0, silence_s=60.0)
    options = replace(pool_options, idle_s=60.0, threads=1, patience=seldom)
    opened(options)
    [before] = [state for state in look(options) if state.name.startswith("classifier")]
    actor = ray.get_actor(before.name, namespace=options.namespace)
    told = actor.__ray_call__.remote(lambda _: dict(os.environ))  # noqa: TID251 -- as torch reads it
    environment = ray.get(told, timeout=PATIENCE_S)
    assert environment["OMP_NUM_THREADS"] == "1"
    assert {name: environment[name] for name in WAITING} == WAITING
    time.sleep(2.5)
    assert before.pid in {state.pid for state in look(options)}


OTHER = """
import sys, time
from tests.workers.simulated import QUESTIONS, text
from tests.workers.test_pool import ClassifierSpec, RayPool, PoolOptions, Access, Path
spec = ClassifierSpec(name="stub", model="stub", kind="stub", options={"batch_s": 0.2})
options = PoolOptions(address=sys.argv[1], namespace=sys.argv[2], threads=1)
pool = RayPool([spec], access=Access(folder=Path(sys.argv[3])), options=options)
assert pool.ready(QUESTIONS.all, timeout_s=100)
key = 0
while True:
    pool.submit([text(k) for k in range(key, key + 32)], QUESTIONS.all)
    key += 32
    for judged in pool.finished(timeout_s=0.5):
        print(judged.key, flush=True)
"""


@contextmanager
def another_process(options: PoolOptions, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run a process that uses the same pool until it is killed."""
    command = [sys.executable, "-c", OTHER, str(options.address), options.namespace, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_two_processes_share_a_pool(
    opened: Opener, pool_options: PoolOptions, folder: Path
) -> None:
    """Two pipeline processes use the same workers, and one that is killed leaves them to the other."""
    pool = opened(batch_s=0.2)
    pid = pid_of(pool_options, "classifier")
    with another_process(pool_options, folder) as other:
        assert other.stdout
        assert other.stdout.readline().strip().isdigit()
        pool.submit([text(key) for key in range(16)], QUESTIONS.all)
        assert not [judged for judged in finish(pool, 16) if judged.fault]
        other.kill()
    pool.submit([text(key) for key in range(100, 116)], QUESTIONS.all)
    assert not [judged for judged in finish(pool, 16) if judged.fault]
    assert pid_of(pool_options, "classifier") == pid
    assert sum(state.name.startswith("classifier") for state in look(pool_options)) == 1


def test_every_key_once_while_workers_are_killed(opened: Opener, pool_options: PoolOptions) -> None:
    """While workers of both kinds are killed again and again, every upload comes back once, judged."""
    chance = random.Random(7)
    options = replace(pool_options, sizes=Sizes(batch=8, classifiers=(2, 2)))
    pool = opened(options, batch_s=0.1)
    uploads: list[Upload] = [picture(k) if k % 3 == 0 else text(k) for k in range(300)]
    came: list[Judged] = []
    killed = 0
    until_s = time.monotonic() + PATIENCE_S
    while len(came) < len(uploads) and time.monotonic() < until_s:
        if uploads and killed < 4:
            pool.submit(uploads[killed * 75 : killed * 75 + 75], QUESTIONS.all)
            came += pool.finished(timeout_s=0.3)
            pids = [state.pid for state in look(options) if state.pid is not None]
            if pids:
                # What was killed a moment ago may still be in the list.
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(pids), signal.SIGKILL)
            killed += 1
        came += pool.finished(timeout_s=0.2)
    assert sorted(judged.key for judged in came) == list(range(300))
    assert not [judged for judged in came if judged.fault]


def test_stop_ends_all(opened: Opener, pool_options: PoolOptions) -> None:
    """Stopping the pool ends every worker; a pipeline that still runs hires new ones."""
    pool = opened()
    assert stop(pool_options)
    pool.submit([text(1)], QUESTIONS.all)
    assert [judged.fault for judged in finish(pool, 1)] == [None]
