"""Which policies no configured classifier can judge: as live ones they would hold everything for ever."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from policies.errors import Fault, Problem
from policies.folder import placed
from policies.schema import PolicySet, Status
from policies.yaml_file import read_yaml
from workers.classifier import Classifier


def uncovered(
    policies: PolicySet, classifiers: Sequence[Classifier], folder: Path
) -> Iterator[Problem]:
    """Yield a problem for each policy that is asked and has a question that no classifier covers."""
    names = ", ".join(classifier.name for classifier in classifiers) or "none"
    for file, text in policies.files.items():
        document = read_yaml(text.encode(), str(folder / file))
        policy = policies.by_name.get(document.value.get("policy"))
        if policy is None or policy.status is Status.DRAFT:
            continue
        lost = [
            question.id
            for question in policy.questions
            if not any(classifier.covers(question) for classifier in classifiers)
        ]
        if lost:
            yield from placed(
                [
                    Fault(
                        path=("status",),
                        what=f"it is {policy.status}, and no classifier judges {', '.join(lost)} "
                        f"(configured: {names})",
                        remedy="configure one that does, or write status: draft",
                    )
                ],
                document,
            )
