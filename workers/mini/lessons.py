"""Uploads with questions whose answers are known: what the language part learns from and is examined on."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from workers import prompt
from workers.mini.captions import CONTEXTS, HARMLESS, HARMS, STEERING, write
from workers.mini.concepts import CONCEPTS, GROUPS, INDEX
from workers.mini.phrases import RULE_ASK, TOPIC_ASK, TOPIC_CLAUSES, TOPIC_GROUPS, Known
from workers.mini.scenes import Shown
from workers.mini.wordings import (
    Asked,
    Clause,
    Composer,
    Noun,
    Upload,
    example,
    group_noun,
    listed,
    noun,
)

#: Concepts that resemble each other: what a wrong eye mixes up, so what questions should tell apart.
LOOKALIKES: tuple[tuple[str, ...], ...] = (
    ("pistol", "water pistol"),
    ("dagger", "kitchen knife", "sword"),
    ("axe", "hammer"),
    ("bomb", "dynamite"),
    ("beer", "coffee"),
    ("wine", "cocktail", "champagne", "sake"),
    ("guitar", "violin"),
    ("cigarette", "dynamite"),
    ("banknote", "credit card", "playing card"),
    ("football", "basketball"),
    ("phone", "laptop"),
    ("dog", "cat"),
    ("fire", "explosion"),
    ("apple", "tomato"),
    ("herb", "tree", "cactus"),
    ("rose", "sunflower"),
    ("milk bottle", "champagne"),
)

#: What a theme's clauses may be about besides sights, and the words for it in the question.
THEME_ACTS = {
    "sell": "sell",
    "promote": "promote",
    "threat": "threaten with",
    "glorify": "glorify harm with",
}

#: From how many draws a belief's answers are counted.
DRAWS = 24

#: Kinds of questions that are taught by the truth: what they ask about was chosen to go together, or not to, and a
#: belief's draws are made one by one.
ENTANGLED = ("carve-out", "together")

#: Kinds of questions that a teacher composes.
KINDS = ("plain", "inverted", "caption", "act", "carve-out", "many", "together", "theme")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The words of one upload and what is true of it."""

    caption: str
    text_in_image: str
    upload: Upload
    steered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question about one upload, with the truth at every place where the model can be taught.

    `nouns` are (end of the words in `text`, is it shown, is it named), `clauses` are (end in `text`, does it hold);
    these and `answer` are 0 or 1, or between where only a belief is taught. `reply` is the rationale to write, or empty.
    """

    text: str
    answer: float
    kind: str
    nouns: tuple[tuple[int, float, float], ...] = ()
    clauses: tuple[tuple[int, float], ...] = ()
    reply: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """How likely each thing is shown, for one who sees what the tower says and reads the caption but not the truth.

    `odds` are log-odds of each concept where a question is about it alone. By `breadth` they change with the logarithm
    of how many the question is about, and by `habits` with its kind: what is asked about is there more or less often.
    """

    odds: npt.NDArray[np.float64]
    breadth: float
    habits: Mapping[str, float]

    def draws(self, rng: np.random.Generator, asked: Asked, count: int) -> list[frozenset[int]]:
        """Return `count` sets of things that the question is about, as likely as each is believed to be shown."""
        names = np.array(sorted(concerned(asked)), np.int64)
        if not len(names):
            return [frozenset()] * count
        odds = self.odds[names] + self.breadth * np.log(len(names)) + self.habits[asked.kind]
        there = rng.random((count, len(names))) < expit(odds)
        return [frozenset(names[row].tolist()) for row in there]


def lookalikes(shown: frozenset[int]) -> frozenset[int]:
    """Return the concepts that look like one that is shown and are not shown themselves."""
    return frozenset(
        INDEX[name]
        for family in LOOKALIKES
        for name in family
        if any(INDEX[other] in shown for other in family) and INDEX[name] not in shown
    )


#: What OCR takes for what.
SLIPS = {
    "o": "0",
    "O": "0",
    "l": "1",
    "I": "l",
    "i": "1",
    "S": "5",
    "B": "8",
    "m": "rn",
    "w": "vv",
    "e": "c",
}


def misread(rng: np.random.Generator, text: str, share: float) -> str:
    """Return a text as OCR may read it: in so large a share of texts some letters and spaces are wrong or missing."""
    if not text or rng.random() >= share:
        return text
    if rng.random() < 0.3:
        text = text.upper()
    odds = rng.uniform(0.01, 0.1)
    rolls = rng.random((len(text), 2))
    return "".join(
        char if roll >= odds else ("" if char == " " or kind < 0.3 else SLIPS.get(char, char))
        for char, (roll, kind) in zip(text, rolls.tolist(), strict=True)
    )


class Teacher:
    """Composes captions and questions about scenes.

    `present` is how often a plain question's thing is shown, `written` how often a line stands in the image instead of
    the caption, `misread` how often such text has slips as OCR makes them, `steer` how often a line tries to steer the
    verdict.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        known: Known = "train",
        present: float = 0.5,
        written: float = 0.12,
        misread: float = 0.0,
        steer: float = 0.06,
    ) -> None:
        self.rng = rng
        self.written = written
        self.misread = misread
        self.steer = steer
        self.present = present
        self.known = known
        self.composer = Composer(rng, known=known)

    # ---- words of the upload

    def words(
        self,
        shown: frozenset[int],
        *,
        topic: str | None = None,
        steer: float | None = None,
        seen: bool = True,
    ) -> Said:
        """Return a caption, and sometimes text in the image, for a scene that shows these concepts.

        An upload that is not `seen` is its caption alone, which is then never empty.
        """
        rng = self.rng
        lines: dict[str, list[str]] = {"caption": [], "image": []}
        topics: set[str] = set()
        names: set[int] = set()
        wanted: list[str] = []
        roll = rng.random()
        if topic is not None:
            wanted = [topic]
        elif roll < 0.25:
            wanted = [HARMLESS]
        elif roll < 0.9 or not seen:
            wanted = [self._topic(HARMS if rng.random() < 0.68 else CONTEXTS)]
            if rng.random() < 0.3:
                wanted.append(self._topic(CONTEXTS if wanted[0] in HARMS else HARMS))
            if rng.random() < 0.15:
                wanted.insert(int(rng.integers(2)), HARMLESS)
        for each in wanted:
            about = int(rng.choice(sorted(shown))) if shown and rng.random() < 0.6 else None
            said = write(rng, each, about, known=self.known)
            lines["image" if seen and rng.random() < self.written else "caption"].append(said.text)
            topics |= said.topics
            names |= said.names
        steered = bool(rng.random() < (self.steer if steer is None else steer))
        if steered:
            lines["image" if seen and rng.random() < 0.6 else "caption"].append(
                str(rng.choice(np.array(STEERING.of(self.known))))
            )
        return Said(
            caption=" ".join(lines["caption"]),
            text_in_image=misread(rng, " ".join(lines["image"]), self.misread),
            upload=Upload(shown=shown, topics=frozenset(topics), names=frozenset(names)),
            steered=steered,
        )

    def _topic(self, among: Sequence[str]) -> str:
        weights = np.array(
            [
                3.0 if topic == "sell" else 1.5 if topic in {"promote", "threat", "insult"} else 1.0
                for topic in among
            ]
        )
        return str(self.rng.choice(np.array(among), p=weights / weights.sum()))

    # ---- questions

    def thing(self, upload: Upload, *, present: bool | None = None, broad: float = 0.35) -> Noun:
        """Return a noun for something that is (not) shown: a concept, a group or a small list."""
        rng = self.rng
        want = bool(rng.random() < 0.5) if present is None else present
        for _ in range(12):
            if rng.random() < broad:
                names = [
                    group.name
                    for group in GROUPS
                    if bool({INDEX[m] for m in group.members} & upload.shown) == want
                ]
                if names:
                    return group_noun(rng, str(rng.choice(np.array(names))))
            pool = sorted(upload.shown) if want else self._absent(upload.shown)
            if not pool:
                want = not want
                continue
            first = int(rng.choice(np.array(pool)))
            if rng.random() < 0.22:
                others = rng.choice(
                    len(CONCEPTS), size=int(rng.integers(1, 4)), replace=False
                ).tolist()
                means = frozenset(
                    {first, *(other for other in others if want or other not in upload.shown)}
                )
                return noun(rng, means)
            return noun(rng, frozenset({first}))
        return noun(rng)

    def _absent(self, shown: frozenset[int]) -> list[int]:
        """Return concepts that are not shown, three times in ten such as look like one that is."""
        if self.rng.random() < 0.3:
            near = lookalikes(shown)
            if near:
                return sorted(near)
        return [index for index in range(len(CONCEPTS)) if index not in shown]

    def kinds(self, upload: Upload, count: int, among: Sequence[str] = KINDS) -> list[str]:
        """Return which kinds of questions to ask about an upload: acts where the caption does something."""
        acting = bool({"sell", "promote", "threat", "glorify"} & upload.topics)
        odds = {
            "plain": 2.4,
            "inverted": 0.8,
            "caption": 1.3,
            "act": 1.6 if acting else 0.25,
            "carve-out": 1.5,
            "many": 0.9,
            "together": 0.6,
            "theme": 2.0,
        }
        weights = np.array([odds[kind] for kind in among])
        return [
            str(kind) for kind in self.rng.choice(np.array(among), count, p=weights / weights.sum())
        ]

    def ask(self, upload: Upload, kind: str) -> Asked:
        """Return one question of a kind about an upload."""
        match kind:
            case "plain":
                there = bool(self.rng.random() < self.present)
                return self.composer.plain(self.thing(upload, present=there))
            case "inverted":
                return self.composer.inverted(self.thing(upload))
            case "caption":
                return self.composer.spoken(self._said_or_not(upload))
            case "act":
                return self._act(upload)
            case "carve-out":
                return self._carved(upload)
            case "many":
                return self._many(upload)
            case "together":
                return self._together(upload)
            case _:
                return self._theme(upload)

    def _said_or_not(self, upload: Upload) -> str:
        names = list(TOPIC_CLAUSES)
        said = [name for name in names if set(TOPIC_GROUPS.get(name, (name,))) & upload.topics]
        if said and self.rng.random() < 0.5:
            return str(self.rng.choice(np.array(said)))
        return str(self.rng.choice(np.array(names)))

    def _act_clause(self, upload: Upload, thing: Noun | None = None) -> Clause:
        rng = self.rng
        acts = ["sell", "promote", "advertise", "threat", "glorify"]
        mine = [
            act
            for act in acts
            if act in upload.topics or (act == "advertise" and {"sell", "promote"} & upload.topics)
        ]
        act = str(rng.choice(np.array(mine if mine and rng.random() < 0.75 else acts)))
        if thing is None:
            spoken = upload.names or upload.shown
            thing = self.thing(Upload(shown=spoken), present=bool(rng.random() < 0.65))
        return self.composer.about(act, thing)

    def _act(self, upload: Upload) -> Asked:
        rng = self.rng
        if rng.random() < 0.15:
            thing = self.thing(
                Upload(shown=upload.names), present=bool(upload.names) and rng.random() < 0.5
            )
            return self.composer.ask(
                [self.composer.mentions(thing)],
                line=self.composer.said(RULE_ASK, x=thing.words),
                kind="act",
            )
        clause = self._act_clause(upload)
        asked = self.composer.ask(
            [clause], line=self.composer.said(RULE_ASK, x=clause.nouns[0].words), kind="act"
        )
        if rng.random() < 0.5:
            body = clause.text.rstrip(".")
            line = f"Is this so: {body[0].lower()}{body[1:]}?"
            asked = self.composer.ask([clause], line=line, kind="act")
        return asked

    def _together(self, upload: Upload) -> Asked:
        rng = self.rng
        both = rng.random() < 0.55 and len(upload.shown) > 1
        if both:
            first, second = (
                int(each)
                for each in rng.choice(np.array(sorted(upload.shown)), size=2, replace=False)
            )
            pair = self._wide(first), self._wide(second)
        else:
            pair = self.thing(upload), self.thing(upload)
        clause = self.composer.together(*pair)
        return self.composer.ask(
            [clause], line=self.composer.said(RULE_ASK, x=pair[0].words), kind="together"
        )

    def _wide(self, concept: int) -> Noun:
        """Return words for a concept or for a group that it belongs to."""
        names = [group.name for group in GROUPS if CONCEPTS[concept].name in group.members]
        if names and self.rng.random() < 0.5:
            return group_noun(self.rng, str(self.rng.choice(np.array(names))))
        return noun(self.rng, frozenset({concept}))

    def _any_clause(self, upload: Upload, *, present: bool | None = None) -> Clause:
        rng = self.rng
        roll = rng.random()
        if roll < 0.5:
            return self.composer.shows(self.thing(upload, present=present))
        if roll < 0.72:
            return self.composer.topic(self._said_or_not(upload))
        return self._act_clause(upload)

    def _true_clause(self, upload: Upload) -> Clause:
        """Return a clause that holds, if one is found."""
        clause = self._any_clause(upload, present=True)
        for _ in range(6):
            if clause.holds(upload):
                return clause
            clause = self._any_clause(upload, present=True)
        return clause

    def carve_out(self, upload: Upload, clause: Clause, *, holds: bool) -> Clause:
        """Return a carve-out that does (not) lift a clause for this upload."""
        rng = self.rng
        excused = self._carve_once(upload, clause, holds=holds)
        for _ in range(6):
            if excused.holds(upload) == holds:
                break
            excused = self._carve_once(
                upload, clause, holds=bool(rng.random() < 0.8) if holds else False
            )
        return excused

    def _carve_once(self, upload: Upload, clause: Clause, *, holds: bool) -> Clause:
        rng = self.rng
        mine = [topic for topic in CONTEXTS if topic in upload.topics]
        others = [topic for topic in CONTEXTS if topic not in upload.topics]
        contexts: list[str] = []
        if rng.random() < (0.75 if mine and holds else 0.45):
            contexts = [str(rng.choice(np.array(mine if holds and mine else others)))]
        if contexts and rng.random() < 0.35:
            contexts.append(
                str(rng.choice(np.array([topic for topic in others if topic not in contexts])))
            )
        if "sell" in upload.topics and not clause.evidence and rng.random() < 0.4:
            contexts = ["sell"]
        things: list[Noun] = []
        if not contexts or rng.random() < 0.3:
            spared = Upload(shown=upload.shown - clause.evidence)
            thing = self.thing(
                spared, present=holds and bool(spared.shown) and not (contexts and mine)
            )
            if not thing.means & clause.evidence:
                things.append(thing)
        if not contexts and not things:
            contexts = [str(rng.choice(np.array(mine if holds and mine else others)))]
        return self.composer.excused(contexts, things)

    def _carved(self, upload: Upload) -> Asked:
        rng = self.rng
        clause = self._true_clause(upload)
        excused = self.carve_out(upload, clause, holds=bool(rng.random() < 0.55))
        unless = int(rng.random() < 0.12)
        thing = clause.nouns[0].words if clause.nouns else "uploads"
        line = self.composer.said(RULE_ASK, x=thing)
        return self.composer.ask([clause], line=line, exempt=[(excused, unless)], kind="carve-out")

    def _many(self, upload: Upload) -> Asked:
        rng = self.rng
        count = int(rng.choice([2, 3, 4, 5], p=[0.4, 0.35, 0.15, 0.1]))
        clauses = [self._any_clause(upload, present=False) for _ in range(count)]
        if rng.random() < 0.5:
            clauses[int(rng.integers(count))] = self._true_clause(upload)
        carve = []
        if rng.random() < 0.5:
            carve.append(
                (
                    self.carve_out(upload, clauses[0], holds=bool(rng.random() < 0.3)),
                    int(rng.random() < 0.3),
                )
            )
        line = self.composer.said(
            RULE_ASK, x=clauses[0].nouns[0].words if clauses[0].nouns else "uploads"
        )
        return self.composer.ask(clauses, line=line, exempt=carve, kind="many")

    def _spoken_theme(self, upload: Upload) -> Asked:
        """Return a policy on what captions say, such as scams or harassment, often with a thing that is seen."""
        rng = self.rng
        names = [
            self._said_or_not(upload)
            for _ in range(int(rng.choice([1, 2, 3], p=[0.25, 0.5, 0.25])))
        ]
        clauses = [self.composer.topic(name) for name in dict.fromkeys(names)]
        if rng.random() < 0.4:
            clauses.append(self.composer.shows(self.thing(upload)))
        clauses = [clauses[int(place)] for place in rng.permutation(len(clauses))]
        carve = []
        for _ in range(int(rng.choice([0, 1, 2], p=[0.3, 0.45, 0.25]))):
            excused = self.carve_out(upload, clauses[0], holds=bool(rng.random() < 0.3))
            carve.append((excused, int(rng.choice([0, 1, 2], p=[0.55, 0.35, 0.1]))))
        line = (
            self.composer.said(TOPIC_ASK[names[0]])
            if rng.random() < 0.6
            else self.composer.said(RULE_ASK, x="captions")
        )
        return self.composer.ask(clauses, line=line, exempt=carve, kind="theme")

    def _theme(self, upload: Upload) -> Asked:
        """Return a policy such as a platform writes: one matter, definitions, several clauses, carve-outs."""
        rng = self.rng
        if rng.random() < 0.35:
            return self._spoken_theme(upload)
        near = [group for group in GROUPS if {INDEX[name] for name in group.members} & upload.shown]
        pool = near if near and rng.random() < 0.6 else list(GROUPS)
        group = pool[int(rng.integers(len(pool)))]
        members = frozenset(INDEX[name] for name in group.members)
        word = (
            group.words[0]
            if rng.random() < 0.7
            else group.words[int(rng.integers(len(group.words)))]
        )
        whole = group_noun(rng, group.name)
        clauses = self._theme_sights(upload, whole, members)
        acts = ["show"]
        for act, verb in THEME_ACTS.items():
            if rng.random() < (0.55 if act == "sell" else 0.2):
                clauses.append(self.composer.about(act, group_noun(rng, group.name)))
                acts.append(verb)
        if rng.random() < 0.25:
            clauses.append(self.composer.topic(self._said_or_not(upload)))
        if rng.random() < 0.3:
            # Authors edit a clause and leave the rest as it was: each is to be read for itself.
            clauses[int(rng.integers(len(clauses)))] = self.composer.shows(self.thing(upload))
        clauses = [clauses[int(place)] for place in rng.permutation(len(clauses))]
        clauses = [
            Clause(
                text=clause.text,
                holds=clause.holds,
                evidence=clause.evidence,
                nouns=clause.nouns,
                rationale=clause.rationale,
                examples=(example(rng, clause.nouns[0]),)
                if clause.nouns and rng.random() < 0.2
                else (),
            )
            for clause in clauses
        ]
        carve = []
        for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.2, 0.4, 0.3, 0.1]))):
            excused = self.carve_out(upload, clauses[0], holds=bool(rng.random() < 0.25))
            if not excused.evidence & members:
                carve.append((excused, int(rng.choice([0, 1, 2], p=[0.6, 0.3, 0.1]))))
        definitions: tuple[tuple[str, str], ...] = ()
        if rng.random() < 0.5:
            parts = noun(rng, members, plural=False).words
            definitions = ((word[0], parts),)
        roll = rng.random()
        if roll < 0.6:
            line = f"Does this upload {listed(acts[:3])} {whole.words}?"
        else:
            line = self.composer.said(RULE_ASK, x=whole.words)
        return self.composer.ask(
            clauses, line=line, exempt=carve, definitions=definitions, kind="theme"
        )

    def _theme_sights(self, upload: Upload, whole: Noun, members: frozenset[int]) -> list[Clause]:
        """Return a theme's clauses on what is seen: all of it, parts of it, or with something else."""
        rng = self.rng
        if rng.random() < 0.45:
            return [self.composer.shows(whole)]
        if rng.random() < 0.7 and len(members) > 2:
            split = rng.permutation(sorted(members)).tolist()
            cut = int(rng.integers(1, len(split)))
            parts = (split[:cut], split[cut:])[: int(rng.integers(1, 3))]
            return [self.composer.shows(noun(rng, frozenset(part[:4]))) for part in parts]
        return [self.composer.together(whole, self.thing(upload))]

    # ---- as text

    def item(
        self,
        asked: Asked,
        said: Said,
        shown: Sequence[Shown],
        *,
        explain: bool = False,
        belief: Belief | None = None,
    ) -> Item:
        """Return a question as the model gets it, with the truth at every place that can teach.

        With a belief it is how likely each answer is by it that is taught instead of what is true: what the eye missed
        cannot be learned from, and what it half sees is to be half believed (but see `ENTANGLED`). Reasons are then
        written only where an answer is more likely Yes than not.
        """
        statement = prompt.statement(asked.question)
        text = f"{statement}\n{prompt.EXPLAIN if explain else prompt.ASK}"
        worlds = [said.upload]
        if belief is not None and asked.kind not in ENTANGLED:
            drawn = belief.draws(self.rng, asked, DRAWS)
            worlds = [replace(said.upload, shown=things) for things in drawn]
        nouns: list[tuple[int, float, float]] = []
        clauses: list[tuple[int, float]] = []
        place = statement.find("Forbidden:\n")
        for name, clause in [*asked.clauses, *((name, clause) for name, clause, _ in asked.exempt)]:
            start = statement.find(f"\n{name}: ", place)
            stop = start + len(name) + 3 + len(clause.text)
            clauses.append((stop, _share(clause.holds(world) for world in worlds)))
            line = statement[start:stop]
            for thing in clause.nouns:
                found = line.lower().find(thing.bare.lower())
                if found >= 0:
                    there = _share(bool(thing.means & world.shown) for world in worlds)
                    named = float(bool(thing.means & said.upload.names))
                    nouns.append((start + found + len(thing.bare), there, named))
        answer = _share(bool(asked.broken(world)) for world in worlds)
        broken = asked.broken(said.upload)
        reply = ""
        if explain and broken and answer >= 0.5:
            reply = rationale(next((n, c) for n, c in asked.clauses if n == broken[0]), shown)
        elif explain:
            text = f"{statement}\n{prompt.ASK}"
        return Item(
            text=text,
            answer=answer,
            kind=asked.kind,
            nouns=tuple(nouns),
            clauses=tuple(clauses),
            reply=reply,
        )


def concerned(asked: Asked) -> frozenset[int]:
    """Return the concepts that the truth of a question can depend on."""
    clauses = [*(clause for _, clause in asked.clauses), *(clause for _, clause, _ in asked.exempt)]
    return frozenset().union(
        *(clause.evidence for clause in clauses),
        *(thing.means for clause in clauses for thing in clause.nouns),
    )


def _share(held: Iterable[bool]) -> float:
    every = list(held)
    return sum(every) / len(every)


def rationale(clause: tuple[str, Clause], shown: Sequence[Shown]) -> str:
    """Return the reason of a Yes as the model is to write it: clause, words, media, place."""
    name, broken = clause
    seen = [thing for thing in shown if thing.concept in broken.evidence]
    box = None
    text = broken.rationale
    if seen:
        largest = max(
            seen, key=lambda thing: (thing.box[2] - thing.box[0]) * (thing.box[3] - thing.box[1])
        )
        box = [max(0, min(100, round(100 * edge))) for edge in largest.box]
        if text.startswith("Shows"):
            text = f"Shows {CONCEPTS[largest.concept].words[0][0]}."
    return json.dumps({"clause": name, "text": text, "media": 0, "box": box}, separators=(",", ":"))
