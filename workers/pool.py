"""The pool of workers on Ray, the only file that knows it: the connection, the actors, and the thread that keeps book.

The pool belongs to the deployment. Actors are named, detached and live in one Ray namespace; their names carry a
fingerprint of all that they depend on (configuration, checkpoint, code), so pipeline processes with the same
configuration share them, and a new configuration gets new ones beside the old. They end by `stop`, or by themselves
after nobody has used them for a while.

Without an address a pool starts a Ray of its own, which ends with its process. Processes of one machine that are to
share a pool join one Ray: one that another process holds (`hold`, the command `weir pool start`), or a cluster.
"""

import contextlib
import gc
import logging
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Self

import ray
from ray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from workers.actors import Described, Judge, Lost, Preparer, Watch, start_of
from workers.bounds import Bounds
from workers.classifier import Picture
from workers.crew import Failed, Failure, Patience
from workers.desk import Desk, Inbox
from workers.dispatch import Sizes
from workers.errors import ClassifierUnavailableError
from workers.fingerprint import of_classifier, of_code, of_values
from workers.loading import load
from workers.signals.ocr import TextReader
from workers.spec import TIDY_S, ClassifierSpec
from workers.store import Access, open_stores
from workers.threads import wait_briefly

_log = logging.getLogger(__name__)

#: How long a classifier waits for pictures from another machine.
_BORROW_S: Final = 20.0
#: How often a Ray that cannot be reached is tried again.
_RECONNECT_S: Final = 3.0
#: How often Ray's head is looked at, how long that may take, and after how many failures it is lost.
_PROBE_EVERY_S: Final = 1.0
_PROBE_S: Final = 2.0
_PROBES: Final = 3
#: A surplus worker ends itself after this long without use.
_SURPLUS_IDLE_S: Final = 60.0
#: Calls that are answered while the worker is at another one.
_ASIDE: Final = {"pulse": 4}
#: Calls that a preparer works on at once.
_PREPARER_CALLS: Final = 8
_ASIDE_METHODS: Final = frozenset({"pulse", "describe", "turn", "go"})
#: How long a worker may take to say who it is before it is ended all the same.
_LOOK_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """How the pool runs.

    Args:
        address: Of the Ray to join; `auto` finds one on this machine; None starts one.
        namespace: Pools in different namespaces know nothing of each other.
        sizes: How many workers there are and how much they are given.
        patience: How long they may take.
        num_gpus: Of each classifier worker; fractions share a GPU.
        threads: CPU threads of each classifier worker; None: all cores, shared out.
        idle_s: How long workers live that nobody uses.
        read_text: Whether text in pictures is read; needs the extra `ocr`.
        object_store_bytes: Of a Ray that is started here.
    """

    address: str | None = None
    namespace: str = "weir"
    sizes: Sizes = field(default_factory=Sizes)
    patience: Patience = field(default_factory=Patience)
    num_gpus: float = 0.0
    threads: int | None = None
    idle_s: float = 600.0
    read_text: bool = False
    object_store_bytes: int = 512_000_000


class JudgeActor(Judge):
    """A classifier in a process of its own."""

    def __init__(
        self, *, spec: ClassifierSpec, threads: int, idle_s: float, reasons_s: float
    ) -> None:
        # Ray allows an actor without CPUs of its own one thread; the number must stand before torch is imported.
        os.environ["OMP_NUM_THREADS"] = str(threads)  # noqa: TID251 -- written for torch, not read
        wait_briefly()
        super().__init__(
            load(spec),
            watch=Watch(idle_s, _leave),
            node=_own_node(),
            borrow=_borrow,
            reasons_s=reasons_s,
            reason_s=spec.deadline_s,
        )


class PreparerActor(Preparer):
    """A preparer of media in a process of its own."""

    def __init__(self, *, access: Access, bounds: Bounds, read_text: bool, idle_s: float) -> None:
        super().__init__(
            open_stores(access),
            bounds,
            watch=Watch(idle_s, _leave),
            node=_own_node(),
            keep=ray.put,
            text=TextReader().read if read_text else None,
        )


