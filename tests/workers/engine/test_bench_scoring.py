"""`weir bench scoring`: its figures are what they say, on a model of hardly any weights."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from pipeline.cli import main
from workers.arithmetic import Arithmetic, peak_of
from workers.bench_scoring import Measured
from workers.random_models import build, guard_of

# transformers' own ShieldGemma 2 hands tensors to numpy in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def bench(*options: str) -> dict[str, Any]:
    """Return what the command prints of the smallest shape."""
    command = ["bench", "scoring", "--shape", "tiny", "--threads", "1", "--json", *options]
    told = CliRunner().invoke(main, command, catch_exceptions=False)
    assert told.exit_code == 0, told.output
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def test_the_figures_belong_together() -> None:
    """Every way is timed, and gains, FLOPs and utilisation follow from what stands beside them."""
    found = bench("--counts", "1,4", "--repeats", "3", "--images", "2", "--peak-tflops", "0.5")
    setting, (one, four) = found["setting"], found["figures"]
    assert one["ideal"] == pytest.approx(1.0)
    assert 1 < four["ideal"] < 4
    for figure in (one, four):
        assert figure["images"] == 2
        assert 0 < figure["shared_s"] <= figure["shared_p99_s"]
        assert figure["image_s"] == figure["shared_s"] / 2
        assert figure["saving"] == pytest.approx(figure["one_by_one_s"] / figure["image_s"])
        assert figure["one_batch_s"] > 0
        assert figure["replicated_s"] > 0
        assert figure["replicated_s"] != figure["one_batch_s"]
        share = figure["flops"] / figure["shared_s"] / 0.5e12
        assert figure["utilisation"] == pytest.approx(share)
    assert one["flops"] > 2 * (setting["tower_flops"] + setting["prefix_flops"])
    assert one["flops"] < four["flops"] < 4 * one["flops"]


def test_without_the_plain_ways_and_a_peak_there_are_none_of_their_figures() -> None:
    """What was not measured is no number, and one picture costs half of what two do."""
    (single,), (double,) = (
        bench(
            "--counts", "2", "--repeats", "1", "--no-plain", "--sharing", "packed", "--images", n
        )["figures"]
        for n in ("1", "2")
    )
    for name in ("one_by_one_s", "one_batch_s", "replicated_s", "saving", "utilisation"):
        assert single[name] is None
    assert double["flops"] == pytest.approx(2 * single["flops"])


def test_arithmetic_is_that_of_the_products() -> None:
    """Every token costs two FLOPs a parameter, and four a layer's width for each token that it sees."""
    made = Arithmetic(tower=7_000.0, parameters=100, attended=10, prefix=3)
    assert made.beginning == 7_000 + 3 * 200 + 40 * (0.5 + 1.5 + 2.5)
    assert made.asked([0, 1]) == 2 * 200 + 40 * (3.5 + 4.5)
    assert made.ideal([5]) == pytest.approx(1.0)
    own = made.asked(range(5))
    assert made.ideal([5] * 4) == pytest.approx(
        4 * (made.beginning + own) / (made.beginning + 4 * own)
    )
    larger = replace(made, tower=7e9)
    assert larger.ideal([5] * 4) == pytest.approx(4.0, rel=1e-3)


def test_a_tower_costs_what_its_products_cost() -> None:
    """The vision tower's FLOPs are those that are counted while it runs, but for its attention's masks and norms."""
    from torch.utils.flop_counter import FlopCounterMode

    model, _ = build("tiny", ["Is it?"], device="cpu", dtype=torch.float32)
    pixels = torch.zeros(1, 3, 224, 224)
    model.set_attn_implementation("eager")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.base_model.vision_tower(pixels)
    told = Arithmetic.of(model, patches=256, prefix=1).tower
    assert told == pytest.approx(counter.get_total_flops(), rel=0.2)


def test_known_peaks() -> None:
    """A GPU is known by its name; of an unknown device nothing is said."""
    assert peak_of("NVIDIA H200") == 989
    assert peak_of("NVIDIA H100 PCIe") == 756
    assert peak_of("NVIDIA L40S") == 362
    assert peak_of("cpu") is None


def test_the_guard_is_transformers_own(noise: Callable[..., Image.Image]) -> None:
    """Its classifier around our weights answers each policy, with the image once more for every one."""
    asks = {"0": "Is it a gun?", "1": "Does it show drugs?", "2": "Is it a scam, or not?"}
    model, processor = build("tiny", list(asks.values()), device="cpu", dtype=torch.float32)
    guard, its = guard_of(model, processor, asks, yes=60, no=61)
    made = its(images=[noise(1)], return_tensors="pt")
    assert made["pixel_values"].shape[0] == 3
    with torch.inference_mode():
        probabilities = guard(**made, logits_to_keep=1).probabilities
        logits = model(**made).logits[:, -1, [60, 61]]
    assert probabilities.shape == (3, 2)
    assert torch.allclose(probabilities, logits.softmax(-1), atol=1e-5)


def test_a_line_says_what_a_batch_of_images_gains() -> None:
    """The gain is for one image: the plain way asks about one, the shared one about all of a batch."""
    figure = Measured(
        questions=4,
        images=8,
        shared_s=4.0,
        shared_p99_s=5.0,
        shared_cpu_s=4.0,
        preparing_s=0.0,
        one_by_one_s=2.0,
        one_batch_s=None,
        replicated_s=None,
        ideal=3.0,
        flops=1e9,
        utilisation=None,
        method="packed",
    )
    assert figure.image_s == 0.5
    assert figure.saving == 4.0


def test_ways_of_sharing_are_measured_on_one_model() -> None:
    """Several ways stand beside each other, with the same plain figures; prepared pictures cost nothing any more."""
    found = bench(
        *("--counts", "2", "--repeats", "1", "--images", "2", "--plain-images", "2"),
        *("--sharing", "packed", "--sharing", "expanded", "--prepared"),
    )
    packed, expanded = found["figures"]
    assert (packed["method"], expanded["method"]) == ("packed", "expanded")
    assert packed["one_by_one_s"] == expanded["one_by_one_s"]
    assert packed["preparing_s"] == expanded["preparing_s"] == 0
    assert found["setting"]["plain_images"] == 2
    assert found["setting"]["prepared"]
    (usual,) = bench("--counts", "2", "--repeats", "1", "--no-plain", "--sharing", "packed")[
        "figures"
    ]
    assert usual["preparing_s"] > 0
