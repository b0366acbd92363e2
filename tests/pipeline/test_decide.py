"""The decision function: what authors, reviewers and platforms rely on."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decide import Answer, Origin, decide, hold, questions_for, with_doubts
from pipeline.messages import (
    Calibration,
    Content,
    Decision,
    Fault,
    Rationale,
    Source,
    UploadEvent,
)
from policies.schema import Action, Policy, PolicySet

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
ORIGIN = Origin(
    source=Source(topic="media.uploads", partition=0, offset=7), decision_id="d", content=Content()
)


def event(**fields: Any) -> UploadEvent:
    """Return an upload with a caption and one picture."""
    given_fields = {"text": "a caption", "media": [{"uri": "a.jpg"}], **fields}
    return UploadEvent.model_validate({"event_id": "e", "content_id": "c", **given_fields})


def policy(name: str = "weapons", **fields: Any) -> Policy:
    """Return a live policy with two clauses, one of them asked by itself."""
    return Policy.model_validate(
        {
            "policy": name,
            "title": name.title(),
            "version": 1,
            "status": "live",
            "question": "Does it break the rule?",
            "clauses": {"W1": {"text": "Sells one."}, "W2": {"text": "Praises one."}},
            "severity": "high",
            "action": "remove",
            "bands": {"review": 0.3, "act": 0.9},
            "review": {"queue": name, "meanwhile": "hold", "due": "4h"},
            **fields,
        }
    )


def answer(
    question: str = "weapons", probability: float = 0.5, calibration: Calibration = "fresh"
) -> Answer:
    """Return an answer with this probability."""
    return Answer(
        question=question,
        score=math.log(max(probability, 1e-9) / max(1 - probability, 1e-9)),
        probability=probability,
        calibration=calibration,
        answered_by="sha256:x",
    )


def outcome(*answers: Answer, policies: tuple[Policy, ...] = (), **fields: Any) -> Decision:
    """Return the decision on one upload."""
    return decide(
        event(**fields), answers, PolicySet(policies or (policy(),)), origin=ORIGIN, now=NOW
    )


def test_a_sure_violation_acts_without_review() -> None:
    """From `act` on, the policy's own action is in force, with its label, and nobody has to look."""
    decision = outcome(answer(probability=0.95), policies=(policy(label="arms"),))

    assert (decision.action, decision.labels, decision.review) == (Action.REMOVE, ("arms",), None)


def test_between_the_bands_a_person_looks() -> None:
    """Between `review` and `act` the meanwhile action holds and a ticket says where and until when."""
    decision = outcome(answer(probability=0.5), context={"reach": 90})

    assert decision.action is Action.HOLD
    assert decision.review is not None
    assert decision.review.queue == "weapons"
    assert decision.review.priority == pytest.approx(0.5 * 10 * 2)
    assert decision.review.due_at is not None
    assert (decision.review.due_at - NOW).total_seconds() == 4 * 3600
    assert decision.review.questions == ("weapons",)


def test_below_the_bands_it_passes() -> None:
    """Below `review` the upload passes, and the finding still tells its score."""
    decision = outcome(answer(probability=0.1))

    assert (decision.action, decision.review) == (Action.ALLOW, None)
    assert decision.findings[0].probability == 0.1


def test_sure_removal_outranks_silence() -> None:
    """One sure violation removes, though another policy has no answer."""
    decision = outcome(answer(probability=0.95), policies=(policy(), policy("hate")))

    assert (decision.action, decision.unjudged) == (Action.REMOVE, ("hate",))


def test_silence_is_not_consent() -> None:
    """A live question without an answer takes the action of `when_unavailable`."""
    decision = outcome()

    assert (decision.action, decision.unjudged) == (Action.HOLD, ("weapons",))


@pytest.mark.parametrize("probability", [math.nan, math.inf, -1.0])
def test_a_score_that_is_no_number_is_silence(probability: float) -> None:
    """An answer that is not a probability counts as no answer, never as a pass."""
    broken = Answer(
        question="weapons",
        score=math.nan,
        probability=probability,
        calibration="fresh",
        answered_by="x",
    )

    assert outcome(broken).action is Action.HOLD


@pytest.mark.parametrize("calibration", ["stale", "none"])
def test_uncalibrated_scores_never_act_by_themselves(calibration: Calibration) -> None:
    """Stale or missing calibration turns an action into a review, unless the author allowed it in writing."""
    sure = answer(probability=0.99, calibration=calibration)

    reviewed = outcome(sure)
    permitted = outcome(
        sure, policies=(policy(bands={"review": 0.3, "act": 0.9, "uncalibrated": "act"}),)
    )

    assert (reviewed.action, reviewed.review is not None) == (Action.HOLD, True)
    assert permitted.action is Action.REMOVE