def _own_node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _leave() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _borrow(references: Sequence[Any]) -> list[Sequence[tuple[Picture, ...]] | Lost]:
    """Return the pictures behind the references; whatever process kept them may be gone by now."""
    if not references:
        return []
    try:
        return list(ray.get(list(references), timeout=_BORROW_S))
    except (ObjectLostError, GetTimeoutError):
        if len(references) == 1:
            return [Lost()]
    return [found for one in references for found in _borrow([one])]


def _end_process(pid: int, started: str) -> bool:
    """End a process of this machine that does not answer; its start tells it from a later one with its number."""
    if not started or start_of(pid) != started:
        return False
    os.kill(pid, signal.SIGKILL)
    return True


@dataclass(frozen=True, slots=True)
class _Role:
    """How workers of one kind are hired."""

    actor: Any
    name: str
    arguments: Mapping[str, Any]
    least: int
    num_gpus: float = 0.0
    #: Whether all pipeline processes use the same; what is not shared ends with its handle.
    shared: bool = True


@dataclass(frozen=True, slots=True)
class _Nobody:
    """In place of a handle, where an actor could not be hired."""

    why: str


class RayHands:
    """Hires, calls and ends actors."""

    def __init__(self, roles: dict[str, _Role], options: PoolOptions, inbox: Inbox) -> None:
        self._roles = roles
        self._options = options
        self._inbox = inbox

    def hire(self, role: str, slot: int) -> Any:
        """Return a handle to the actor in this place, made if it is not there."""
        as_role = self._roles[role]
        idle_s = self._options.idle_s
        if slot >= as_role.least:
            idle_s = min(idle_s, _SURPLUS_IDLE_S)
        named: dict[str, Any] = {
            "name": f"{as_role.name}:{slot}",
            "namespace": self._options.namespace,
            "lifetime": "detached",
            "get_if_exists": True,
        }
        chosen = as_role.actor.options(
            **(named if as_role.shared else {}),
            max_restarts=0,
            max_task_retries=0,
            num_cpus=0,
            num_gpus=as_role.num_gpus,
            scheduling_strategy="SPREAD",
        )
        try:
            return chosen.remote(**as_role.arguments, idle_s=idle_s)
        except (RayError, ValueError) as error:
            # Another process took the name at the same moment, or the head is gone: tried again after a while.
            return _Nobody(str(error))

    def call(self, handle: Any, number: int, method: str, arguments: tuple[Any, ...]) -> None:
        """Start a call; its outcome comes into the inbox under its number."""
        if isinstance(handle, _Nobody):
            self._inbox.put((number, Failed(Failure.SPARED, handle.why)))
            return
        try:
            bound = getattr(handle, method)
            if method in _ASIDE_METHODS:
                bound = bound.options(concurrency_group="pulse")
            future: Future[Any] = bound.remote(number, *arguments).future()
        except RayError as error:
            self._inbox.put((number, _failed(error)))
            return
        future.add_done_callback(partial(self._ended, number))

    def end(self, handle: Any, described: Any) -> None:
        """End an actor for good, also one that is stopped: Ray strikes it out, but leaves its process."""
        if isinstance(handle, _Nobody):
            return
        with contextlib.suppress(RayError, ValueError):
            ray.kill(handle, no_restart=True)
            if isinstance(described, Described):
                where = NodeAffinitySchedulingStrategy(node_id=described.node, soft=False)
                task = ray.remote(_end_process).options(
                    num_cpus=0, max_retries=0, scheduling_strategy=where
                )
                task.remote(described.identity.pid, described.identity.started)

    def _ended(self, number: int, future: "Future[Any]") -> None:
        error = future.exception()
        self._inbox.put((number, future.result() if error is None else _failed(error)))


