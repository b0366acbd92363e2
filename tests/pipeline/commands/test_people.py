"""`weir people`: accounts for the console."""

import json
from pathlib import Path

from click.testing import CliRunner

from pipeline.cli import main
from pipeline.people import Accounts

PASSWORD = "a long enough password"


def test_somebody_who_was_added_can_sign_in(tmp_path: Path) -> None:
    """What `weir people add` writes lets exactly this password in, and `list` shows it without the hash."""
    path = tmp_path / "people.yaml"
    options = ["--file", str(path), "--roles", "reviewer,lead", "--skills", "graphic"]

    added = CliRunner().invoke(
        main, ["people", "add", "ann", "--password-stdin", *options], input=PASSWORD + "\n"
    )
    listed = CliRunner().invoke(main, ["people", "list", "--file", str(path), "--json"])

    assert added.exit_code == 0, added.output
    assert Accounts(path).knows("ann", PASSWORD)
    assert not Accounts(path).knows("ann", PASSWORD[:-1])
    [account] = json.loads(listed.stdout).values()
    assert account["roles"] == ["reviewer", "lead"]
    assert account["skills"] == ["graphic"]
    assert "argon2" not in listed.stdout


def test_what_makes_no_account_is_refused_with_a_reason(tmp_path: Path) -> None:
    """A short password, an unknown role, an odd id and a broken file leave nothing behind."""
    path = tmp_path / "people.yaml"

    def add(identity: str, password: str, *more: str) -> tuple[int, str]:
        words = ["people", "add", identity, "--password-stdin", "--file", str(path), *more]
        result = CliRunner().invoke(main, words, input=password + "\n")
        return result.exit_code, result.output

    assert add("ann", "short") == (1, "Error: a password has 12 characters or more: choose a longer one\n")  # fmt: skip
    assert add("ann", PASSWORD, "--roles", "king")[0] == 2
    assert "cannot be an id" in add("a b", PASSWORD)[1]
    assert not path.exists()
    path.write_text("people: [ann]\n")
    assert "is no file of people" in add("ann", PASSWORD)[1]
