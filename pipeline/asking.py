"""Questions put to classifiers in this process, in the order of their cascade: golden cases, and the backtest."""

from collections.abc import Sequence

from policies.question import Part, Question
from workers.classifier import Classification, Classifier, Item
from workers.passage import legs_for, without
from workers.upload import Settle

#: An answer with the question as it was asked and the digest of the classifier that gave it.
Answered = tuple[Question, Classification, str]


def ask(
    items: Sequence[Item],
    questions: Sequence[Question],
    classifiers: Sequence[Classifier],
    settles: Settle,
) -> list[list[Answered]]:
    """Return, for each item, every answer that was needed, in the order of the cascade: the last to a question stands.

    Where nothing settles, every classifier is asked every question that it covers and reads all of.
    """
    known = [(c.reads, [c.covers(question) for question in questions]) for c in classifiers]
    legs = [legs_for(questions, _parts(item), known, cascade=True) or [] for item in items]
    found: list[list[Answered]] = [[] for _ in items]
    for index, classifier in enumerate(classifiers):
        waiting: dict[tuple[int, ...], list[int]] = {}
        for number, left in enumerate(legs):
            if left and left[0].classifier == index:
                waiting.setdefault(left[0].questions, []).append(number)
        for asked, numbers in waiting.items():
            by_id = {questions[n].id: n for n in asked}
            answers = classifier.classify(
                [items[n] for n in numbers], [questions[n] for n in asked]
            )
            for number, given in zip(numbers, answers, strict=True):
                settled = set()
                for answer in given:
                    question = questions[by_id[answer.question]]
                    found[number].append((question, answer, classifier.digest))
                    if settles(question, answer, classifier.digest):
                        settled.add(by_id[answer.question])
                legs[number] = without(legs[number][1:], settled)
    return found


def standing(answers: Sequence[Answered], settles: Settle) -> dict[str, Answered]:
    """Return the answer to each question that stands: the first that settles it, else the last."""
    kept: dict[str, Answered] = {}
    settled: set[str] = set()
    for question, answer, digest in answers:
        if question.id not in settled:
            kept[question.id] = (question, answer, digest)
            if settles(question, answer, digest):
                settled.add(question.id)
    return kept


def _parts(item: Item) -> frozenset[Part]:
    parts: set[Part] = set()
    if item.pictures:
        parts.add("image")
    if item.caption or item.text_in_image:
        parts.add("caption")
    return frozenset(parts)
