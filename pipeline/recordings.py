"""Recorded scores of golden cases, so that `weir policy test --offline` needs no model."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.messages import Time
from policies.cases import FOLDER, Case
from policies.errors import PolicyError, Problem
from policies.question import Question
from workers.classifier import Classification

#: What stands behind a policy's name in the name of its recording.
SUFFIX: Final = ".scores.json"


class Score(BaseModel):
    """One recorded answer: which words were asked, and the score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    score: float
    classifier: str


class Recorded(BaseModel):
    """The recorded answers of one case; `content` is the digest of its text and media."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    content: str
    scores: dict[str, Score]


class Recording(BaseModel):
    """The recorded answers of all cases of one policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    recorded_at: Time
    cases: Annotated[dict[str, Recorded], Field(default_factory=dict)]


def content_digest(case: Case, folder: Path) -> str:
    """Return `sha256:…` of what a case puts to the classifier."""
    whole = hashlib.sha256(json.dumps([case.text, case.drawings]).encode())
    for name in case.media:
        whole.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return "sha256:" + whole.hexdigest()


def path_of(folder: Path, policy: str) -> Path:
    """Return where the recording of a policy's cases lies."""
    return folder / FOLDER / f"{policy}{SUFFIX}"


def load(folder: Path, policy: str) -> Recording | None:
    """Return the recording of a policy's cases, or None where there is none.

    Raises:
        PolicyError: the file is no recording.
    """
    path = path_of(folder, policy)
    if not path.exists():
        return None
    try:
        return Recording.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        problem = Problem(
            file=str(path),
            line=1,
            column=1,
            field="",
            what="this is no recording",
            remedy=f"delete it, or run weir policy test --record {policy}",
        )
        raise PolicyError([problem]) from error


def save(folder: Path, recording: Recording) -> Path:
    """Write a recording and return its path."""
    path = path_of(folder, recording.policy)
    path.write_text(recording.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return path


def replay(
    recorded: Recorded | None, questions: Sequence[Question], content: str
) -> tuple[list[tuple[Question, Classification, str]], str | None]:
    """Return the recorded answers with their classifiers, or why they are no longer good."""
    if recorded is None:
        return [], "it was never recorded"
    if recorded.content != content:
        return [], "its text or media changed after it was recorded"
    old = [
        q.id
        for q in questions
        if q.id in recorded.scores and recorded.scores[q.id].digest != q.digest
    ]
    if old:
        return [], f"its recording is older than what {', '.join(old)} asks"
    return [
        (
            question,
            Classification(question=question.id, score=recorded.scores[question.id].score),
            recorded.scores[question.id].classifier,
        )
        for question in questions
        if question.id in recorded.scores
    ], None


def made(
    policy: str,
    answered: Mapping[str, tuple[str, Sequence[tuple[Question, Classification, str]]]],
    *,
    now: datetime,
) -> Recording:
    """Return the recording of these answers, each case with the digest of its content."""
    return Recording(
        policy=policy,
        recorded_at=now,
        cases={
            name: Recorded(
                content=content,
                scores={
                    question.id: Score(
                        digest=question.digest, score=found.score, classifier=classifier
                    )
                    for question, found, classifier in answers
                },
            )
            for name, (content, answers) in answered.items()
        },
    )
