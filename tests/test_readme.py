"""What README says is true: the demo shows what it promises, and every command runs.

One demo serves all tests of this file, which use it one after the other and end it at last.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.samples import ELSEWHERE
from pipeline import kafka
from pipeline.config import Kafka, environment
from pipeline.messages import DECISIONS, Decision
from pipeline.processes import descendants
from policies.folder import read_policies

HOUSE = Path(__file__).parent.parent
README = (HOUSE / "README.md").read_text()
#: Every line of a block that is marked as bash.
COMMANDS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
#: A test may wait for a whole demo, and that for its actors.
pytestmark = pytest.mark.timeout(900)
#: How long the demo may take on a machine that does other things as well.
PATIENCE_S = 280


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """A running demo."""

    process: subprocess.Popen[bytes]
    data: Path
    policies: Path
    printed: str
    environment: dict[str, str]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as somebody in another terminal would."""
        return subprocess.run(
            command,
            cwd=self.data.parent,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def send(self, folder: Path) -> dict[str, Decision]:
        """Send a folder and return the decisions by content id."""
        done = self.run("weir", "send", str(folder), "--wait", "--json", "--timeout", "200")
        assert done.returncode == 0, done.stderr
        found = [Decision.model_validate_json(line) for line in done.stdout.splitlines()]
        return {decision.content_id: decision for decision in found}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Start the demo on a folder of its own and return it when it has shown its table."""
    root = tmp_path_factory.mktemp("demo")
    data = root / "weir"
    base = {k: v for k, v in environment().items() if not k.startswith(("WEIR_", "RAY_", "KAFKA_"))}
    # Reasons are waited for longer than usual: other tests have the machine as well.
    base["WEIR_STREAM_RATIONALE_WAIT_S"] = "120"
    with (root / "printed").open("wb") as printed:
        process = subprocess.Popen(
            ["bash", str(HOUSE / "infra" / "demo.sh"), "--data", str(data)],
            env={**base, "COLUMNS": "200"},
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while "Stop: Ctrl-C" not in (text := (root / "printed").read_text()):
            assert process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.2)
        bin_folder = str(Path(sys.executable).parent)
        yield Demo(
            process=process,
            data=data,
            policies=data / "policies",
            printed=text,
            environment=base
            | exported(data / "env")
            | {"PATH": f"{bin_folder}:{base['PATH']}", "COLUMNS": "200"},
        )
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def exported(file: Path) -> dict[str, str]:
    """Return the variables that a file exports, as a shell that sources it would see them."""
    words = shlex.split(file.read_text())
    return dict(word.split("=", 1) for word in words if word != "export")


def test_the_console_shows_samples_at_once(demo: Demo) -> None:
    """Who follows the printed link is signed in and is handed a sample with its caption, its clauses and its media."""
    [link] = re.findall(r"http://127\.0\.0\.1:\d+/welcome\?token=\S+", demo.printed)
    with httpx.Client(follow_redirects=True, timeout=120, base_url=link.split("/welcome")[0]) as me:
        page = me.get(link)
        [token] = re.findall(r'name="csrf" content="([^"]+)"', page.text)
        said = me.post("/api/claim", json={}, headers={"X-CSRF-Token": token}).json()
        [first, *_] = said["jobs"]
        media = [me.get(one) for job in said["jobs"] for one in job["media"]]
        for job in said["jobs"]:
            lease = {"job": job["job"], "lease": job["lease"]}
            me.post("/api/release", json=lease, headers={"X-CSRF-Token": token})

    assert page.url.path == "/triage"
    assert first["why"]
    assert first["caption"] or first["media"]
    assert {one.status_code for one in media} <= {200, 404}  # one of the samples is broken


@pytest.fixture(scope="module")
def decided(demo: Demo) -> dict[str, Decision]:
    """Return what the demo decided about its samples, from Kafka itself."""
    settings = Kafka(servers=demo.environment["WEIR_KAFKA_SERVERS"], transactions=False)
    records = kafka.read(settings, [DECISIONS])
    found = [Decision.model_validate_json(record.value or b"") for record in records]
    return {decision.content_id: decision for decision in found}


def test_the_table_shows_every_sample_with_what_was_decided(
    demo: Demo, decided: dict[str, Decision]
) -> None:
    """At least twelve samples, three different actions and two reviews stand in the table."""
    sent = {path.stem for path in (demo.data / "samples").iterdir()}

    assert set(decided) == sent
    assert all(name in demo.printed for name in sent)
    assert len(decided) >= 12
    assert len({decision.action for decision in decided.values()}) >= 3
    assert sum(decision.review is not None for decision in decided.values()) >= 2


def test_whoever_reads_a_decision_reads_why(decided: dict[str, Decision]) -> None:
    """Each decision that acts or goes to review because of a policy has a rationale."""
    without = [
        f"{name}: {finding.policy}"
        for name, decision in decided.items()
        for finding in decision.findings
        if finding.outcome != "none" and finding.rationale is None
    ]

    assert without == []


def test_what_a_policy_allows_is_further_from_it(decided: dict[str, Decision]) -> None:
    """A water pistol, which the policy on weapons allows, passes, and is further from it than a pistol."""

    def weapons(name: str) -> float:
        return next(f.probability for f in decided[name].findings if f.question == "weapons")

    assert decided["water-pistol"].action.value == "allow"
    assert weapons("water-pistol") < weapons("pistol")


def test_the_context_of_an_upload_counts(decided: dict[str, Decision]) -> None:
    """The same picture and caption are treated otherwise where an override speaks of their context."""

    def treated(name: str) -> tuple[Any, ...]:
        found = decided[name]
        return found.action, found.labels, found.review and found.review.queue

    pairs = {here: there for here, (there, _) in ELSEWHERE.items()}
    assert [here for here, there in pairs.items() if treated(here) != treated(there)] != []


def test_media_that_cannot_be_read_are_held_with_the_reason(decided: dict[str, Decision]) -> None:
    """Half a picture is held, a person will see it, and the decision names the reason."""
    broken = decided["broken"]

    assert broken.action.value == "hold"
    assert broken.fault is not None
    assert broken.fault.reason == "truncated"
    assert broken.review is not None


def test_the_archive_fills_beside_the_pipeline(demo: Demo, decided: dict[str, Decision]) -> None:
    """What was decided, and the uploads that it was about, can be asked for after a while."""
    sql = (
        "SELECT count(DISTINCT d.content_id) AS n FROM decisions d "
        "JOIN uploads u ON u.event_id = d.event_id"
    )
    deadline = time.monotonic() + PATIENCE_S
    while True:
        done = demo.run("weir", "archive", "query", sql, "--json")
        assert done.returncode == 0, done.stderr
        if (count := json.loads(done.stdout)["n"]) >= len(decided):
            break
        assert time.monotonic() < deadline, count
        time.sleep(2)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_runs(demo: Demo, line: str) -> None:
    """Each bash line of README ends with status 0 when it is typed beside the running demo."""
    words = shlex.split(line.replace(".weir/samples", str(demo.data / "samples" / "garden.png")))
    match words:
        case ["bash", "infra/demo.sh"]:
            assert demo.process.poll() is None  # it is what all of this runs on
        case ["bash", "infra/test.sh"]:
            assert os.access(HOUSE / "infra" / "test.sh", os.X_OK)  # it is what runs this
        case ["export", *_]:
            assert all(word.startswith("WEIR_") and "=" in word for word in words[1:])
        case ["weir", "run"]:
            second = subprocess.Popen(
                words,
                env=demo.environment | {"WEIR_INSTANCE": "second"},
                stderr=subprocess.PIPE,
                text=True,
            )
            assert second.stderr is not None
            said = next(x for x in map(json.loads, second.stderr) if x["event"] == "running")
            assert said["instance"] == "second"
            second.send_signal(signal.SIGTERM)
            second.stderr.read()
            assert second.wait(120) == 0
        case ["weir", "pool", "status"]:
            # A worker that is just loading its model does not answer yet.
            deadline = time.monotonic() + PATIENCE_S
            while (done := demo.run(*words)).returncode and time.monotonic() < deadline:
                time.sleep(2)
            assert done.returncode == 0, done.stdout + done.stderr
        case _:
            done = demo.run(*words)
            assert done.returncode == 0, done.stdout + done.stderr


def moved(folder: Path, target: Path, names: Sequence[str]) -> dict[str, str]:
    """Copy samples under other names and in another order, and return old name -> new name."""
    target.mkdir()
    renamed = {}
    for number, name in enumerate(sorted(names, reverse=True)):
        renamed[name] = f"upload-{number:02d}"
        for path in folder.glob(f"{name}.*"):
            shutil.copyfile(path, target / f"{renamed[name]}{path.suffix}")
    return renamed


def test_names_and_order_of_files_do_not_count(
    demo: Demo, decided: dict[str, Decision], tmp_path: Path
) -> None:
    """The same files renamed and shuffled give the same decisions."""
    renamed = moved(demo.data / "samples", tmp_path / "renamed", list(decided))

    again = demo.send(tmp_path / "renamed")

    differ = {
        old: (decided[old].action, again[new].action)
        for old, new in renamed.items()
        if (decided[old].action, decided[old].labels) != (again[new].action, again[new].labels)
    }
    assert differ == {}


def test_the_words_of_a_clause_decide(
    demo: Demo, decided: dict[str, Decision], tmp_path: Path
) -> None:
    """A guitar written in the place of gambling for money changes what becomes of these, and of nothing else."""
    policy = demo.policies / "gambling.yaml"
    before = policy.read_text()
    after_edit = before.replace("Shows gambling together with money.", "Shows a guitar.")
    assert after_edit != before
    policy.write_text(after_edit)
    edited = read_policies(demo.policies).digest
    shutil.copyfile(demo.data / "samples" / "garden.png", tmp_path / "garden.png")
    deadline = time.monotonic() + PATIENCE_S
    try:
        # The running pipeline looks at its policies every second, and believes them when they stay the same.
        while {decision.policy_set for decision in demo.send(tmp_path).values()} != {edited}:
            assert time.monotonic() < deadline
            time.sleep(1)
        after = demo.send(demo.data / "samples")
    finally:
        policy.write_text(before)

    changed = {name for name in decided if decided[name].action != after[name].action}
    assert "guitar" in changed
    assert changed <= {"guitar", "dice-and-money"}


def test_a_killed_demo_leaves_no_process_behind(demo: Demo) -> None:
    """When the first process dies with no chance to clean up, all others end within seconds."""
    family = descendants(demo.process.pid)
    assert len(family) > 5

    demo.process.kill()
    demo.process.wait()

    def left() -> dict[int, tuple[str, bytes]]:
        """Return what is still there, and what it is."""
        found = {}
        for pid in family:
            with suppress(OSError):
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                # Whose parent has died is collected by the system, sooner or later.
                if state != "Z":
                    found[pid] = (state, Path(f"/proc/{pid}/cmdline").read_bytes()[:200])
        return found

    deadline = time.monotonic() + 60
    while left() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left() == {}
