"""What a person who hears an appeal sees beside it: the decision, and the rule as it read then and reads now."""

import tempfile
import threading
from pathlib import Path
from typing import Any, Final

from pipeline.config import Kafka
from pipeline.errors import PipelineError
from pipeline.history import published, unpacked
from pipeline.messages import Decision
from policies.question import Question
from policies.schema import PolicySet

_DID: Final = {
    "allow": "left it visible",
    "restrict": "restricted it",
    "hold": "held it back",
    "remove": "removed it",
}
#: Policy sets of the past that are kept at hand.
_MOST: Final = 8


class Past:
    """Policy sets that were live once, by digest."""

    def __init__(self, settings: Kafka) -> None:
        self._settings = settings
        self._known: dict[str, PolicySet | None] = {}
        self._lock = threading.Lock()

    def __call__(self, digest: str) -> PolicySet | None:
        """Return the set of this digest, or None where it is not known (any more)."""
        with self._lock:
            if digest not in self._known:
                while len(self._known) >= _MOST:
                    self._known.pop(next(iter(self._known)))
                self._known[digest] = self._read(digest)
            return self._known[digest]

    def _read(self, digest: str) -> PolicySet | None:
        try:
            with tempfile.TemporaryDirectory() as folder:
                return unpacked(published(self._settings, digest), Path(folder))
        except PipelineError:
            # The appeal is heard all the same; the page says that the older words are not known.
            return None


def appealed(
    decision: Decision, asked: list[Question], then: PolicySet | None, now: PolicySet
) -> dict[str, Any]:
    """Return the decision that is appealed against in words, and each rule at issue as it read then and reads now."""
    by = "A person" if decision.decided_by == "person" else "The pipeline"
    done = _DID[decision.action.value]
    return {
        "decision": f"{by} {done} on {decision.decided_at.strftime('%d %B %Y, %H:%M UTC')}.",
        "known": then is not None,
        "rules": [_rule(question, then, now) for question in asked],
    }


def _rule(question: Question, then: PolicySet | None, now: PolicySet) -> dict[str, Any]:
    old = _words(question.id, then) if then is not None else []
    new = _words(question.id, now)
    return {
        "title": now.by_name[question.policy].title,
        "same": old == new,
        "then": [line for line in old if line not in new],
        "now": [line for line in new if line not in old],
    }


def _words(question_id: str, policies: PolicySet) -> list[str]:
    question = next((q for q in policies.questions if q.id == question_id), None)
    if question is None:
        return []
    lines = [question.question, *(f"{name}: {text}" for name, text in question.definitions)]
    lines += [f"{clause.id} {clause.text}" for clause in question.forbidden]
    return lines + [f"{exempt.id} {exempt.text}" for exempt in question.allowed]
