"""Looks at everything that the pipeline needs, and says what is wrong with it and what to do."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal
from urllib.parse import urlsplit, urlunsplit

from pipeline import redis
from pipeline.calibration import MAX_AGE, Calibrations
from pipeline.config import Settings
from pipeline.errors import PipelineError, RefusedError
from pipeline.knock import knock
from pipeline.specs import access_of, spec_of
from policies.folder import inspect
from policies.question import Question
from policies.schema import PolicySet, Status
from workers.classifier import Classifier
from workers.errors import MediaRefusedError, WorkerError
from workers.loading import load
from workers.refusal import Refusal
from workers.spec import ClassifierSpec
from workers.store import Stores, open_stores

#: Settings of a classifier that are named like this are not shown.
_SECRET: Final = re.compile("key|token|secret|password", re.IGNORECASE)
_OLDEST_REDIS: Final = (6, 2)
_NOT_THERE: Final = "weir-doctor-asks-for-what-is-not-there"
_TRY_S: Final = 10.0

State = Literal["well", "warning", "wrong"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was looked at, and how it is."""

    of: str
    state: State
    says: str
    remedy: str = ""


def examine(settings: Settings, *, models: bool = True) -> Iterator[Diagnosis]:
    """Yield one or more diagnoses of everything that the settings name, quick ones first.

    Without `models` no classifier is loaded, so that nothing is said of what they can judge.
    """
    policies, found = _policies(settings)
    yield from found
    yield from _kafka(settings)
    yield _redis(settings)
    yield from _store(settings)
    yield from _text_in_pictures(settings)
    yield from _provider(settings)
    yield from _ray(settings)
    if models and policies is not None:
        yield from _classifiers(settings, policies)
    if settings.shadow.on:
        yield from _shadow(settings, models=models)


def masked(settings: Settings) -> dict[str, Any]:
    """Return the whole configuration with every secret hidden."""
    shown = settings.model_dump(mode="json")
    shown["redis"]["url"] = _without_password(settings.redis.url.get_secret_value())
    for classifier in (*shown["classifiers"], *shown["shadow"]["classifiers"]):
        classifier["options"] = {
            name: "**********" if _SECRET.search(name) else value
            for name, value in classifier["options"].items()
        }
    return shown


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:**********@{place}"))


def _policies(settings: Settings) -> tuple[PolicySet | None, list[Diagnosis]]:
    if not settings.policies.is_dir():
        missing = Diagnosis(
            of="policies",
            state="wrong",
            says=f"the folder {settings.policies} does not exist",
            remedy="mend WEIR_POLICIES",
        )
        return None, [missing]
    policies, problems = inspect(settings.policies)
    if problems:
        bad = Diagnosis(
            of="policies",
            state="wrong" if policies is None else "warning",
            says=f"{len(problems)} problems, the first: {problems[0]}",
            remedy=f"weir policy lint {settings.policies}",
        )
        return policies, [bad]
    live = [p.policy for p in policies or () if p.status is Status.LIVE]
    if not live:
        idle = Diagnosis(
            of="policies",
            state="warning",
            says="no policy is live: every upload passes",
            remedy="set `status: live` in a policy file",
        )
        return policies, [idle]
    return policies, [Diagnosis(of="policies", state="well", says=f"live: {', '.join(live)}")]


def _kafka(settings: Settings) -> Iterator[Diagnosis]:
    refused = knock(settings.kafka)
    if refused is not None:
        yield Diagnosis(
            of="kafka",
            state="wrong",
            says=f"{refused.server}: {refused.wrong}",
            remedy=refused.remedy,
        )
        return
    # Only now the client library, which takes its time to give up.
    from pipeline.inventory import examine as examine_topics

    try:
        problems = examine_topics(settings)
    except PipelineError as error:
        yield Diagnosis(of="kafka", state="wrong", says=str(error), remedy="see the broker's log")
        return
    yield Diagnosis(of="kafka", state="well", says=f"{settings.kafka.servers} lets us in")
    for problem in problems:
        yield Diagnosis(
            of="topics",
            state="wrong",
            says=f"{problem.topic} {problem.wrong}",
            remedy=problem.remedy,
        )
    if not problems:
        yield Diagnosis(of="topics", state="well", says="all there, and as they should be")


