"""What is wrong with a policy that can be read: fields that do not work yet, and rules that cannot do what they say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from policies.bands import out_of_order
from policies.context import ContextFile, condition_faults
from policies.errors import Fault, FieldPath
from policies.notation import nearest
from policies.queues import Queue
from policies.rules import Action, Rule, Status
from policies.schema import Override, Policy

#: Fields of the format that do not work yet -> whether a value of theirs works all the same.
#: Whoever builds the feature deletes its line.
NOT_YET: Final[Mapping[str, Callable[[Any], bool]]] = {}


def lint(
    policy: Policy, written: Any, *, queues: Mapping[str, Queue] | None, context: ContextFile
) -> Iterator[Fault]:
    """Yield what is wrong with one policy; `written` is its file as plain values.

    `queues` are those of queues.yaml, None where there is no such file.
    """
    yield from _not_yet(written)
    if queues is not None:
        yield from _unknown_queues(policy, queues)
        yield from _sealed_audits(policy, queues)
    for index, override in enumerate(policy.overrides):
        yield from condition_faults(override.when, context, ("overrides", index, "when"))
    yield from _idle_overrides(policy)
    yield from _contradictions(policy)
    yield from _idle_clauses(policy)


def _not_yet(value: Any, path: FieldPath = ()) -> Iterator[Fault]:
    # A clause and an override have the fields of their policy.
    inside = path[2:] if path[:1] in {("clauses",), ("overrides",)} else path
    works = NOT_YET.get(".".join(str(step) for step in inside))
    if works and not works(value):
        yield Fault(
            path=path,
            what=f"{inside[-1]} does not work yet with this value",
            remedy="not yet: delete it for now"
            if not isinstance(value, dict)
            else "not yet: write a number for now",
        )
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _not_yet(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _not_yet(child, (*path, index))


def _unknown_queues(policy: Policy, queues: Mapping[str, Queue]) -> Iterator[Fault]:
    parts = [((), policy.review), *_review_parts(policy)]
    for path, review in parts:
        if review is None or review.queue is None or review.queue in queues:
            continue
        held = Action.HOLD in {policy.action, policy.review.meanwhile, review.meanwhile}
        meant = nearest(review.queue, queues)
        yield Fault(
            path=(*path, "review", "queue"),
            what=f"there is no queue {review.queue}"
            + (", so what is held has no exit" if held else ""),
            remedy=f"did you mean {meant}?" if meant else "declare it in queues.yaml",
        )


def _sealed_audits(policy: Policy, queues: Mapping[str, Queue]) -> Iterator[Fault]:
    parts = [policy.review, *(review for _, review in _review_parts(policy) if review is not None)]
    into = next((r.queue for r in parts if r.queue in queues and queues[r.queue].sealed), None)
    if into is not None and (policy.audit.passed or policy.audit.acted):
        yield Fault(
            path=("audit",),
            what=f"its jobs go to {into}, and nothing of a sealed queue is looked at to measure",
            remedy="delete audit, or let its jobs go to a queue that is not sealed",
        )


def _review_parts(policy: Policy) -> Iterator[tuple[FieldPath, Any]]:
    for key, clause in policy.clauses.items():
        yield ("clauses", key), clause.review
    for index, override in enumerate(policy.overrides):
        yield ("overrides", index), override.review


def _idle_overrides(policy: Policy) -> Iterator[Fault]:
    for index, override in enumerate(policy.overrides):
        path = ("overrides", index)
        for earlier, other in enumerate(policy.overrides[:index]):
            if _hides(other, override):
                yield Fault(
                    path=path,
                    what=f"overrides[{earlier}] hides it: whatever matches this matches that first",
                    remedy=f"put it before overrides[{earlier}], or delete it",
                    level="warning",
                )
                break
        if index == len(policy.overrides) - 1 and override.model_fields_set <= {"when"}:
            yield Fault(
                path=path,
                what="it changes nothing",
                remedy="add bands, an action or another rule, or delete it",
                level="warning",
            )


def _hides(earlier: Override, later: Override) -> bool:
    def values(wanted: Any) -> Sequence[Any]:
        return wanted if isinstance(wanted, (list, tuple)) else [wanted]

    return all(
        key in later.when and all(value in values(wanted) for value in values(later.when[key]))
        for key, wanted in earlier.when.items()
    )


def _rules(policy: Policy) -> Iterator[tuple[FieldPath, str | None, Rule]]:
    """Yield every rule that can come about, with the part of the file that makes it."""
    for question in policy.questions:
        own = ("clauses", question.clause) if question.clause else ()
        yield own, question.clause, policy.rule_under(question.clause, None)
        for index, override in enumerate(policy.overrides):
            yield (
                ("overrides", index),
                question.clause,
                policy.rule_under(question.clause, override),
            )


def _contradictions(policy: Policy) -> Iterator[Fault]:
    seen = set[FieldPath]()
    harsh = False
    for path, clause, rule in _rules(policy):
        disorder = out_of_order(rule.review_at, rule.act_at)
        if disorder and path not in seen:
            seen.add(path)
            of = f" for clause {clause}" if clause and path[:1] == ("overrides",) else ""
            what, remedy = disorder
            yield Fault(
                path=(*path, "bands"),
                what=f"{what}{of}, taken together with what it leaves out",
                remedy=remedy,
            )
        if rule.meanwhile is Action.REMOVE and rule.action is not Action.REMOVE and not harsh:
            harsh = True
            yield Fault(
                path=(*path, "review", "meanwhile"),
                what=f"what is unsure is removed, what is sure is not ({rule.action})",
                remedy="write meanwhile: hold, or a stricter action",
                level="warning",
            )
    words = {clause.text.casefold(): key for key, clause in policy.clauses.items()}
    for key, allowed in policy.allowed.items():
        if same := words.get(allowed.text.casefold()):
            yield Fault(
                path=("allowed", key, "text"),
                what=f"it allows word for word what {same} forbids",
                remedy=f"reword it, or delete {same}",
            )


def _idle_clauses(policy: Policy) -> Iterator[Fault]:
    for key, allowed in policy.allowed.items():
        if set(policy.clauses) <= set(allowed.unless):
            yield Fault(
                path=("allowed", key, "unless"),
                what="every clause beats it, so it allows nothing",
                remedy="name fewer clauses, or delete it",
                level="warning",
            )
    first: dict[object, str] = {}
    for key, clause in policy.clauses.items():
        if (same := first.setdefault((clause.text.casefold(), clause.examples), key)) != key:
            yield Fault(
                path=("clauses", key, "text"),
                what=f"it says the same as {same}",
                remedy="delete one of the two",
                level="warning",
            )
        if clause.action is not None and not any(r.act_at for r in _rules_of(policy, key)):
            yield Fault(
                path=("clauses", key, "action"),
                what="it never acts by itself, so its action has no effect",
                remedy="give it bands that act, or delete the action",
                level="warning",
            )
    if policy.status is not Status.DRAFT:
        yield from _idle_questions(policy)


def _idle_questions(policy: Policy) -> Iterator[Fault]:
    idle = [
        question.clause
        for question in policy.questions
        if all(_does_nothing(rule) for rule in _rules_of(policy, question.clause))
    ]
    if len(idle) == len(policy.questions):
        yield Fault(
            path=("bands",),
            what=f"the policy is {policy.status}, but nothing in it acts or goes to review",
            remedy="lower review or act, or write status: draft",
        )
        return
    for clause in idle:
        yield Fault(
            path=("clauses", clause, "bands") if clause else ("bands",),
            what="it is asked, but its answer neither acts nor goes to review",
            remedy="lower review or act, or delete it",
            level="warning",
        )


def _rules_of(policy: Policy, clause: str | None) -> list[Rule]:
    return [policy.rule_under(clause, override) for override in (None, *policy.overrides)]


def _does_nothing(rule: Rule) -> bool:
    return rule.review_at == 1 and rule.act_at in {None, 1.0}
