"""Golden cases on their way to a classifier, or to their recording, and back."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np

from pipeline import recordings
from pipeline.asking import Answered, ask, standing
from pipeline.calibration import Calibrations
from pipeline.cascading import settling
from pipeline.golden import Outcome, judge, questions_of
from policies.cases import FOLDER, Case, CaseFile
from policies.notation import nearest
from policies.schema import Policy, PolicySet
from workers.bounds import Bounds
from workers.classifier import Classifier, Picture
from workers.errors import MediaRefusedError, WorkerError
from workers.folder import FolderStore
from workers.reading import Reading
from workers.upload import Location, Upload

#: Where drawings stand on a picture, by how many they are: centre and width, as shares of its side.
_LAYOUTS: Final[Mapping[int, Sequence[tuple[float, float, float]]]] = {
    1: ((0.5, 0.5, 0.5),),
    2: ((0.3, 0.42, 0.42), (0.7, 0.6, 0.42)),
    3: ((0.25, 0.4, 0.36), (0.68, 0.28, 0.36), (0.66, 0.7, 0.36)),
    4: ((0.27, 0.27, 0.36), (0.73, 0.27, 0.36), (0.27, 0.71, 0.36), (0.73, 0.71, 0.36)),
}


@dataclass(frozen=True)
class Rehearsal:
    """Puts the cases of policies to classifiers, in the order of their cascade."""

    folder: Path
    classifiers: Sequence[Classifier]
    calibrations: Calibrations
    now: datetime
    reading: Reading = field(default_factory=lambda: Reading(bounds=Bounds()))

    def run(
        self, policy: Policy, file: CaseFile, done: Callable[[Outcome], None]
    ) -> recordings.Recording:
        """Put every case to the classifiers, report each outcome, and return the recording of it."""
        kept: dict[str, tuple[str, Sequence[Answered]]] = {}
        for name, case in file.cases.items():
            started_s = time.perf_counter()
            try:
                answers = self._ask(case, policy)
            except WorkerError as error:
                outcome = Outcome(
                    policy=policy.policy, case=name, status="silent", why=(str(error),), answers={}
                )
            else:
                content = recordings.content_digest(case, self.folder / FOLDER)
                kept[name] = (content, answers)
                outcome = self._judged(policy, name, case, answers)
            done(replace(outcome, duration_s=time.perf_counter() - started_s))
        return recordings.made(policy.policy, kept, now=self.now)

    def replay(
        self, policy: Policy, file: CaseFile, recording: recordings.Recording | None
    ) -> Iterator[Outcome]:
        """Yield the outcome of every case from its recording."""
        for name, case in file.cases.items():
            answers, why = recordings.replay(
                recording.cases.get(name) if recording else None,
                policy.questions if case.action else questions_of(policy, case),
                recordings.content_digest(case, self.folder / FOLDER),
            )
            if why is not None:
                why = f"{why}; run weir policy test --record {policy.policy}"
                yield Outcome(
                    policy=policy.policy, case=name, status="stale", why=(why,), answers={}
                )
            else:
                yield self._judged(policy, name, case, answers)

    def _ask(self, case: Case, policy: Policy) -> list[Answered]:
        questions = policy.questions
        settles = settling(lambda: self.calibrations, PolicySet((policy,)), lambda: self.now)
        media = tuple(Location(uri=name) for name in case.media)
        item = self.reading.item(
            Upload(key=0, media=media, caption=case.text), FolderStore(self.folder / FOLDER)
        )
        if case.drawings:
            # Drawings hold no text.
            more = drawn(case.drawings, media=len(case.media))
            item = replace(item, pictures=(*item.pictures, more))
        (found,) = ask([item], questions, self.classifiers, settles)
        return list(standing(found, settles).values())

    def _judged(
        self, policy: Policy, name: str, case: Case, answers: Sequence[Answered]
    ) -> Outcome:
        calibrated = [
            self.calibrations.answer(question, found, classifier, now=self.now)
            for question, found, classifier in answers
        ]
        return judge(policy, name, case, calibrated, now=self.now)


def drawn(names: Sequence[str], *, media: int) -> Picture:
    """Return the picture that these drawings of the bundled model make, laid out in a fixed way.

    Raises:
        MediaRefusedError: there is no such drawing.
    """
    from workers.mini.samples import DRAWINGS, Piece, Sample, picture

    for name in names:
        if not (DRAWINGS / f"{name}.svg").is_file():
            known = [path.stem for path in DRAWINGS.glob("*.svg")]
            meant = nearest(name, known)
            hint = f"did you mean {meant}?" if meant else f"there are {', '.join(sorted(known))}"
            raise MediaRefusedError("missing", f"there is no drawing {name}: {hint}", media=media)
    pieces = tuple(
        Piece(drawing=name, x=x, y=y, size=size)
        for name, (x, y, size) in zip(names, _LAYOUTS[len(names)], strict=True)
    )
    image = picture(Sample(name="case", caption="", pieces=pieces))
    return Picture(media=media, pixels=np.asarray(image.convert("RGB"), np.uint8))