def _redis(settings: Settings) -> Diagnosis:
    url = settings.redis.url.get_secret_value()
    shown = _without_password(url)
    try:
        said = redis.server(url)
    except ValueError as error:
        said = {"error": str(error)}
    if error_text := said.get("error"):
        return Diagnosis(
            of="redis",
            state="wrong",
            says=f"{shown}: {error_text}",
            remedy="start Redis, or mend WEIR_REDIS_URL",
        )
    version = tuple(int(part) for part in said["redis_version"].split(".")[:2])
    if version < _OLDEST_REDIS:
        return Diagnosis(
            of="redis",
            state="wrong",
            says=f"{shown} is Redis {said['redis_version']}",
            remedy="use 6.2 or newer",
        )
    policy = said.get("maxmemory_policy", "unknown")
    if policy != "noeviction":
        return Diagnosis(
            of="redis",
            state="wrong",
            says=f"its eviction policy is {policy}: full memory would make it forget review jobs",
            remedy="CONFIG SET maxmemory-policy noeviction, and in its configuration file",
        )
    if said.get("aof_enabled") != "1":
        return Diagnosis(
            of="redis",
            state="warning",
            says=f"{shown} keeps no append-only file: after its restart the queue is made again",
            remedy="appendonly yes",
        )
    return Diagnosis(of="redis", state="well", says=f"{shown}, version {said['redis_version']}")


def _store(settings: Settings) -> Iterator[Diagnosis]:
    store, stores = settings.store, open_stores(access_of(settings))
    if store.folder is not None:
        yield _used("media folder", str(store.folder), stores.store_for("file:///").check)
    in_s3 = store.uploads.startswith("s3:")
    if in_s3 or store.endpoint is not None or store.access_key is not None:
        where = store.endpoint or f"S3 in {store.region}"
        yield _used("media in S3", where, stores.store_for("s3://bucket/key").check)
    elif store.folder is None:
        yield Diagnosis(
            of="media store",
            state="wrong",
            says="neither a folder nor S3 is configured: only captions can be judged",
            remedy="set WEIR_STORE_FOLDER, or WEIR_STORE_ENDPOINT with its keys",
        )
    if in_s3:
        yield _used("bucket", store.uploads, lambda: _try_bucket(stores, store.uploads))


def _used(of: str, where: str, use: Callable[[], None]) -> Diagnosis:
    try:
        use()
    except WorkerError as error:
        remedy = "mend WEIR_STORE_…, or make what is missing"
        return Diagnosis(of=of, state="wrong", says=f"{where}: {error}", remedy=remedy)
    return Diagnosis(of=of, state="well", says=where)


def _try_bucket(stores: Stores, uploads: str) -> None:
    """Ask for an object that is not there: the answer tells a bucket that is there from one that is not."""
    uri = f"{uploads.rstrip('/')}/{_NOT_THERE}"
    try:
        stores.fetch(uri, max_bytes=1, timeout_s=_TRY_S)
    except MediaRefusedError as error:
        if error.reason != Refusal.MISSING or error.detail.startswith("NoSuchBucket"):
            raise


def _text_in_pictures(settings: Settings) -> Iterator[Diagnosis]:
    if not settings.media.read_text:
        return
    from workers.signals.ocr import available

    if available():
        yield Diagnosis(of="text in pictures", state="well", says="it is read by RapidOCR")
    else:
        yield Diagnosis(
            of="text in pictures",
            state="wrong",
            says="WEIR_MEDIA_READ_TEXT is on and RapidOCR is not installed: no medium could be prepared",
            remedy="pip install 'weir-moderation[ocr]'",
        )


def _provider(settings: Settings) -> Iterator[Diagnosis]:
    issuer = settings.oidc.issuer
    if not issuer:
        return
    from pipeline.issuer import description

    try:
        description(issuer)
    except RefusedError as error:
        yield Diagnosis(
            of="sign-in",
            state="wrong",
            says=str(error),
            remedy="mend WEIR_OIDC_ISSUER: it reads exactly as the provider names itself",
        )
        return
    if settings.oidc.client_id:
        yield Diagnosis(of="sign-in", state="well", says=f"{issuer} describes itself")
    else:
        yield Diagnosis(
            of="sign-in",
            state="wrong",
            says=f"{issuer} describes itself, but does not know by which name we come",
            remedy="set WEIR_OIDC_CLIENT_ID, as the provider has it",
        )


