"""`weir policy` as its users call it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main

SHIPPED = Path(__file__).parents[3] / "policies"
#: Policies that are live in the tests' folder.
LIVE = {
    "weapons",
    "drugs",
    "alcohol_tobacco",
    "gambling",
    "harassment",
    "graphic_violence",
    "scams",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the shipped policies."""
    for file in SHIPPED.glob("*.yaml"):
        shutil.copy(file, tmp_path)
    for name in LIVE:
        path = tmp_path / f"{name}.yaml"
        path.write_text(path.read_text().replace("status: draft", "status: live"))
    return tmp_path


def weir(*arguments: str | Path) -> Result:
    """Run `weir policy` with these arguments."""
    return CliRunner().invoke(main, ["policy", *map(str, arguments)])


def edit(folder: Path, old: str, new: str) -> Path:
    """Edit the weapons policy."""
    path = folder / "weapons.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_lint_right(folder: Path) -> None:
    """Lint of a right folder counts what it holds and exits 0."""
    result = weir("lint", folder)

    assert result.exit_code == 0
    assert f"10 policies, {len(LIVE)} of them live" in result.output
    assert "nothing wrong" in result.output


def test_lint_default_folder() -> None:
    """Without a folder lint checks the configured one, which is the shipped one by default."""
    assert "nothing wrong" in weir("lint").output


def test_lint_wrong(folder: Path) -> None:
    """Lint points at file, line, column and field, suggests the nearest name, and exits 1."""
    path = edit(folder, "severity: high", "severity: hihg")
    line = path.read_text().splitlines().index("severity: hihg") + 1

    result = weir("lint", folder)

    assert result.exit_code == 1
    assert f"{path}:{line}:11: error: severity: 'hihg' is none of its values" in result.output
    assert "did you mean high?" in result.output


def test_lint_json(folder: Path) -> None:
    """`lint --json` prints every problem with its parts."""
    edit(folder, "{audience: teens}", "{audence: teens}")

    result = weir("lint", folder, "--json")

    assert result.exit_code == 1
    (problem,) = json.loads(result.output)
    assert problem["field"] == "overrides[1].when.audence"
    assert problem["level"] == "error"
    assert problem["remedy"] == "did you mean audience?"


def test_lint_cases(folder: Path) -> None:
    """Lint of a folder checks its golden cases, too."""
    (folder / "cases").mkdir()
    (folder / "cases" / "weapons.yaml").write_text(
        "policy: weapons\ncases:\n  a: {text: Hello, expect: alowed}\n"
    )

    result = weir("lint", folder)

    assert result.exit_code == 1
    assert "weapons.yaml:3:28: error: cases.a.expect: 'alowed' is none" in result.output


def test_lint_classifier(folder: Path) -> None:
    """`lint --classifier` refuses a live policy that no configured classifier can judge."""
    stub = [{"model": "stub", "kind": "stub", "policies": ["weapons", "drugs"]}]
    for name in LIVE - {"weapons", "drugs", "harassment"}:
        path = folder / f"{name}.yaml"
        path.write_text(path.read_text().replace("status: live", "status: draft"))

    result = CliRunner().invoke(
        main,
        ["policy", "lint", "--classifier", "--json", str(folder)],
        env={"WEIR_CLASSIFIERS": json.dumps(stub)},
    )

    assert result.exit_code == 1
    (problem,) = json.loads(result.output)
    assert (problem["file"], problem["field"]) == (str(folder / "harassment.yaml"), "status")
    assert "no classifier judges harassment, harassment/H3" in problem["what"]


def test_lint_no_folder(tmp_path: Path) -> None:
    """Lint of a folder that is not there says so and exits 1."""
    result = weir("lint", tmp_path / "none")

    assert result.exit_code == 1
    assert "there is no such folder" in result.output


def test_wrong_use() -> None:
    """Wrong use exits 2."""
    assert weir("lint", "--jsn").exit_code == 2
    assert weir("show").exit_code == 2


def test_show(folder: Path) -> None:
    """`show` says in words what a policy asks and does."""
    result = weir("show", "weapons", "--folder", folder)

    assert result.exit_code == 0
    assert "forbids W1: Shows a weapon." in result.output
    assert "acts from 0.9 (remove, label weapons" in result.output
    assert "where audience is teens" in result.output


def test_show_prompt(folder: Path) -> None:
    """`show --prompt` prints word for word what the classifier is asked, question by question."""
    result = weir("show", "weapons", "--prompt", "--folder", folder)

    assert "# weapons sha256:" in result.output
    assert "# weapons/W3 sha256:" in result.output
    assert "A3: News reporting or a museum. But not if W2 is broken." in result.output


def test_show_unknown(folder: Path) -> None:
    """`show` of a name that is none suggests the nearest and exits 2."""
    result = weir("show", "wepons", "--folder", folder)

    assert result.exit_code == 2
    assert "did you mean weapons?" in result.output


def test_show_digest(folder: Path) -> None:
    """`show DIGEST` prints the whole set in force with that digest, with no Kafka at hand."""
    digest = weir("show", "all", "--folder", folder).output.splitlines()[0]

    whole = weir("show", digest, "--folder", folder, "--json")

    assert len(json.loads(whole.output)["policies"]) == 10


def test_new(folder: Path) -> None:
    """`new` writes a draft that lints clean, and never over a file."""
    result = weir("new", "fireworks", "--folder", folder)

    assert result.exit_code == 0
    assert weir("lint", folder / "fireworks.yaml").exit_code == 0
    assert weir("new", "fireworks", "--folder", folder).exit_code == 2
    assert weir("new", "Fire Works", "--folder", folder).exit_code == 2


def test_new_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    """What the first line names for the editor lies beside the draft, and so do queues, which lint asks for."""
    result = weir("new", "fireworks", "--folder", tmp_path)
    (tmp_path / "queues.yaml").write_text(
        (tmp_path / "queues.yaml").read_text() + "  own: {due: 1h}\n"
    )
    (tmp_path / "weir-policy.schema.json").write_text("{}")
    again = weir("new", "rockets", "--folder", tmp_path)

    first = (tmp_path / "fireworks.yaml").read_text().splitlines()[0]
    schema = tmp_path / first.rpartition("$schema=")[2]
    assert result.exit_code == again.exit_code == 0, result.output
    assert json.loads(schema.read_text())["properties"]["policy"]["description"]
    assert "weir-policy.schema.json" in again.output
    assert "own:" in (tmp_path / "queues.yaml").read_text()
    assert weir("lint", tmp_path).exit_code == 0


def test_diff(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`diff` of two folders, or two files, says in words what changed."""
    after = tmp_path_factory.mktemp("after")
    shutil.copytree(folder, after, dirs_exist_ok=True)
    path = edit(after, "Shows a weapon.", "Displays a weapon.")

    folders = weir("diff", folder, after)
    files = weir("diff", folder / "weapons.yaml", path, "--json")

    assert folders.exit_code == 0
    assert "clause W1 was “Shows a weapon.”, is “Displays a weapon.”" in folders.output
    assert [change["policy"] for change in json.loads(files.output)] == ["weapons"]
    assert weir("diff", folder, folder).output == "nothing changed in meaning\n"


def test_light() -> None:
    """`weir policy lint` loads neither torch nor ray nor transformers nor a client of a service."""
    program = (
        "import sys; from pipeline.cli import main\n"
        f"try: main(['policy', 'lint', {str(SHIPPED)!r}])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'ray', 'transformers', 'kafka', 'redis', 'boto3', 'rich', 'httpx'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.splitlines()[-1] == "[]"
