"""Composes policies in plain words whose truth about an upload is known: what the language part learns from."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from policies.question import Exempt, Forbidden, Question
from workers.mini.concepts import CONCEPTS, GROUPS, INDEX
from workers.mini.phrases import (
    ABOUT,
    ALL,
    CONTEXT_NAMES,
    EXEMPT,
    LACKS,
    LACKS_ASK,
    MENTIONS,
    RULE_ASK,
    SHOWS,
    SHOWS_ASK,
    TOGETHER,
    TOPIC_ASK,
    TOPIC_CLAUSES,
    TOPIC_GROUPS,
    Known,
    Phrases,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What is true of one upload, as far as a policy may ask."""

    shown: frozenset[int] = frozenset()
    topics: frozenset[str] = frozenset()
    names: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """Words for a set of concepts."""

    words: str
    means: frozenset[int]

    @property
    def bare(self) -> str:
        """The words without their article."""
        return re.sub(r"^(?:an?|any) ", "", self.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One clause: its words, when it holds, which concepts are its evidence, and the nouns in its words."""

    text: str
    holds: Callable[[Upload], bool]
    evidence: frozenset[int] = frozenset()
    nouns: tuple[Noun, ...] = ()
    examples: tuple[str, ...] = ()
    rationale: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question, and the truth about one kind of upload: the answer and which clauses hold."""

    question: Question
    clauses: tuple[tuple[str, Clause], ...]
    exempt: tuple[tuple[str, Clause, tuple[str, ...]], ...] = ()
    kind: str = "plain"
    nouns: tuple[Noun, ...] = field(default=())

    def broken(self, upload: Upload) -> list[str]:
        """Return the ids of the forbidden clauses that hold and that no carve-out lifts."""
        held = [name for name, clause in self.clauses if clause.holds(upload)]
        for _, clause, unless in self.exempt:
            if clause.holds(upload) and not set(unless) & set(held):
                return []
        return held


def noun(
    rng: np.random.Generator, means: frozenset[int] | None = None, *, plural: bool | None = None
) -> Noun:
    """Return words for a concept or a group, or for this set of concepts, joined with "or"."""
    if means is None:
        pick = int(rng.integers(len(CONCEPTS) + 2 * len(GROUPS)))
        if pick < len(CONCEPTS):
            return _named(rng, CONCEPTS[pick].words, frozenset({pick}), plural=plural)
        group = GROUPS[(pick - len(CONCEPTS)) % len(GROUPS)]
        return _named(
            rng, group.words, frozenset(INDEX[name] for name in group.members), plural=plural
        )
    parts = [
        _named(rng, CONCEPTS[one].words, frozenset({one}), plural=plural).words
        for one in rng.permutation(sorted(means))
    ]
    return Noun(words=listed(parts), means=means)


def group_noun(rng: np.random.Generator, name: str, *, plural: bool | None = None) -> Noun:
    """Return words for the group of this name, or for all that belongs to it."""
    group = next(group for group in GROUPS if group.name == name)
    return _named(
        rng, group.words, frozenset(INDEX[member] for member in group.members), plural=plural
    )


def _named(
    rng: np.random.Generator,
    words: tuple[tuple[str, str], ...],
    means: frozenset[int],
    *,
    plural: bool | None,
) -> Noun:
    one, many = words[0] if rng.random() < 0.55 else words[int(rng.integers(len(words)))]
    several = bool(rng.random() < 0.45) if plural is None else plural
    if several or one == many:
        return Noun(words=many, means=means)
    article = "an" if one[0] in "aeiou" else "a"
    return Noun(words=f"{article} {one}" if rng.random() < 0.85 else f"any {one}", means=means)


def listed(parts: list[str], word: str = "or") -> str:
    """Return words as a list in a sentence."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"


class Composer:
    """Composes questions in wordings of training, or in such as training never shows."""

    def __init__(self, rng: np.random.Generator, *, known: Known = "train") -> None:
        self.rng = rng
        self.known = known

    def said(self, phrases: Phrases, **words: str) -> str:
        """Return one of several phrases with its words filled in."""
        lines = phrases.of(self.known)
        line = str(lines[int(self.rng.integers(len(lines)))])
        for key, value in words.items():
            line = line.replace("{" + key + "}", value).replace(
                "{" + key.upper() + "}", value[:1].upper() + value[1:]
            )
        return re.sub(r"\b([Nn]o) (?:an?|any) ", r"\1 ", line)

    # ---- clauses

    def shows(self, thing: Noun) -> Clause:
        """Return a clause that holds where one of these things is seen."""
        return Clause(
            text=self.said(SHOWS, x=thing.words),
            holds=lambda upload: bool(thing.means & upload.shown),
            evidence=thing.means,
            nouns=(thing,),
            rationale=f"Shows {thing.words}.",
        )

    def lacks(self, thing: Noun) -> Clause:
        """Return a clause that holds where none of these things is seen."""
        return Clause(
            text=self.said(LACKS, x=thing.words),
            holds=lambda upload: not thing.means & upload.shown,
            nouns=(thing,),
            rationale=f"Shows no {thing.words}.",
        )

    def mentions(self, thing: Noun) -> Clause:
        """Return a clause that holds where the caption names one of these things."""
        return Clause(
            text=self.said(MENTIONS, x=thing.words),
            holds=lambda upload: bool(thing.means & upload.names),
            nouns=(thing,),
            rationale=f"The caption names {thing.words}.",
        )

    def together(self, first: Noun, second: Noun) -> Clause:
        """Return a clause that holds where both kinds of things are seen."""
        return Clause(
            text=self.said(TOGETHER, x=first.words, y=second.words),
            holds=lambda upload: (
                bool(first.means & upload.shown) and bool(second.means & upload.shown)
            ),
            evidence=first.means,
            nouns=(first, second),
            rationale=f"Shows {first.words} with {second.words}.",
        )

    def about(self, act: str, thing: Noun) -> Clause:
        """Return a clause on something done with a thing, by the caption: sold, promoted, threatened with."""
        topics = {"sell": {"sell"}, "promote": {"promote"}, "advertise": {"sell", "promote"}}.get(
            act, {act}
        )

        def holds(upload: Upload) -> bool:
            return bool(topics & upload.topics) and bool(
                thing.means & (upload.names or upload.shown)
            )

        text = self.said(ABOUT[act], x=thing.words)
        return Clause(text=text, holds=holds, evidence=thing.means, nouns=(thing,), rationale=text)

    def topic(self, name: str) -> Clause:
        """Return a clause on what the caption says."""
        topics = frozenset(TOPIC_GROUPS.get(name, (name,)))
        text = self.said(TOPIC_CLAUSES[name])
        return Clause(text=text, holds=lambda upload: bool(topics & upload.topics), rationale=text)

    def excused(self, contexts: list[str], things: list[Noun]) -> Clause:
        """Return a carve-out for contexts of the caption and for things that are seen."""
        names = [str(self.rng.choice(CONTEXT_NAMES[context])) for context in contexts]
        parts = [*names, *(thing.words for thing in things)]
        means = frozenset().union(*(thing.means for thing in things)) if things else frozenset()
        topics = frozenset(contexts)
        parts = [parts[int(place)] for place in self.rng.permutation(len(parts))]
        text = self.said(EXEMPT, x=listed(parts, "and" if self.rng.random() < 0.5 else "or"))
        return Clause(
            text=text,
            holds=lambda upload: bool(topics & upload.topics) or bool(means & upload.shown),
            evidence=means,
            nouns=tuple(things),
        )

    # ---- whole questions

    def ask(
        self,
        clauses: list[Clause],
        *,
        line: str,
        exempt: list[tuple[Clause, int]] | None = None,
        definitions: tuple[tuple[str, str], ...] = (),
        kind: str = "plain",
        nouns: tuple[Noun, ...] = (),
    ) -> Asked:
        """Return a question from clauses; the number beside a carve-out says how many clauses beat it."""
        rng = self.rng
        letter = str(rng.choice(list("ABCDEFGHKLMNPRSTUVW")))
        other = str(rng.choice([each for each in "AXEKZ" if each != letter]))
        ids = [f"{letter}{place}" for place in range(1, len(clauses) + 1)]
        carve = []
        for place, (clause, beaten_by) in enumerate(exempt or [], 1):
            unless = tuple(
                sorted(rng.choice(ids, size=min(beaten_by, len(ids)), replace=False).tolist())
            )
            carve.append((f"{other}{place}", clause, unless))
        question = Question(
            id=kind,
            policy=kind,
            question=line,
            definitions=definitions,
            forbidden=tuple(
                Forbidden(id=name, text=clause.text, examples=clause.examples)
                for name, clause in zip(ids, clauses, strict=True)
            ),
            allowed=tuple(
                Exempt(id=name, text=clause.text, unless=unless) for name, clause, unless in carve
            ),
        )
        return Asked(
            question=question,
            clauses=tuple(zip(ids, clauses, strict=True)),
            exempt=tuple(carve),
            kind=kind,
            nouns=nouns,
        )

    def plain(self, thing: Noun) -> Asked:
        """Return the question whether a thing is shown."""
        line = (
            self.said(SHOWS_ASK, x=thing.words)
            if self.rng.random() < 0.75
            else self.said(RULE_ASK, x=thing.words)
        )
        return self.ask([self.shows(thing)], line=line, kind="plain", nouns=(thing,))

    def inverted(self, thing: Noun) -> Asked:
        """Return the question whether a thing is missing, as a clause or as all but a carve-out."""
        roll = self.rng.random()
        line = (
            self.said(LACKS_ASK, x=thing.words) if roll < 0.7 else self.said(RULE_ASK, x="pictures")
        )
        if roll < 0.3 or 0.7 < roll < 0.8:
            everything = Clause(
                text=self.said(ALL), holds=lambda _: True, rationale=f"Shows no {thing.words}."
            )
            return self.ask(
                [everything],
                line=line,
                exempt=[(self.excused([], [thing]), 0)],
                kind="inverted",
                nouns=(thing,),
            )
        return self.ask([self.lacks(thing)], line=line, kind="inverted", nouns=(thing,))

    def spoken(self, name: str) -> Asked:
        """Return the question whether the caption does something."""
        line = (
            self.said(TOPIC_ASK[name])
            if self.rng.random() < 0.7
            else self.said(RULE_ASK, x="captions")
        )
        return self.ask([self.topic(name)], line=line, kind="caption")


def example(rng: np.random.Generator, thing: Noun) -> str:
    """Return an example such as a policy's author would add to a clause."""
    word = CONCEPTS[int(rng.choice(sorted(thing.means)))].words[0][0]
    return str(
        rng.choice(
            [f"a picture of a {word}", f"{word} on a table", f"a {word}", f"drawing of a {word}"]
        )
    )
