"""The house keeps its own rules: layout, names, and papers that cannot lie."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from pipeline.cli import main
from pipeline.config import ClassifierSettings, Settings

HOUSE = Path(__file__).parent.parent
FLOORS = ("policies", "workers", "pipeline", "dashboards", "infra")
PROJECT = tomllib.loads((HOUSE / "pyproject.toml").read_text())
README = (HOUSE / "README.md").read_text()
SOURCES = sorted(path for floor in FLOORS for path in (HOUSE / floor).rglob("*.py"))
TESTS = sorted((HOUSE / "tests").rglob("*.py"))
#: Names under which anything can be hidden.
NAMES_THAT_SAY_NOTHING = re.compile(
    "(utils?|helpers?|common|base|core|manager|services?|handlers?)[.]py"
)


def test_every_package_is_shipped() -> None:
    """The list of packages in pyproject, which is by hand, names every folder with Python in it."""
    folders = {path.parent.relative_to(HOUSE).as_posix() for path in SOURCES}

    assert {name.replace(".", "/") for name in PROJECT["tool"]["setuptools"]["packages"]} == folders


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=lambda p: p.relative_to(HOUSE).as_posix())
def test_a_file_is_named_after_a_thing_of_the_trade(path: Path) -> None:
    """No file is called util, helper, common, base, core, manager, service or handler."""
    assert not NAMES_THAT_SAY_NOTHING.fullmatch(path.name)


def test_tests_are_no_package() -> None:
    """An `__init__.py` in tests would shadow the real packages."""
    assert list((HOUSE / "tests").rglob("__init__.py")) == []


def test_every_test_states_its_fact() -> None:
    """Each test has a docstring."""
    without = [
        f"{path.name}::{node.name}"
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and ast.get_docstring(node) is None
    ]

    assert without == []


def test_tests_never_replace_our_own_code() -> None:
    """What a test runs is what ships: no part of the house is patched."""
    ours = re.compile(
        r"(mock\.patch|monkeypatch\.setattr)[^\n]*\b(policies|workers|pipeline|dashboards|infra)\."
    )
    assert [path.name for path in TESTS if ours.search(path.read_text())] == []


def test_errors_say_when_they_are_raised() -> None:
    """The docstring of an error is one line that begins with `Raised when`."""
    wrong = [
        f"{path.name}: {node.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any(
            isinstance(base, ast.Name) and base.id.endswith(("Error", "Exception"))
            for base in node.bases
        )
        and not (ast.get_docstring(node) or "").startswith("Raised when")
    ]

    assert wrong == []


def test_nothing_is_caught_that_nobody_knows() -> None:
    """`except Exception` stands at the edge of Ray only, where one actor works for many uploads."""
    broad = {
        path.relative_to(HOUSE).as_posix()
        for path in SOURCES
        if re.search(r"except Exception\b", path.read_text())
    }

    assert broad <= {"workers/actors.py", "workers/desk.py", "workers/pool.py"}


def test_no_path_of_a_developers_machine_is_in_the_house() -> None:
    """Absolute paths of one machine, and what lies beside the checkout, stay out of source and papers."""
    papers = [*HOUSE.glob("*.md"), *(p for f in FLOORS for p in (HOUSE / f).rglob("*.md"))]
    foreign = re.compile(r"(/work/|/home/\w|/root/|\.\./shared)")

    assert [p.name for p in [*SOURCES, *papers] if foreign.search(p.read_text())] == []


def commands(group: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command below a group."""
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield from commands(command, *path, name)
    else:
        yield path


def test_every_command_is_in_the_readme() -> None:
    """README names each command; below a group the group's name may go before."""
    rows = [line for line in README.splitlines() if line.startswith("| `weir ")]
    missing = [
        "weir " + " ".join(words)
        for words in commands(main)
        if not any(
            line.startswith(f"| `weir {words[0]}") and all(f"{word}" in line for word in words)
            for line in rows
        )
    ]

    assert missing == []


def settings(model: type[BaseModel], *path: str) -> Iterator[tuple[str, ...]]:
    """Yield the path of every setting."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settings(kind, *path, name)
        else:
            yield (*path, name)


def test_every_setting_is_in_the_readme() -> None:
    """Each setting has its place in README's table, by its variable's name or its last part."""
    rows = [line for line in README.splitlines() if line.startswith("| `WEIR_")]
    missing = []
    for path in settings(Settings):
        whole = "WEIR_" + "_".join(path).upper()
        section = f"`WEIR_{path[0].upper()}_"
        last = f"`_{'_'.join(path[1:]).upper()}`"
        if not any(f"`{whole}`" in row or (section in row and last in row) for row in rows):
            missing.append(whole)

    assert missing == []


def test_every_variable_in_the_readme_is_a_setting() -> None:
    """README promises no setting that does not exist."""
    known = {"WEIR_" + "_".join(path).upper() for path in settings(Settings)} | {"WEIR_CONFIG"}
    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `WEIR_")]
    named = set()
    for row in rows:
        first, *more = re.findall(r"`(\w+)`", row)
        section = "_".join(first.split("_")[:2])
        named |= {first, *(section + part for part in more)}

    assert named <= known


def test_deployments_name_only_settings_that_exist() -> None:
    """Compose and Kubernetes files set no variable that nobody reads."""
    known = {"WEIR_" + "_".join(path).upper() for path in settings(Settings)} | {"WEIR_CONFIG"}
    named = {
        name
        for path in (HOUSE / "infra").rglob("*.yaml")
        for name in re.findall(r"\bWEIR_[A-Z_]+\b", path.read_text())
    }

    assert named <= known


def test_every_setting_of_a_classifier_is_in_the_readme() -> None:
    """README's example of a classifier names each of its settings."""
    example = README.split("[[classifiers]]\nname", maxsplit=1)[1].split("```", maxsplit=1)[0]
    example = "name" + example

    named = {line.removeprefix("# ").split(" ")[0] for line in example.splitlines()}

    assert set(ClassifierSettings.model_fields) <= named
