"""A remote classifier against a server that is not ours: `transformers serve` with the bundled model."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import environment
from workers.classifier import Item, Picture
from workers.loading import load
from workers.probe import scene, shows
from workers.spec import BUNDLED, ClassifierSpec

pytestmark = pytest.mark.skipif(
    not environment().get("WEIR_TEST_LONG"), reason="a server starts for half a minute"
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the bundled model and return the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(BUNDLED)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with (
        log.open("wb") as said,
        subprocess.Popen(
            [*command, *options],
            env=environment() | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdout=said,
            stderr=said,
        ) as process,
    ):
        for _ in range(180):
            assert process.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
        process.terminate()


def test_it_answers_as_the_model_does(served: str) -> None:
    """Over the wire each answer has the sign of the score that the same model gives here."""
    questions = [shows(thing) for thing in ("dog", "car", "guitar")]
    items = [
        Item(
            pictures=(
                Picture(
                    media=0,
                    pixels=np.asarray(scene(np.random.default_rng(n), [thing]).convert("RGB")),
                ),
            )
        )
        for n, thing in enumerate(("dog", "car"))
    ]
    spec = ClassifierSpec(
        name="served",
        kind="remote",
        model=str(BUNDLED),
        options={"endpoint": served, "retries": 1, "concurrency": 1, "image_px": 512},
    )
    here = load(ClassifierSpec(rationales=False)).classify(items, questions)
    there = load(spec).classify(items, questions)
    signs = [[answer.score > 0 for answer in found] for found in there]
    assert signs == [[answer.score > 0 for answer in found] for found in here]
    assert {sign for found in signs for sign in found} == {True, False}