def test_other_languages_never_act_by_themselves() -> None:
    """In a language that the policy is not tested for, a person decides."""
    sure = answer(probability=0.99)
    origin = Origin(source=ORIGIN.source, decision_id="d", content=Content(language="fi"))

    decision = decide(event(), [sure], PolicySet((policy(),)), origin=origin, now=NOW)

    assert (decision.action, decision.review is not None) == (Action.HOLD, True)


def test_a_clause_that_never_acts_does_not_act_through_its_policy() -> None:
    """The policy's own question leaves out a clause that is asked by itself."""
    strict = policy(
        clauses={
            "W1": {"text": "Sells one."},
            "W3": {"text": "Threatens.", "bands": {"act": "never"}},
        }
    )

    decision = outcome(answer(probability=0.1), answer("weapons/W3", 0.99), policies=(strict,))

    assert [c.id for c in strict.questions[0].forbidden] == ["W1"]
    assert (decision.action, decision.review is not None) == (Action.HOLD, True)
    assert decision.findings[1].clause == "W3"


def test_an_override_applies_where_its_context_matches() -> None:
    """The first override that matches counts; missing context never matches."""
    rule = policy(overrides=[{"when": {"audience": "teens"}, "bands": {"review": 0.05}}])

    teens = outcome(answer(probability=0.1), policies=(rule,), context={"audience": "teens"})
    others = outcome(answer(probability=0.1), policies=(rule,))

    assert (teens.action, others.action) == (Action.HOLD, Action.ALLOW)


def test_an_override_never_lifts_a_clauses_never() -> None:
    """A clause that a person decides stays with people, whatever an override says of `act`."""
    rule = policy(
        clauses={"W3": {"text": "Threatens.", "bands": {"act": "never"}}},
        overrides=[{"when": {"audience": "teens"}, "bands": {"act": 0.5}}],
    )

    decision = outcome(answer("weapons/W3", 0.99), policies=(rule,), context={"audience": "teens"})

    assert decision.action is Action.HOLD


def test_a_regional_clause_binds_in_its_region_only() -> None:
    """What holds in one region alone stands in `regional`, and is not asked where it will not be shown."""
    rule = policy(clauses={"W1": {"text": "Sells."}, "W4": {"text": "Markets.", "regions": ["GB"]}})
    answers = (answer(probability=0.1), answer("weapons/W4", 0.99))

    everywhere = outcome(*answers, policies=(rule,))
    german = [
        q.id for _, q in questions_for(event(context={"regions": ["DE"]}), PolicySet((rule,)))
    ]

    assert (everywhere.action, everywhere.regional) == (Action.ALLOW, {"GB": Action.REMOVE})
    assert german == ["weapons"]


def test_a_region_alone_has_its_exit() -> None:
    """What is held in one region alone has a job, in the clause's own queue, and its finding says so."""
    rule = policy(
        clauses={
            "W1": {"text": "Sells."},
            "W4": {"text": "Markets.", "regions": ["GB"], "review": {"queue": "knives"}},
        }
    )

    decision = outcome(answer(probability=0.1), answer("weapons/W4", 0.5), policies=(rule,))

    assert (decision.action, decision.regional) == (Action.ALLOW, {"GB": Action.HOLD})
    assert decision.review is not None
    assert (decision.review.queue, decision.review.questions) == ("knives", ("weapons/W4",))
    assert {f.question: f.outcome for f in decision.findings} == {
        "weapons": "none",
        "weapons/W4": "review",
    }


def test_a_region_adds_no_second_job() -> None:
    """A question that is in review everywhere stands once in its job, whatever regions ask for."""
    rule = policy(overrides=[{"when": {"region": ["GB", "DE"]}, "severity": "low"}])

    decision = outcome(answer(probability=0.5), policies=(rule,))

    assert decision.review is not None
    assert decision.review.questions == ("weapons",)
    assert decision.findings[0].severity == "high"


def test_beyond_its_rollout_a_policy_is_a_shadow() -> None:
    """Outside its share of content a policy's finding is recorded, and neither acts nor goes to review."""
    sure = answer(probability=0.99)

    none = outcome(sure, policies=(policy(rollout="0%"),))
    whole = outcome(sure, policies=(policy(rollout="100%"),))

    assert (none.action, none.review, none.labels) == (Action.ALLOW, None, ())
    assert [(f.probability, f.outcome) for f in none.findings] == [(0.99, "none")]
    assert whole.action is Action.REMOVE


def test_drafts_and_policies_without_a_classifier_are_named() -> None:
    """What was not asked stands in `not_asked`; it is neither silence nor a pass."""
    policies = PolicySet((policy(), policy("hate", status="draft"), policy("scams")))

    decision = decide(
        event(), [answer(probability=0.1)], policies, origin=ORIGIN, now=NOW, uncovered={"scams"}
    )

    assert (decision.action, decision.not_asked) == (Action.ALLOW, ("hate", "scams"))


