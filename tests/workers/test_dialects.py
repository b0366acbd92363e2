"""Guards' dialects: who speaks which, which categories there are, and how verdict and category become one score."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from workers.dialects import Judged, dialect_for, joint
from workers.errors import CheckpointError

VERDICTS = st.floats(-25, 25)
SHARES = st.floats(1e-6, 1 - 1e-6)


@given(VERDICTS, SHARES)
def test_verdict_and_category_are_one_score(verdict: float, share: float) -> None:
    """The score is the log-odds of the product of both probabilities: no surer than the verdict alone."""
    both = share / (1 + math.exp(-verdict))
    assert joint(verdict, share) == pytest.approx(math.log(both / (1 - both)), abs=1e-4)
    assert joint(verdict, 1.0) == pytest.approx(verdict, abs=1e-3)
    assert joint(verdict, share) <= verdict + 1e-9


@given(VERDICTS, VERDICTS, SHARES, SHARES)
def test_more_unsafe_is_higher(verdict: float, other: float, share: float, less: float) -> None:
    """The surer the verdict and the likelier the category, the higher the score."""
    low, high = sorted((verdict, other))
    assert joint(low, share) <= joint(high, share)
    few, many = sorted((share, less))
    assert joint(verdict, few) <= joint(verdict, many)


def test_far_out_verdicts_stay_numbers() -> None:
    """A verdict of any size has a score, and what is no number stays none."""
    assert joint(-1e4, 0.5) < joint(-100.0, 0.5) < 0
    assert joint(1e4, 0.5) == pytest.approx(0.0, abs=1e-6)
    assert math.isfinite(joint(1e4, 1.0))
    assert math.isnan(joint(math.nan, 0.5))
    assert math.isnan(joint(1.0, math.nan))


def templated(template: str) -> PreTrainedTokenizerFast:
    """Return what renders a chat template."""
    words = Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, chat_template=template)


@pytest.mark.parametrize(
    "template",
    [
        "S1: Violent Crimes.\nS10: Hate.\n{{ messages[0]['content'][0]['text'] }}",
        (
            "{% for key, name in {'S1': 'Violent Crimes.', 'S10': 'Hate.'}.items() %}"
            "{{ key }}: {{ name }}\n{% endfor %}{{ messages[0]['content'][0]['text'] }}"
        ),
    ],
)
@pytest.mark.parametrize("model_type", ["mllama", "llama4"])
def test_llama_guards_name_their_categories(model_type: str, template: str) -> None:
    """Llama Guard 3 Vision and 4 speak one dialect, with the categories that their prompt names as it is rendered."""
    dialect = dialect_for(None, model_type, {}, templated(template))
    assert isinstance(dialect, Judged)
    assert (dialect.name, dialect.violates, dialect.allowed) == ("llama_guard", "unsafe", "safe")
    assert dict(dialect.categories) == {"S1": "1", "S10": "10"}


@pytest.mark.parametrize("model_type", ["llama4", "qwen2_vl"])
def test_what_is_no_guard_is_refused(model_type: str) -> None:
    """A model of a guard's type whose prompt names no categories, or of another type, is no guard."""
    with pytest.raises(CheckpointError, match="dialect"):
        dialect_for(None, model_type, {}, templated("{{ messages[0]['content'][0]['text'] }}"))
