"""Outcomes of golden cases as JUnit XML, which every CI reads."""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from pipeline.golden import Outcome


def junit(outcomes: Sequence[Outcome]) -> str:
    """Return one test suite a policy, one test a case."""
    root = ET.Element("testsuites", name="weir policy test")
    for policy in dict.fromkeys(outcome.policy for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.policy == policy]
        suite = ET.SubElement(
            root,
            "testsuite",
            name=policy,
            tests=str(len(mine)),
            failures=str(sum(outcome.status == "failed" for outcome in mine)),
            errors=str(sum(outcome.status in {"stale", "silent"} for outcome in mine)),
            time=f"{sum(outcome.duration_s for outcome in mine):.3f}",
        )
        for outcome in mine:
            case = ET.SubElement(
                suite,
                "testcase",
                classname=policy,
                name=outcome.case,
                time=f"{outcome.duration_s:.3f}",
            )
            if outcome.status != "passed":
                tag = "failure" if outcome.status == "failed" else "error"
                told = ET.SubElement(case, tag, message=outcome.why[0], type=outcome.status)
                told.text = "\n".join(outcome.why)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
