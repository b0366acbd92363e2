"""The policies that `weir up` works with: a copy to try and edit, in which measured drafts are live."""

import json
from pathlib import Path

from infra.embedded.trial_policies import copy
from pipeline.config import SHIPPED_POLICIES, Settings
from policies.cases import read_cases
from policies.folder import read_policies
from policies.schema import Status


def test_drafts_that_a_calibration_ships_for_are_live(tmp_path: Path) -> None:
    """Everything else of the copy says what ships: the same questions, queues and golden cases."""
    calibrations = Settings().calibrations
    folder = tmp_path / "policies"
    raised = copy(SHIPPED_POLICIES, calibrations, folder)
    shipped, tried = read_policies(SHIPPED_POLICIES), read_policies(folder)

    known = {
        json.loads(f.read_text())["question"].split("/")[0] for f in calibrations.glob("*.json")
    }
    assert {p.policy for p in tried if p.status is Status.LIVE} == known
    assert set(raised) == {n for n in known if shipped.by_name[n].status is Status.DRAFT}
    assert [p.questions for p in tried] == [p.questions for p in shipped]
    assert read_cases(tried, folder) == read_cases(shipped, SHIPPED_POLICIES)


def test_an_edited_copy_stays(tmp_path: Path) -> None:
    """Whoever edited the copy finds the edit again when the stack starts the next time."""
    folder = tmp_path / "policies"
    copy(SHIPPED_POLICIES, Settings().calibrations, folder)
    file = folder / "weapons.yaml"
    file.write_text(file.read_text().replace("title: Weapons", "title: Arms"))

    assert copy(SHIPPED_POLICIES, Settings().calibrations, folder) == []
    assert read_policies(folder).by_name["weapons"].title == "Arms"
