"""Policies that others wrote, carried over into the format by a hand-made mapping, without loss."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from policies.folder import inspect
from policies.schema import Policy, PolicySet
from workers.prompt import suffix

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
HERE = Path(__file__).parents[2] / "policies"
ROOST = "policy-texts/roost-model-community"

pytestmark = pytest.mark.skipif(
    not (SHARED / "policy-texts").is_dir(), reason="needs ../shared/data/policy-texts"
)


@dataclass
class Passage:
    """One rule as its source has it: its words and its examples."""

    text: str
    examples: list[str] = field(default_factory=list)


#: What a reader finds in a source: passages by their id or heading there.
Found = dict[str, Passage]


def plain(text: str) -> str:
    """Return a line without list markers, emphasis and links."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(re.sub(r"^[\s#>-]+|\*\*|✅|🚫|❗|🚨|\\", " ", text).split())


def graded(text: str) -> Found:
    """Read spam and teen policies: grades with a sentence, `SP2.a Title – “example”`, definitions."""
    found: Found = {}
    grade = None
    for line in filter(None, map(plain, text.splitlines())):
        if match := re.match(r"((?:SP|DC)\d\.[a-z]) ([^–:]*?) ?[–:] ?(.+)$", line):
            quotes = re.findall(r"[“\"]([^”\"]+)[”\"]", match[3]) or [match[3]]
            found[match[1]] = Passage(match[2], quotes)
            grade = None
        elif match := re.search(r"\(((?:SP|DC)\d) [–-] ", line):
            grade = found.setdefault(match[1], Passage(""))
        elif grade and line != "Examples:":
            grade.text = f"{grade.text} {line}".strip()
    return found | defined(text)


def defined(text: str) -> Found:
    """Read the definitions of a policy: `Term: meaning` below a heading of that name."""
    section = re.search(
        r"(?im)^\W*definitions?\b.*?$(.*?)(?=^\W*(?:#|✅|---|Allowed|\*\*Allowed))", text, re.DOTALL
    )
    lines = section[1].splitlines() if section else []
    found: Found = {}
    for line in lines:
        words = plain(line)
        if match := re.match(r"([A-Z][^:.]{2,60}?) ?: (.+)", words):
            found[match[1]] = Passage(match[2])
        elif words and found:
            list(found.values())[-1].text += f" {words}"
    return found


def outlined(text: str) -> Found:
    """Read policies of bold bullets with bullets below them, and definitions of that shape."""
    found: Found = {}
    for line in text.partition("## Always respond")[0].splitlines():
        if match := re.match(r"- \*\*(.+?)\*\*:? ?(.*)", line):
            found[match[1]] = Passage(plain(match[2]))
        elif re.match(r"\s+- ", line) and found:
            list(found.values())[-1].examples.append(plain(line))
        elif line.startswith("- "):
            found.setdefault("Interpretation of Language", Passage("")).examples.append(plain(line))
    return found


def tvec(text: str) -> Found:
    """Read a policy of bold headings, each with a paragraph, a list and examples."""
    found: Found = {}
    for part in re.split(r"(?m)^(?=\*\*)", text)[1:]:
        head, *lines = part.split("---")[0].splitlines()
        key, _, rest = head.replace("**", "").partition(":")
        passage = Passage(rest.strip())
        in_examples = False
        for line in lines:
            if line.startswith("## "):
                break
            in_examples = in_examples or line.startswith("Examples:")
            words = plain(line)
            if not words or line.startswith("Examples:"):
                continue
            if not in_examples:
                passage.text += f" {words}"
            elif line.startswith("- "):
                passage.examples.append(words)
            else:
                passage.examples[-1] += f" {words}"
        found[key] = passage
    return found


def numbered(text: str) -> Found:
    """Read LlavaGuard's policy: sections with `Should not:` and `Can:`, whose bullets are counted."""
    found: Found = {}
    for section in re.split(r"(?m)^(?=O\d: )", text.split("Assessment Steps", maxsplit=1)[0])[1:]:
        key = section[:2]
        found[key] = Passage(section.splitlines()[0].partition(": ")[2].strip(" :"))
        forbidden, _, allowed = section.partition("Can:")
        for kind, part in (("", forbidden), ("A", allowed)):
            for number, line in enumerate(re.findall(r"(?m)^- (.+)$", part), 1):
                found[f"{key}.{kind}{number}"] = Passage(plain(line))
    return found


def categories(text: str) -> Found:
    """Read a policy of categories: a description each, `VIOLATES` and `SAFE` bullets, and examples."""
    found: Found = {}
    for line in text.splitlines():
        row = re.match(r"\| \*\*(\w+)\*\* *\| [^|]+ \| (.+) \|", line)
        bullet = re.match(r"- \*\*(\w+) \([^)]+\)\*\*: (.+)", line)
        if match := row or bullet:
            found[match[1]] = Passage(plain(match[2]))
    for section in re.split(r"(?m)^(?=###? )", text):
        head, _, body = section.partition("\n")
        if match := re.match(r"### (\w+) \(.+?\) [-–] (VIOLATES|SAFE)", head):
            kind = "A" if match[2] == "SAFE" else ""
            for number, line in enumerate(re.findall(r"(?m)^- (.+)$", body), 1):
                found[f"{match[1]}.{kind}{number}"] = Passage(plain(line))
        elif match := re.match(r"### (Example \d+|Edge.+?case)", head, re.IGNORECASE):
            content = plain(re.search(r"Content:\**\s*(.+)", body)[1])  # type: ignore[index]
            for key in re.findall(r"(\w+)\s*=\s*1\b", head):
                found[key].examples.append(content.strip('“”" '))
    return found


def taxonomy(text: str) -> Found:
    """Read the harm taxonomy: categories, their subcategories and their examples."""
    found: Found = {}
    for name, category in yaml.safe_load(text)["categories"].items():
        examples = list(category["platform_examples"].values())
        found[name] = Passage(category["description"], examples)
        for inner, words in category.get("subcategories", {}).items():
            found[f"{name}.{inner}"] = Passage(words if isinstance(words, str) else inner)
    return found


@dataclass(frozen=True)
class Entry:
    """Where one passage of a source goes: into which part of which policy, under which id."""

    source: str
    policy: str
    part: str  # clauses, allowed or definitions
    id: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Text:
    """One source: its file, how it is read, where each of its passages goes, and its policies' rules."""

    path: str
    read: Callable[[str], Found]
    entries: tuple[Entry, ...]
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def entries(policy: str, part: str, pairs: Mapping[str, str], **fields: Any) -> Iterator[Entry]:
    """Yield an entry for each id and what it is called in the source."""
    return (Entry(source, policy, part, key, fields) for key, source in pairs.items())


def same(words: str) -> dict[str, str]:
    """Return ids that are the same here as in the source."""
    return {word: word for word in words.split()}


SPAM = (
    *entries(
        "spam",
        "definitions",
        {
            name: name
            for name in (
                "Spam",
                "Bulk Messaging",
                "Unsolicited Promotion",
                "Deceptive Spam",
                "Link Farming",
                "SP0",
                "SP2",
                "SP3",
                "SP4",
            )
        },
    ),
    *entries("spam", "allowed", same("SP0.a SP0.b SP0.c SP0.d SP0.e SP0.f SP0.g")),
    # Grades are severities; the highest grade escalates.
    *entries("spam", "clauses", same("SP2.a SP2.b SP2.c"), severity="low"),
    *entries("spam", "clauses", same("SP3.a SP3.b SP3.c SP3.d"), severity="medium"),
    *entries(
        "spam",
        "clauses",
        same("SP4.a SP4.b SP4.c"),
        severity="high",
        review={"queue": "fraud", "due": "1h"},
    ),
)

TEEN = (
    *entries(
        "dangerous_content",
        "definitions",
        {
            name: name
            for name in (
                "Dangerous Activities or Challenges",
                "Facilitation",
                "Glorification",
                "DC0",
                "DC1",
                "DC2",
                "DC3",
                "Realistic Simulation",
            )
        },
    ),
    *entries("dangerous_content", "allowed", same("DC0.a DC0.b DC0.c DC0.d DC0.e")),
    *entries("dangerous_content", "clauses", same("DC1.a DC1.b DC1.c DC1.d"), severity="medium"),
    *entries("dangerous_content", "clauses", same("DC2.a DC2.b DC2.c DC2.d DC2.e DC2.f")),
    *entries("dangerous_content", "clauses", same("DC3.a DC3.b DC3.c DC3.d DC3.e")),
)

DRUGS = (
    *entries(
        "drugs",
        "definitions",
        {
            name: name
            for name in (
                "Drugs",
                "Drug Use",
                "Drug Manufacture",
                "Drug Distribution",
                "Drug Paraphernalia",
                "Drug Dependency",
                "Risk Mitigation",
                "Explicit Portrayals",
                "Interpretation of Language",
            )
        },
    ),
    *entries(
        "drugs",
        "clauses",
        {
            "I1": "Content Enabling Drug Distribution",
            "I2": "Content Offering to Supply, Trade, or Manufacture Illegal Drugs",
            "I3": "Content About Operating Vehicles or Machinery While Drug-Impaired",
            "I4": "Content Promoting Illegal Drug Use",
            "I5": "Content About Non-Consensual Drug Administration",
            "I6": "Content Seeking to Acquire, Purchase, or Consume Illegal Drugs",
            "I7": "Content About Underage Access to Legal Drugs",
            "I8": "Content Marketing or Trading Drug Paraphernalia",
            "I9": "Content with Consumption Declarations",
        },
    ),
    # Exceptions to an exception that are clauses of their own are named in `unless`.
    *entries("drugs", "allowed", {"E1": "Adult Alcohol Content"}, unless=["I3", "I5"]),
    *entries("drugs", "allowed", {"E2": "Fictional or Educational Drug Content"}, unless=["I1"]),
    *entries(
        "drugs",
        "allowed",
        {
            "E3": "Risk Mitigation and Recovery Content",
            "E4": "Academic Drug Content",
            "E5": "Drug Regulation Content",
            "E6": "Medical Drug Use Content",
            "E7": "Content Refusing to Provide, Manufacture, or Sell Illegal Drugs",
            "E8": "Content Rejecting Offers of Illegal Drugs",
        },
    ),
)

TOXICITY = (
    *entries(
        "toxicity",
        "definitions",
        {n: n for n in ("Conversation", "Participant", "Author", "Interpretation of Language")},
    ),
    *entries(
        "toxicity",
        "clauses",
        {
            "T1": "Combative or Aggressive Conversation Content",
            "T2": "Belittling or Mocking Conversation Content",
            "T3": "Disrespectful or Dismissive Conversation Content",
            "T4": "Insults or Personal Attacks in Conversation Content",
            "T5": "Patronizing or Condescending Conversation Content",
            "T6": "Passive-Aggressive Conversation Content",
            "T7": "Threatening Conversation Content",
            "T8": "Endorsing, Celebrating, or Wishing Violence in Conversation Content",
        },
    ),
    *entries(
        "toxicity",
        "allowed",
        {
            "E1": "Legitimate Criticism in Conversation Content",
            "E2": "Factual Corrections in Conversation Content",
            "E3": "Humor and Satire in Conversation Content",
            "E4": "Academic Discussion in Conversation Content",
            "E5": "Constructive Debate in Conversation Content",
            "E6": "Responding to Toxic Content in Conversations",
            "E7": "Quoting Toxic Content in Conversations",
            "E8": "Third-Party Discussions in Conversations",
            "E9": "General Commentary in Conversations",
        },
    ),
)

TVEC = (
    *entries(
        "tvec", "definitions", {n: n for n in ("Terrorism", "Violent Extremism", "TVE actors")}
    ),
    *entries("tvec", "clauses", same("TVEC1 TVEC3 TVEC4 TVEC5 TVEC6 TVEC7 TVEC8")),
    *entries(
        "tvec",
        "clauses",
        same("TVEC2"),
        severity="critical",
        bands={"act": "never"},
        review={"queue": "threat_to_life", "due": "15m"},
    ),
    *entries("tvec", "allowed", same("TVEC0")),
    *entries("tvec", "allowed", same("TVEC.01"), unless=["TVEC2"]),
)

#: Section -> the policy here, the number of what should not be, and of what can be.
LLAVAGUARD = {
    "O1": ("lg_hate", 2, 2),
    "O2": ("lg_violence", 2, 2),
    "O3": ("lg_sexual", 1, 4),
    "O4": ("lg_nudity", 1, 3),
    "O5": ("lg_criminal", 2, 2),
    "O6": ("lg_weapons_substances", 4, 4),
    "O7": ("lg_self_harm", 2, 2),
    "O8": ("lg_animal_cruelty", 3, 1),
    "O9": ("lg_disasters", 2, 2),
}

#: Category -> the policy here, its violations and safe cases in the first and in the third edition.
CATEGORIES = {
    "S": ("oa_sexual", (6, 4), (3, 3)),
    "H": ("oa_hate", (6, 4), (3, 3)),
    "V": ("oa_violence", (6, 5), (4, 3)),
    "HR": ("oa_harassment", (7, 4), (4, 3)),
    "SH": ("oa_self_harm", (6, 5), (4, 3)),
    "S3": ("oa_sexual_minors", (5, 4), (4, 2)),
    "H2": ("oa_hate_threatening", (5, 4), (3, 3)),
    "V2": ("oa_violence_graphic", (5, 4), (3, 3)),
}

MINORS = {
    "severity": "critical",
    "bands": {"review": 0.05, "act": "never"},
    "review": {"queue": "minor_safety", "meanwhile": "hold"},
}


def counted(key: str, policy: str, forbidden: int, allowed: int) -> Iterator[Entry]:
    """Yield the entries of one section whose rules are counted, and not named."""
    yield Entry(key, policy, "definitions", key)
    yield from entries(
        policy, "clauses", same(" ".join(f"{key}.{n + 1}" for n in range(forbidden)))
    )
    yield from entries(policy, "allowed", same(" ".join(f"{key}.A{n + 1}" for n in range(allowed))))


#: Category -> subcategories, each with rules of its own or none.
TAXONOMY: dict[str, dict[str, dict[str, Any]]] = {
    "spam": {},
    "coordinated_inauthentic_behavior": {"spam_ring": {}, "astroturfing": {}},
    "harassment": {"targeted": {}, "bulk": {}},
    "hate_speech": {},
    "violent_threats": {},
    "sexual_content": {"adult_nudity": {"severity": "medium"}, "csam": MINORS},
    "self_harm": {},
    "impersonation": {},
    "platform_manipulation": {},
    "off_platform_harm": {},
}
TAXONOMY_RULES: dict[str, dict[str, Any]] = {
    "spam": {"severity": "low", "action": "remove", "bands": {"review": 0.3, "act": 0.9}},
    "coordinated_inauthentic_behavior": {"severity": "high"},
    "hate_speech": {"severity": "high", "action": "remove"},
    "violent_threats": {"severity": "critical", "action": "remove"},
    "sexual_content": {"severity": "high"},
    "self_harm": {"severity": "high"},
    "off_platform_harm": {"severity": "critical"},
}

TEXTS = {
    "spam, gpt-oss-safeguard": Text("policy-texts/gpt-oss-safeguard-spam/policy.txt", graded, SPAM),
    "spam, community": Text(f"{ROOST}/spam.md", graded, SPAM),
    "dangerous content": Text(
        "policy-teen-safety/dangerous-content/policy.md",
        graded,
        TEEN,
        {"dangerous_content": {"severity": "high", "overrides": [
            {"when": {"audience": "teens"}, "bands": {"review": 0.1}}]}},
    ),
    "drugs": Text(f"{ROOST}/drug_policy.md", outlined, DRUGS),
    "toxicity": Text(f"{ROOST}/toxicity_policy.md", outlined, TOXICITY),
    "tvec": Text(f"{ROOST}/tvec-policy.txt", tvec, TVEC),
    "llavaguard": Text(
        "policy-texts/llavaguard/default_policy.txt",
        numbered,
        tuple(e for key, section in LLAVAGUARD.items() for e in counted(key, *section)),
        {name: {"maps_to": {"llavaguard": key}} for key, (name, _, _) in LLAVAGUARD.items()},
    ),
    **{
        f"openai categories, {edition}": Text(
            f"{ROOST}/openai_moderation_policy_{edition}.md",
            categories,
            tuple(
                e for key, (name, *sizes) in CATEGORIES.items() for e in counted(key, name, *sizes[at])
            ),
            {"oa_sexual_minors": MINORS, "oa_hate_threatening": {"severity": "high"}},
        )
        for at, edition in enumerate(("v001", "v003"))
    },
    "harm taxonomy": Text(
        f"{ROOST}/harm_taxonomy.yaml",
        taxonomy,
        tuple(
            Entry(source, f"ht_{name}", "clauses", f"C{number}", fields)
            for name, inner in TAXONOMY.items()
            for number, (source, fields) in enumerate(
                [(name, {}), *((f"{name}.{sub}", rules) for sub, rules in inner.items())]
            )
        ),
        {f"ht_{name}": rules for name, rules in TAXONOMY_RULES.items()},
    ),
}  # fmt: skip


def carried(text: Text, found: Found) -> dict[str, dict[str, Any]]:
    """Return the policies that a mapping makes of a source, as their files would say it."""
    made: dict[str, dict[str, Any]] = {}
    for entry in text.entries:
        policy = made.setdefault(
            entry.policy,
            {
                "policy": entry.policy,
                "title": entry.policy.replace("_", " "),
                "version": 1,
                "status": "draft",
                "question": f"Does this break the rules on {entry.policy.replace('_', ' ')}?",
                "clauses": {},
                "severity": "medium",
                "action": "restrict",
                "bands": {"review": 0.3, "act": "never"},
                "review": {"queue": "abuse", "meanwhile": "allow"},
            },
        )
        passage = found[entry.source]
        if entry.part == "definitions":
            policy.setdefault("definitions", {})[entry.id] = " ".join(
                [passage.text, *passage.examples]
            )
        elif entry.part == "allowed":
            words = [passage.text or entry.source, *passage.examples]
            rule = {"text": "; ".join(words), **entry.fields}
            policy.setdefault("allowed", {})[entry.id] = rule
        else:
            rule = {"text": passage.text or entry.source, **entry.fields}
            policy["clauses"][entry.id] = {**rule, "examples": passage.examples}
    for name, rules in text.rules.items():
        made[name] |= rules
    return made


@pytest.fixture(params=TEXTS)
def text(request: pytest.FixtureRequest) -> Text:
    """Return one text after the other."""
    return TEXTS[request.param]


@pytest.fixture
def found(text: Text) -> Found:
    """Return what the source says."""
    return text.read((SHARED / text.path).read_text(encoding="utf-8"))


@pytest.fixture
def policies(text: Text, found: Found, tmp_path: Path) -> PolicySet:
    """Return the policies that the mapping makes of the source, read from files and linted."""
    for name in ("queues.yaml", "context.yaml"):
        (tmp_path / name).write_bytes((HERE / name).read_bytes())
    for name, policy in carried(text, found).items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps(policy), encoding="utf-8")
    read, problems = inspect(tmp_path)
    assert [str(problem) for problem in problems] == []
    assert read is not None
    return read


def test_nothing_left_out(text: Text, found: Found) -> None:
    """Every passage of the source has its place in the mapping, and the mapping invents none."""
    assert sorted(entry.source for entry in text.entries) == sorted(found)


def test_ids(text: Text, found: Found, policies: PolicySet) -> None:
    """Every clause, carve-out and definition of the mapping stands in the parsed policy in full."""
    for entry in text.entries:
        part = getattr(policies.by_name[entry.policy], entry.part)
        words = part[entry.id] if entry.part == "definitions" else part[entry.id].text
        assert " ".join(found[entry.source].text.split()) in words
        if entry.part == "clauses":
            assert list(part[entry.id].examples) == [
                " ".join(e.split()) for e in found[entry.source].examples
            ]


def test_prompt(text: Text, found: Found, policies: PolicySet) -> None:
    """Every word of every passage stands in a prompt that is rendered from the policy."""

    def prompts(policy: Policy) -> str:
        return "\n".join(suffix(question) for question in policy.questions)

    rendered = {policy.policy: prompts(policy) for policy in policies}
    for entry in text.entries:
        passage = found[entry.source]
        for words in (passage.text, *passage.examples):
            assert " ".join(words.split()) in rendered[entry.policy], entry
