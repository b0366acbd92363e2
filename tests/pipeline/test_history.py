"""Policy sets of the past, shown and put back."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.config import Kafka
from pipeline.errors import RefusedError
from pipeline.history import Published, published, put_back
from pipeline.kafka import Producer
from pipeline.outcome import policy_set_record
from policies.folder import read_policies
from policies.schema import PolicySet

SHIPPED = Path(__file__).parents[2] / "policies"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the shipped policies."""
    for file in SHIPPED.glob("*.yaml"):
        shutil.copy(file, tmp_path)
    return tmp_path


def kept(policies: PolicySet) -> Published:
    """Return a set as it stands on its topic."""
    return Published.model_validate_json(policy_set_record(policies).value or b"")


def edit(folder: Path) -> None:
    """Change one policy, take one away and begin one."""
    weapons = folder / "weapons.yaml"
    weapons.write_text(weapons.read_text().replace("act: 0.9\n", "act: never\n"))
    (folder / "hate.yaml").unlink()
    drugs = (folder / "drugs.yaml").read_text()
    (folder / "pills.yaml").write_text(drugs.replace("policy: drugs", "policy: pills"))


def test_put_back(folder: Path) -> None:
    """A rollback writes every file of the set as it was, comments and all, and sets others aside."""
    before = read_policies(folder)
    words = {path.name: path.read_text() for path in folder.glob("*.yaml")}
    edit(folder)
    assert read_policies(folder).digest != before.digest

    change = put_back(kept(before), folder)

    assert read_policies(folder).digest == before.digest
    assert {path.name: path.read_text() for path in folder.glob("*.yaml")} == words
    assert change.set_aside == ("pills.yaml",)
    assert (folder / "pills.yaml.before-rollback").exists()


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("weapons.yaml", "policy: weapons", "does not read the files"),
        ("fireworks.yaml", None, "make sha256:"),
        ("../hate.yaml", "x", "outside its folder"),
    ],
)
def test_put_back_nothing(folder: Path, name: str, text: str | None, why: str) -> None:
    """Files that do not make the set of their digest leave the folder as it was."""
    policies = read_policies(folder)
    drugs = policies.files["drugs.yaml"].replace("policy: drugs", "policy: fireworks")
    wrong = Published(digest=policies.digest, files={**policies.files, name: text or drugs})

    with pytest.raises(RefusedError, match=why):
        put_back(wrong, folder)

    assert read_policies(folder) == policies
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def weir(kafka: Kafka, *arguments: str) -> Result:
    """Run `weir policy` against this Kafka."""
    env = {"WEIR_KAFKA_SERVERS": kafka.servers, "WEIR_KAFKA_TOPIC_PREFIX": kafka.topic_prefix}
    return CliRunner().invoke(main, ["policy", *arguments], env=env)


def test_from_kafka(folder: Path, kafka_settings: Kafka) -> None:
    """A set that was live is found on its topic by its digest, shown, and put back."""
    before = read_policies(folder)
    edit(folder)
    after = read_policies(folder)
    producer = Producer(kafka_settings)
    producer.send([policy_set_record(before), policy_set_record(after), policy_set_record(before)])
    producer.close()

    shown = weir(kafka_settings, "show", before.digest, "--folder", str(folder))
    back = weir(kafka_settings, "rollback", before.digest[:20], "--folder", str(folder))

    assert "policy: hate" in shown.output
    assert back.exit_code == 0, back.output
    assert "pills.yaml was no part of it" in back.output
    assert read_policies(folder).digest == before.digest
    with pytest.raises(RefusedError, match="was ever live"):
        published(kafka_settings, "sha256:" + "0" * 64)
    with pytest.raises(RefusedError, match="write more of it"):
        published(kafka_settings, "sha256:")
