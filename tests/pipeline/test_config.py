"""Settings that contradict each other are refused in words."""

import pytest
from pydantic import ValidationError

from pipeline.config import ClassifierSettings, PoolSettings, Settings, Shadow


def far(**options: object) -> ClassifierSettings:
    """Return a remote classifier with these options."""
    return ClassifierSettings(name="far", model="m", kind="remote", options=options)


@pytest.mark.parametrize(
    ("deadline", "call_s"), [({}, 45), ({"deadline_s": 55}, 60), ({"deadline_s": "soon"}, 60)]
)
@pytest.mark.parametrize("shadow", [False, True])
def test_a_remote_deadline_that_comes_too_late_is_refused(
    deadline: dict[str, object], call_s: float, *, shadow: bool
) -> None:
    """A worker must not be ended as hung before its own deadline; the message says what to set."""
    own = (far(**deadline),)
    with pytest.raises(ValidationError, match=r"'far'.*deadline_s.*pool\.call_timeout_s"):
        Settings(
            pool=PoolSettings(call_timeout_s=call_s),
            classifiers=(ClassifierSettings(),) if shadow else own,
            shadow=Shadow(classifiers=own if shadow else ()),
        )


def test_the_deadlines_unless_set_agree() -> None:
    """A remote classifier without options fits the pool's own patience, and other kinds have no deadline."""
    assert Settings(classifiers=(far(), far(deadline_s=54)))
    assert Settings(pool=PoolSettings(call_timeout_s=1))
