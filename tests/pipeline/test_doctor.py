"""The doctor names what is wrong, what to do, and no secret."""

import json
import socket
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from infra.embedded.ports import free_port
from pipeline import doctor
from pipeline.config import SHIPPED_POLICIES, Settings
from workers.signals.ocr import available

HOUSE = Path(__file__).parent.parent.parent
STUB = {"name": "stub", "model": "stub", "kind": "stub"}


def settings(**changed: Any) -> Settings:
    """Return settings that reach nothing, but for what is given."""
    nowhere = f"localhost:{free_port()}"
    plain: dict[str, Any] = {
        "kafka": {"servers": nowhere},
        "redis": {"url": f"redis://{nowhere}/0"},
        "classifiers": [STUB],
    }
    return Settings(**(plain | changed))


def diagnoses(found: Settings, of: str, *, models: bool = False) -> list[doctor.Diagnosis]:
    """Return what the doctor says of one thing."""
    return [d for d in doctor.examine(found, models=models) if d.of == of]


def configured(url: str, key: str, value: str) -> None:
    """Set one parameter of a Redis."""
    port = int(url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"CONFIG SET {key} {value}\r\n".encode())
        assert connection.recv(100).startswith(b"+OK")


def test_redis_that_may_forget_is_wrong(redis_url: str) -> None:
    """Any eviction policy but noeviction is refused, because full memory would lose review jobs."""
    configured(redis_url, "maxmemory-policy", "allkeys-lru")
    try:
        (found,) = diagnoses(settings(redis={"url": redis_url}), "redis")
    finally:
        configured(redis_url, "maxmemory-policy", "noeviction")

    assert found.state == "wrong"
    assert "allkeys-lru" in found.says
    assert "noeviction" in found.remedy


def test_redis_without_an_append_only_file_is_a_warning(redis_url: str) -> None:
    """A queue that is rebuilt after a restart is worth a word and no refusal."""
    (found,) = diagnoses(settings(redis={"url": redis_url}), "redis")

    assert found.state == "warning"


@pytest.mark.parametrize("url", ["redis://:s3cret@localhost:1/0", "http://localhost"])
def test_redis_that_is_not_there_is_named(url: str) -> None:
    """A Redis out of reach and an address that is none are both named, without the password."""
    (found,) = diagnoses(settings(redis={"url": url}), "redis")

    assert found.state == "wrong"
    assert "s3cret" not in found.says
    assert "WEIR_REDIS_URL" in found.remedy


def test_kafka_that_is_not_there_is_named() -> None:
    """The broker's address stands in what the doctor says."""
    unreachable = settings()

    (found,) = diagnoses(unreachable, "kafka")

    assert found.state == "wrong"
    assert unreachable.kafka.servers in found.says


def test_a_missing_media_folder_is_named(tmp_path: Path) -> None:
    """The folder of the media store must be there before the first upload."""
    (found,) = diagnoses(settings(store={"folder": tmp_path / "gone"}), "media folder")

    assert found.state == "wrong"
    assert "gone" in found.says


def test_no_media_store_at_all_is_named() -> None:
    """Without folder and S3 no picture could ever be fetched."""
    (found,) = diagnoses(settings(), "media store")

    assert found.state == "wrong"


def test_a_missing_bucket_is_told_apart_from_an_empty_one() -> None:
    """The doctor tries the bucket that uploads go to: one that is missing is wrong, an empty one is well."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    store = {
        "endpoint": endpoint,
        "access_key": "a",
        "secret_key": "b",
        "uploads": "s3://not-made-yet/new",
    }
    try:
        (before,) = diagnoses(settings(store=store), "bucket")
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )
        client.create_bucket(Bucket="not-made-yet")
        (after,) = diagnoses(settings(store=store), "bucket")
        (connected,) = diagnoses(settings(store=store), "media in S3")
    finally:
        server.stop()

    assert before.state == "wrong"
    assert "NoSuchBucket" in before.says
    assert after.state == "well"
    assert connected.state == "well"


def test_a_policy_that_no_classifier_can_judge_is_named(tmp_path: Path) -> None:
    """A live policy outside of every classifier's own is wrong; the others are not mentioned."""
    for name in ("weapons", "drugs", "queues", "context"):
        text = (SHIPPED_POLICIES / f"{name}.yaml").read_text()
        (tmp_path / f"{name}.yaml").write_text(text.replace("status: draft", "status: live"))
    only = STUB | {"policies": ["weapons"]}

    found = list(doctor.examine(settings(classifiers=[only], policies=tmp_path)))

    assert "policy weapons" not in {d.of for d in found}
    drugs = next(d for d in found if d.of == "policy drugs")
    assert drugs.state == "wrong"


def test_a_classifier_that_cannot_be_loaded_is_named() -> None:
    """A model that is not where configuration says is wrong, and named as configuration does."""
    missing = {"name": "mine", "model": "/no/such/folder", "kind": "generative"}

    (found,) = diagnoses(settings(classifiers=[missing]), "classifier mine", models=True)

    assert found.state == "wrong"


def test_policies_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """The first problem and the command that shows all of them stand in the diagnosis."""
    (tmp_path / "weapons.yaml").write_text("policy: [")

    (found,) = diagnoses(settings(policies=tmp_path), "policies")

    assert found.state == "wrong"
    assert "weir policy lint" in found.remedy


def test_secrets_are_never_shown() -> None:
    """Passwords and keys are masked wherever they may stand in the configuration."""
    secret = "s3cret"
    shown = doctor.masked(
        settings(
            kafka={"servers": "k:1", "password": secret},
            redis={"url": f"redis://weir:{secret}@localhost:6379/0"},
            store={"access_key": secret, "secret_key": secret},
            classifiers=[STUB | {"options": {"api_key": secret, "endpoint": "http://x"}}],
        )
    )

    assert secret not in json.dumps(shown)
    assert "http://x" in json.dumps(shown)
    assert "weir:**********@localhost" in shown["redis"]["url"]


def test_text_in_pictures_is_looked_at_where_it_is_wanted() -> None:
    """Whether text can be read from pictures is said where it shall be, and else not."""

    def told(**changed: Any) -> list[str]:
        found = doctor.examine(settings(**changed), models=False)
        return [one.state for one in found if one.of == "text in pictures"]

    assert told() == []
    assert told(media={"read_text": True}) == ["well" if available() else "wrong"]
