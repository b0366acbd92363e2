"""A folder of calibrations under watch: read again when a file changed, so that new fits and alarms count at once."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pipeline import telemetry
from pipeline.calibration import Calibrations
from pipeline.errors import PipelineError

#: How often the folder is looked at.
EVERY_S: Final = 2.0


class CalibrationFolder:
    """Gives the calibrations in force; a wrong file leaves the last good ones in force. Made for one thread."""

    def __init__(
        self, folder: Path, *, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the folder.

        Raises:
            PipelineError: it is wrong from the start.
        """
        self._folder, self._every_s, self._clock = folder, every_s, clock
        self._looked = clock()
        self._seen = _fingerprint(folder)
        self._current = Calibrations.load(folder)
        tell(self._current)

    def current(self) -> Calibrations:
        """Return the calibrations in force; at most once in `every_s` this looks at the folder."""
        now = self._clock()
        if now - self._looked < self._every_s:
            return self._current
        self._looked = now
        seen = _fingerprint(self._folder)
        if seen != self._seen:
            self._seen = seen
            try:
                self._current = Calibrations.load(self._folder)
            except PipelineError as error:
                telemetry.log.error("calibrations unreadable, the old ones stay", error=str(error))
            else:
                telemetry.log.info("calibrations read", count=len(self._current.by_words))
                tell(self._current)
        return self._current


def tell(calibrations: Calibrations) -> None:
    """Put into the metrics which promises are in force, and log those that are not."""
    in_force: dict[tuple[str, str, str], bool] = {}
    drifting: dict[str, bool] = {}
    for key, calibration in calibrations.by_words.items():
        alarms = calibrations.alarms.get(key, ())
        drifts = any(alarm.kind == "drift" for alarm in alarms)
        drifting[calibration.question] = drifts or drifting.get(calibration.question, False)
        holding = calibrations.kept(calibration)
        for kept in calibration.kept:
            # Words that are about to be merged lie beside those in force: any of them may keep the promise.
            name = (calibration.question, calibration.classifier, str(kept.promise))
            holds = holding.get(kept.promise) is not None
            in_force[name] = holds or in_force.get(name, False)
        for alarm in alarms:
            telemetry.log.warning(
                "a promise is off" if alarm.kind == "risk" else "scores drift",
                question=alarm.question,
                promise=str(alarm.promise or ""),
                seen=alarm.seen,
                errors=alarm.errors,
                evidence=alarm.evidence,
            )
    telemetry.promises(in_force, drifting)


def _fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.endswith(".writing"))
        stats = [(path.name, path.stat()) for path in files]
    except OSError:
        return ()
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
