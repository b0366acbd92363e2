"""The policies of the embedded stack: a copy of those that ship, to be tried and edited, in which drafts are live.

What ships is live only where the bundled model judges it well enough to act (its model card says how well). Whoever
tries Weir out wants to see the others at work as well, and nothing of it reaches anybody.
"""

import json
import re
import shutil
from pathlib import Path


def copy(shipped: Path, calibrations: Path, folder: Path) -> list[str]:
    """Copy policies once, make those drafts live that calibrations ship for, and return which these are.

    A folder that is there already is left as it is: somebody may have edited it.
    """
    if folder.exists():
        return []
    draft = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    known = {_policy(file) for file in calibrations.glob("*.json")}
    raised = []
    for file in sorted(shipped.glob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        if file.stem in known:
            live = re.sub(r"^status: draft\b", "status: live", text, flags=re.MULTILINE)
            raised += [file.stem] if live != text else []
            text = live
        (draft / file.name).write_text(text, encoding="utf-8")
    for schema in shipped.glob("*.schema.json"):
        shutil.copy(schema, draft)
    shutil.copytree(shipped / "cases", draft / "cases")
    draft.rename(folder)
    return raised


def _policy(calibration: Path) -> str:
    question: str = json.loads(calibration.read_text(encoding="utf-8"))["question"]
    return question.partition("/")[0]
