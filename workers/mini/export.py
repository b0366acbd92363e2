"""Writes labelled scenes for the shipped policies: ``python -m workers.mini.export FOLDER``.

The folder is what `weir calibrate` and `weir model eval` read: pictures and labels.jsonl.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import get_args

from PIL import Image
from rich.progress import track

from policies.folder import read_policies
from workers.mini.material import MaterialError, Split
from workers.mini.truth import TRUTHS, labelled


def export(
    folder: Path, policies: Path, *, split: Split, seed: int, count: int, own: bool = False
) -> int:
    """Write `count` scenes for each policy with a known truth and return how many there are.

    With `own` each scene answers only for the policy that it was made for: about two in five break
    it, where among all scenes one in ten does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    questions = [q for p in read_policies(policies) for q in p.questions if q.policy in TRUTHS]
    total = count * len({question.policy for question in questions})
    scenes = labelled(questions, split=split, seed=seed, count=count)
    with (folder / "labels.jsonl").open("w", encoding="utf-8") as lines:
        for number, scene in enumerate(track(scenes, "Drawing scenes", total=total)):
            name = f"{number:05}.png"
            Image.fromarray(scene.pixels).save(folder / name)
            row = {
                "id": f"{split}-{seed}-{number}",
                "media": [name],
                # Labels have no text of the image, and what it says counts like the caption.
                "caption": f"{scene.caption} {scene.text_in_image}".strip(),
                "answers": {
                    name: truth
                    for name, truth in scene.answers.items()
                    if not own or name.partition("/")[0] == scene.about
                },
            }
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    return total


def main() -> None:
    """Read the arguments and write the scenes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--policies", type=Path, default=Path("policies"))
    parser.add_argument("--split", choices=get_args(Split), default="validation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200, help="scenes a policy")
    parser.add_argument("--own", action="store_true", help="answers for a scene's own policy alone")
    given = parser.parse_args()
    try:
        total = export(
            given.folder,
            given.policies,
            split=given.split,
            seed=given.seed,
            count=given.count,
            own=given.own,
        )
    except MaterialError as error:
        sys.exit(str(error))
    print(f"{total} labelled scenes in {given.folder}")  # noqa: T201 -- a script speaks


if __name__ == "__main__":
    main()
