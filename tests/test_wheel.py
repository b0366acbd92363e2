"""What is installed is what was tested: the wheel works in an environment that has nothing else of ours."""

import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent
FLOORS = ("policies", "workers", "pipeline", "dashboards", "infra")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command and return what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of what is in the repository, and return its path."""
    root = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "material", "runs")
    for floor in FLOORS:
        shutil.copytree(HOUSE / floor, root / "source" / floor, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(HOUSE / name, root / "source" / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", root, root / "source", cwd=root)
    return next(root.glob("*.whl"))


@pytest.fixture(scope="module")
def weir(wheel: Path) -> Path:
    """Install the wheel in an empty environment that only sees our requirements, and return the command."""
    folder = wheel.parent / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=wheel.parent)
    python = folder / "bin" / "python"
    pip = (
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "--python",
        python,
    )
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=wheel.parent)
    # Links in a folder that is only on the path are not followed, so our own editable install stays out.
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "requirements.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return folder / "bin" / "weir"


def test_the_wheel_carries_what_the_code_reads(wheel: Path) -> None:
    """Policies, schemas, Lua scripts, dashboards, the bundled model and the licence are in the wheel."""
    names = zipfile.ZipFile(wheel).namelist()
    wanted = {
        path.relative_to(HOUSE).as_posix()
        for floor, patterns in {
            "policies": ("*.yaml", "*.json"),
            "pipeline": ("*.lua", "schemas/*.json"),
            "dashboards": ("grafana/*.json",),
            "workers/mini": ("*.safetensors", "*.json", "*.jinja", "calibrations/*.json"),
        }.items()
        for pattern in patterns
        for path in (HOUSE / floor).glob(pattern)
    }

    assert wanted - set(names) == set()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith("tests/") for name in names)


def test_the_installed_command_lints_the_policies_that_ship(weir: Path, tmp_path: Path) -> None:
    """`weir policy lint` from the wheel reads the wheel's own policies and finds nothing wrong."""
    where = run(
        weir.with_name("python"), "-c", "import policies; print(policies.__file__)", cwd=tmp_path
    )

    assert Path(where.strip()).is_relative_to(weir.parent.parent)
    assert "nothing wrong" in run(weir, "policy", "lint", cwd=tmp_path)


def test_the_installed_command_knows_its_version(weir: Path, tmp_path: Path) -> None:
    """`weir --version` says what was installed."""
    assert "0.1.0" in run(weir, "--version", cwd=tmp_path)
