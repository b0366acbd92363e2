"""`weir model` on a checkpoint of its own: figures, pages and exit codes."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from infra.embedded.ports import free_port
from pipeline.commands.model import command

Noise = Callable[..., Image.Image]

POLICY = """
policy: weapons
title: Weapons
version: 1
status: live
question: Does this upload sell a weapon?
clauses:
  W1: {text: Offers a weapon.}
severity: high
action: remove
bands: {review: 0.3, act: 0.9}
review: {queue: weapons}
"""


@pytest.fixture
def configured(
    tmp_path: Path, saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a folder whose weir.toml names two tiny classifiers and one small policy."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "weapons.yaml").write_text(POLICY)
    for name in ("queues.yaml", "context.yaml"):
        shutil.copy(Path("policies") / name, tmp_path / "policies" / name)
    (tmp_path / "weir.toml").write_text(
        f"policies = {str(tmp_path / 'policies')!r}\n"
        f"[[classifiers]]\nname = 'eye'\nmodel = {str(saved('fast_vlm'))!r}\n"
        f"[[classifiers]]\nname = 'ear'\nkind = 'text'\nmodel = {str(saved('llama'))!r}\n"
    )
    monkeypatch.setenv("WEIR_CONFIG", str(tmp_path / "weir.toml"))
    return tmp_path


def run(*arguments: str) -> Any:
    """Run the command and return its result."""
    return CliRunner().invoke(command, list(arguments), catch_exceptions=False)


def test_info_names_what_is_covered(configured: Path) -> None:
    """Each configured classifier is listed with digest, tier and the questions it can judge."""
    rows = json.loads(run("info", "--json").stdout)
    assert [(row["name"], row["tier"]) for row in rows] == [("eye", "A"), ("ear", "A")]
    assert rows[0]["covers"] == ["weapons"]
    assert rows[1]["reads"] == ["caption"]


@pytest.fixture
def labelled(tmp_path: Path, noise: Noise) -> Path:
    """Return a folder of eight labelled uploads."""
    folder = tmp_path / "labels"
    folder.mkdir()
    rows = []
    for number in range(8):
        noise(number).save(folder / f"{number}.png")
        answers = {"weapons": number % 2 == 0}
        rows.append(
            {"id": str(number), "media": [f"{number}.png"], "caption": "x", "answers": answers}
        )
    (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_eval_writes_figures_and_page(configured: Path, labelled: Path) -> None:
    """Two classifiers are measured on the same labels; one is named as good enough."""
    out = configured / "out"
    result = run(
        "eval",
        str(labelled),
        "--classifier",
        "eye",
        "--classifier",
        "ear",
        "--out",
        str(out),
        "--json",
    )
    figures = json.loads(result.stdout)
    assert [(row["classifier"], row["violates"]) for row in figures] == [("eye", 4), ("ear", 4)]
    assert sum(row["cheapest_good_enough"] for row in figures) == 1
    assert all(0 < row["mass"] <= 1 for row in figures)
    assert figures[0]["ms_per_image"] == pytest.approx(figures[0]["ms_per_upload"])
    assert figures[1]["ms_per_image"] is None
    assert [band["band"] for band in figures[0]["bands"]] == ["review", "act"]
    assert json.loads((out / "eval.json").read_text()) == figures
    assert (out / "eval.html").read_text().count("<svg") == 6


def test_eval_shows_the_bands(
    configured: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table has precision and recall at each band, and fits a terminal of 110 columns."""
    asked = ("eval", str(labelled), "--classifier", "eye", "--classifier", "ear")
    monkeypatch.setenv("COLUMNS", "110")
    shown = run(*asked).stdout
    assert max(map(len, shown.splitlines())) <= 110
    assert "…" not in shown
    assert ("an image" in shown, "an upload" in shown) == (True, True)
    cells = [line.split() for line in shown.splitlines()]
    for row in json.loads(run(*asked, "--json").stdout):
        upper = next(at for at, line in enumerate(cells) if line[:1] == [row["classifier"]]) - 1
        for band in row["bands"]:
            precision = band["precision"]["value"]
            assert ("none" if math.isnan(precision) else f"{precision:.2f}") in cells[upper]
            assert f"{band['recall']['value']:.2f}" in cells[upper + 1]


def test_probe_of_random_weights_fails(configured: Path) -> None:
    """Random weights follow no policy: the probe says so, and exits 1."""
    result = run("probe", "--count", "6", "--out", str(configured / "out"), "--json")
    rows = json.loads(result.stdout)
    assert result.exit_code == 1
    assert {row["check"] for row in rows} == {
        "inversion",
        "off_topic",
        "carve_out",
        "evidence_true",
        "evidence_false",
        "injection",
    }
    assert "injection" in (configured / "out" / "probe.html").read_text()


def test_unknown_name_lists_the_known(configured: Path) -> None:
    """A name that is not configured is answered with those that are."""
    result = CliRunner().invoke(command, ["info", "nose"])
    assert result.exit_code == 1
    assert "eye, ear" in result.stderr


def test_probe_of_a_model_that_is_away_says_so(configured: Path) -> None:
    """Where an endpoint does not answer, the probe ends with what is wrong instead of a traceback."""
    port = free_port()
    (configured / "weir.toml").write_text(
        "[[classifiers]]\nname = 'far'\nkind = 'remote'\nmodel = 'x'\n"
        f"options = {{endpoint = 'http://127.0.0.1:{port}/v1', deadline_s = 1.0}}\n"
    )
    done = run("probe", "--classifier", "far", "--count", "1")
    assert done.exit_code == 1
    assert "Error: " in done.stderr
    assert "no answer within 1 s" in done.stderr