def _ray(settings: Settings) -> Iterator[Diagnosis]:
    address = settings.pool.address
    if address is None:
        yield Diagnosis(of="ray", state="well", says="`weir run` starts one of its own")
        return
    from workers.pool import PoolOptions, connect

    try:
        connect(PoolOptions(address=address, namespace=settings.pool.namespace))
    except (ConnectionError, RuntimeError, TimeoutError, ValueError, WorkerError) as error:
        yield Diagnosis(
            of="ray",
            state="wrong",
            says=f"{address}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            remedy="start Ray, mend WEIR_POOL_ADDRESS, or give its token in RAY_AUTH_TOKEN",
        )
    else:
        yield Diagnosis(of="ray", state="well", says=f"{address} lets us in")


def _classifiers(settings: Settings, policies: PolicySet) -> Iterator[Diagnosis]:
    loaded: list[tuple[ClassifierSpec, Classifier]] = []
    for entry in settings.classifiers:
        spec = spec_of(entry)
        try:
            classifier = load(spec)
        except WorkerError as error:
            yield Diagnosis(
                of=f"classifier {spec.name}",
                state="wrong",
                says=str(error),
                remedy="mend its entry in [[classifiers]]",
            )
            continue
        loaded.append((spec, classifier))
        yield Diagnosis(
            of=f"classifier {spec.name}", state="well", says=f"{spec.model}, {classifier.digest}"
        )
    live = [q for p in policies if p.status is Status.LIVE for q in p.questions]
    answered = {
        question.id: next((c for s, c in loaded if s.asks(question) and c.covers(question)), None)
        for question in live
    }
    uncovered = sorted({q.policy for q in live if answered[q.id] is None})
    for policy in uncovered:
        yield Diagnosis(
            of=f"policy {policy}",
            state="wrong",
            says="it is live and no configured classifier can judge it",
            remedy="configure one that can, or set `status: draft`",
        )
    yield from _calibrations(settings, live, lambda q: answered[q.id])


def _shadow(settings: Settings, *, models: bool) -> Iterator[Diagnosis]:
    """Yield what is wrong with what decides in the shadow; nothing of it stops the pipeline."""
    shadow = settings.shadow
    own = settings.model_copy(
        update={
            "policies": shadow.policies or settings.policies,
            "classifiers": shadow.classifiers or settings.classifiers,
        }
    )
    policies, found = _policies(own)
    if models and policies is not None:
        found += _classifiers(own, policies)
    share = f"on {shadow.rollout:.0%} of contents"
    if all(one.state == "well" for one in found):
        told = shadow.policies or ", ".join(c.name for c in shadow.classifiers)
        yield Diagnosis(of="shadow", state="well", says=f"{told} decides {share}, and never acts")
    for one in found:
        if one.state != "well":
            remedy = one.remedy.replace("WEIR_POLICIES", "WEIR_SHADOW_POLICIES").replace(
                "[[classifiers]]", "[[shadow.classifiers]]"
            )
            yield replace(one, of=f"shadow: {one.of}", state="warning", remedy=remedy)


def _calibrations(
    settings: Settings,
    live: Sequence[Question],
    answers: Callable[[Question], Classifier | None],
) -> Iterator[Diagnosis]:
    try:
        calibrations = Calibrations.load(settings.calibrations)
    except PipelineError as error:
        yield Diagnosis(of="calibrations", state="wrong", says=str(error), remedy="see above")
        return
    now = datetime.now(UTC)
    lacking = []
    for question in live:
        classifier = answers(question)
        if classifier is None:
            continue
        found = calibrations.find(question, classifier.digest)
        if found is None:
            lacking.append(f"{question.id} (none)")
        elif found.question_digest != question.digest or now - found.fitted_at > MAX_AGE:
            lacking.append(f"{question.id} (stale)")
    if lacking:
        yield Diagnosis(
            of="calibrations",
            state="warning",
            says=f"without a fresh one, so acting only where the policy allows that: {', '.join(lacking)}",
            remedy="weir calibrate",
        )
    else:
        yield Diagnosis(of="calibrations", state="well", says="fresh for every live question")