def _failed(error: BaseException) -> Failed:
    """Say what an error of Ray means for the call that it ended."""
    detail = f"{type(error).__name__}: {error}"[:1000]
    if isinstance(error, ActorDiedError):
        return Failed(Failure.DIED, detail)
    # An actor that cannot be reached at the moment may work on: it is ended, so that what it is at can be tried again.
    died = isinstance(error, RayActorError | RayTaskError)
    return Failed(Failure.DIED if died else Failure.SPARED, detail, alive=True)


class RayPool(Desk):
    """Judges uploads in the background, on Ray."""

    def __init__(
        self,
        specs: Sequence[ClassifierSpec],
        *,
        access: Access,
        bounds: Bounds | None = None,
        options: PoolOptions | None = None,
    ) -> None:
        """Start joining or starting Ray in the background; uploads may be submitted at once."""
        options = options or PoolOptions()
        roles = _roles(specs, access, bounds or Bounds(), options)
        super().__init__(
            specs,
            connection=_Connection(options),
            hands=partial(RayHands, roles, options),
            sizes=options.sizes,
            patience=options.patience,
        )


def _roles(
    specs: Sequence[ClassifierSpec], access: Access, bounds: Bounds, options: PoolOptions
) -> dict[str, _Role]:
    judge = ray.remote(concurrency_groups=_ASIDE)(JudgeActor)
    preparer = ray.remote(concurrency_groups=_ASIDE, max_concurrency=_PREPARER_CALLS)(PreparerActor)
    most = options.sizes.classifiers[1] * len(specs)
    threads = options.threads or max(1, (os.cpu_count() or 1) // most)
    roles = {
        f"classifier-{index}": _Role(
            actor=judge,
            name=f"classifier:{spec.name}:{of_classifier(spec)}:{of_code()}",
            arguments={
                "spec": spec,
                "threads": threads,
                "reasons_s": options.patience.call_s - TIDY_S,
            },
            least=options.sizes.classifiers[0],
            num_gpus=options.num_gpus,
        )
        for index, spec in enumerate(specs)
    }
    told = of_values(
        access.folder, access, access.access_key, access.secret_key, bounds, options.read_text
    )
    roles["preparer"] = _Role(
        actor=preparer,
        name=f"preparer:{told}:{of_code()}",
        arguments={"access": access, "bounds": bounds, "read_text": options.read_text},
        least=options.sizes.preparers[0],
    )
    roles["quarantine"] = replace(roles["preparer"], shared=False, least=1)
    return roles


class _Connection:
    """The way to Ray: joined, noticed when it is lost, tried again.

    Ray's own client is not asked: for a head that is gone it waits for minutes, and ends the process after one.
    """

    def __init__(self, options: PoolOptions) -> None:
        self.joined = False
        self.lost = False
        self._options = options
        self._started = False
        self._try_at_s = 0.0
        self._closing = threading.Event()
        self._head: tuple[str, int] | None = None

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="pool-head", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._started and ray.is_initialized():
            ray.shutdown()

    def join(self) -> bool:
        """Join Ray, or start it, and return whether that worked; the next try comes after a while."""
        if time.monotonic() < self._try_at_s:
            return False
        try:
            self._started = connect(self._options) or self._started
        except Exception as error:  # noqa: BLE001 -- Ray raises bare ones when it does not start
            _log.warning("Ray cannot be reached: %s", error)
            ray.shutdown()  # whatever of it has started
            self._try_at_s = time.monotonic() + _RECONNECT_S
            return False
        self._head = _host_and_port(str(ray.get_runtime_context().gcs_address))
        self.lost, self.joined = False, True
        return True

    def leave(self) -> None:
        """Let go of a Ray that was lost."""
        self.joined, self._head = False, None
        gc.collect()  # references into the lost object store must not be let go of later, in a new Ray
        ray.shutdown()

    def _watch(self) -> None:
        silent = 0
        while not self._closing.wait(_PROBE_EVERY_S):
            if (head := self._head) is None:
                silent = 0
                continue
            silent = 0 if _answers(head) else silent + 1
            if silent >= _PROBES:
                self.lost = True


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _answers(where: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(where, timeout=_PROBE_S):
            return True
    except OSError:
        return False


def connect(options: PoolOptions) -> bool:
    """Join the Ray at the address, or start one; return whether this process started it.

    Raises:
        ClassifierUnavailableError: nothing answers at the address.
    """
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # noqa: TID251 -- written for Ray, not read
    logging.getLogger("ray").setLevel(logging.ERROR)
    if options.address is None:
        ray.init(
            address="local",
            namespace=options.namespace,
            num_cpus=os.cpu_count(),
            object_store_memory=options.object_store_bytes,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
        )
        return True
    # Ray itself waits minutes for a head that is not there.
    if ":" in options.address and "://" not in options.address:
        where = _host_and_port(options.address)
        if not _answers(where):
            raise ClassifierUnavailableError("ray", f"no Ray answers at {options.address}")
    _use_token()
    ray.init(
        address=options.address,
        namespace=options.namespace,
        log_to_driver=False,
        configure_logging=False,
    )
    return False


def _use_token() -> None:
    # A Ray that was started on this machine asks for the token in its user's home; joining does not look there by
    # itself. Releases before tokens do not have this.
    with contextlib.suppress(ImportError):
        from ray._private.authentication.authentication_token_setup import (
            maybe_enable_token_auth_if_token_available,
        )

        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """One worker of the deployment's pool, as `weir pool status` shows it."""

    name: str
    digest: str | None
    pid: int | None
    #: For how long it has been at its present call; None where it is idle or does not answer.
    busy_s: float | None
    last_answer_at: float | None
    answers: bool


def look(options: PoolOptions, *, timeout_s: float = 5.0) -> list[WorkerState]:
    """Return every worker in the namespace, also those that no pipeline uses at present.

    Raises:
        ClassifierUnavailableError: no Ray answers.
    """
    with _visit(options):
        return [_state(name, options, timeout_s) for name in _names(options)]


def stop(options: PoolOptions) -> list[str]:
    """End every worker in the namespace, whatever it is at, and return their names.

    Pipelines that still run hire new ones as soon as they notice.
    """
    with _visit(options):
        names = _names(options)
        for name in names:
            with contextlib.suppress(RayError, ValueError):
                handle = ray.get_actor(name, namespace=options.namespace)
                described = _said(handle.describe, _LOOK_S)
                RayHands({}, options, queue.SimpleQueue()).end(handle, described)
    return names


@contextlib.contextmanager
def _visit(options: PoolOptions) -> Iterator[None]:
    mine = not ray.is_initialized()
    if mine:
        try:
            connect(replace(options, address=options.address or "auto"))
        except ConnectionError as error:
            raise ClassifierUnavailableError("ray", "no Ray runs on this machine") from error
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


def _names(options: PoolOptions) -> list[str]:
    named = ray.util.list_named_actors(all_namespaces=True)
    return sorted(one["name"] for one in named if one["namespace"] == options.namespace)


def _said(method: Any, timeout_s: float) -> Any:
    """Return what an actor says aside from its work; None if it does not answer."""
    with contextlib.suppress(RayError):
        return ray.get(method.options(concurrency_group="pulse").remote(0), timeout=timeout_s)
    return None


def _state(name: str, options: PoolOptions, timeout_s: float) -> WorkerState:
    described = pulse = None
    with contextlib.suppress(ValueError):  # it has ended since its name was listed
        handle = ray.get_actor(name, namespace=options.namespace)
        described, pulse = _said(handle.describe, timeout_s), _said(handle.peek, timeout_s)
    return WorkerState(
        name=name,
        digest=(described.digest or None) if described else None,
        pid=described.identity.pid if described else None,
        busy_s=pulse.running_s if pulse and pulse.running is not None else None,
        last_answer_at=pulse.last_answer_at if pulse else None,
        answers=pulse is not None,
    )
