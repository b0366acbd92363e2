"""Makes the demo's uploads: `python -m infra.samples FOLDER`.

The sample pictures of the bundled model, some of them once more in another context, one that cannot be read, and
captions alone.
"""

import argparse
import json
import shutil
from pathlib import Path

from rich.console import Console
from rich.progress import track

from workers.mini import samples

#: Sample -> the same picture and caption in another context: what the context changes is the policies' own doing.
ELSEWHERE = {
    "beer": ("beer-for-teens", {"audience": "teens"}),
    "beer-for-sale": ("beer-licensed", {"surface": "marketplace", "licensed": True}),
    "pills-for-sale": ("pills-in-class", {"surface": "education"}),
    "mushrooms-and-herbs": ("mushrooms-on-market", {"surface": "marketplace"}),
}
_ERRORS = Console(stderr=True)
_WORDS = {
    "threat": "I will find you and hurt you",
    "greeting": "What a lovely morning for a walk",
}


def main(folder: Path) -> None:
    """Write every upload of the demo into the folder."""
    for _ in track(
        samples.write(folder), total=len(samples.SAMPLES), description="samples", console=_ERRORS
    ):
        pass
    for name, (elsewhere, context) in ELSEWHERE.items():
        shutil.copyfile(folder / f"{name}.png", folder / f"{elsewhere}.png")
        beside = {"text": (folder / f"{name}.txt").read_text().strip(), "context": context}
        (folder / f"{elsewhere}.json").write_text(json.dumps(beside, indent=2) + "\n")
    whole = (folder / "guitar.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[: len(whole) // 2])
    (folder / "broken.txt").write_text("My new guitar\n")
    for name, text in _WORDS.items():
        (folder / f"{name}.txt").write_text(text + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    main(parser.parse_args().folder)