def test_a_shadow_records_and_never_acts() -> None:
    """A shadow policy's finding stands in the decision, and changes nothing else."""
    decision = outcome(
        answer(probability=0.1),
        answer("hate", 0.99),
        policies=(policy(), policy("hate", status="shadow")),
    )

    assert (decision.action, decision.review) == (Action.ALLOW, None)
    assert decision.findings[1].status == "shadow"


def test_a_question_reads_what_is_there() -> None:
    """A policy that reads only images is not asked of a text."""
    pictures = policy(reads=["image"])

    decision = outcome(policies=(pictures,), media=[])

    assert (decision.action, decision.unjudged) == (Action.ALLOW, ())


def test_a_hold_has_an_exit() -> None:
    """A policy whose action is to hold opens a job when it acts; media that can't be read do as well."""
    acted = outcome(answer(probability=0.99), policies=(policy(action="hold"),))
    unread = hold(
        event(), Fault(reason="truncated"), PolicySet((policy(),)), origin=ORIGIN, now=NOW
    )

    assert acted.review is not None
    assert unread.review is not None
    assert (unread.action, unread.review.queue) == (Action.HOLD, "intake")


probabilities = st.floats(0, 1)


@given(p=probabilities, q=probabilities, other=probabilities)
def test_more_probable_is_never_milder_between_pass_and_act(
    p: float, q: float, other: float
) -> None:
    """With a meanwhile no stricter than the action, a higher probability never gives a milder action."""
    low, high = sorted((p, q))
    rule = policy(review={"queue": "weapons", "meanwhile": "restrict"})
    both = (rule, policy("hate"))

    mild = outcome(answer(probability=low), answer("hate", other), policies=both)
    strict = outcome(answer(probability=high), answer("hate", other), policies=both)

    assert strict.action.rank >= mild.action.rank


@given(
    context=st.dictionaries(st.sampled_from(["surface", "audience", "tier"]), st.text(max_size=3))
)
def test_the_same_input_gives_the_same_decision(context: Mapping[str, str]) -> None:
    """Decisions are a function of their arguments."""
    first = outcome(answer(probability=0.4), context=context)

    assert outcome(answer(probability=0.4), context=context) == first


@given(p=probabilities)
def test_a_decision_survives_its_json(p: float) -> None:
    """A decision read back from its bytes is the same decision."""
    decision = outcome(answer(probability=p))

    assert Decision.model_validate_json(decision.model_dump_json()) == decision


def test_approval_waits_for_people() -> None:
    """A sure violation of a policy that wants approval does not act by itself: it waits, and people look."""
    severe = policy(review={"queue": "weapons", "meanwhile": "hold", "approval": True})

    decision = outcome(answer("weapons", 0.99), policies=(severe,))

    assert decision.action is Action.HOLD
    assert decision.review is not None
    assert decision.labels == ()


@pytest.mark.parametrize(
    ("whole", "action", "reason"),
    [(None, Action.REMOVE, None), (0.1, Action.HOLD, "disagreement"), (0.4, Action.REMOVE, None)],
)
def test_what_only_a_tile_shows_a_person_decides(
    whole: float | None, action: Action, reason: str | None
) -> None:
    """Where the picture read whole would pass, a sure tile does not act by itself: it is a job."""
    decision = outcome(answer(probability=0.95)._replace(whole=whole))

    assert (decision.action, decision.review and decision.review.reason) == (action, reason)
    assert decision.findings[0].whole == whole


def test_text_read_from_media_is_asked_about() -> None:
    """A question about captions counts for a picture with text in it, and only for that."""
    rule = policy("insults", reads=["caption"])
    picture = event(text="", media=({"uri": "a.png"},))

    def decided(*, text_found: bool) -> Decision:
        return decide(
            picture,
            [answer("insults", 0.95)] if text_found else [],
            PolicySet((rule,)),
            origin=ORIGIN,
            now=NOW,
            text_found=text_found,
        )

    assert decided(text_found=True).action is Action.REMOVE
    assert (decided(text_found=False).action, decided(text_found=False).unjudged) == ("allow", ())


@pytest.mark.parametrize(
    ("agreement", "reason"), [(0.4, "disagreement"), (0.5, None), (None, None)]
)
def test_disagreeing_reasons_are_a_job(agreement: float | None, reason: str | None) -> None:
    """What acts for a reason on which drawn answers disagree stays in force, and a person looks."""
    acted = outcome(answer(probability=0.95))
    said = Rationale(clause="W1", text="A pistol.", supported=True, agreement=agreement)
    spoken = acted.model_copy(
        update={"findings": (acted.findings[0].model_copy(update={"rationale": said}),)}
    )

    decision = with_doubts(spoken, event(), PolicySet((policy(),)), now=NOW)

    assert decision.action is Action.REMOVE
    assert (decision.review and decision.review.reason) == reason
    if decision.review:
        assert (decision.review.queue, decision.review.questions) == ("weapons", ("weapons",))
