"""The monitor's rounds: promises and calibrations held against what the archive has learned since."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Final

from pipeline import telemetry
from pipeline.answered import answers_in, moved
from pipeline.archive import Archive
from pipeline.calibration import Calibrations, read_alarms, write_alarms
from pipeline.config import Settings
from pipeline.errors import PipelineError
from pipeline.watching import Watched, watch

#: How often the monitor looks where it runs beside the pipeline.
EVERY_S: Final = 300.0


def go_round(settings: Settings, *, dry_run: bool = False) -> list[Watched]:
    """Return how every promise and every question's scores stand, and put the alarms beside the calibrations.

    Raises:
        PipelineError: the archive cannot be read.
        PipelineError: a calibration, or the file of alarms, cannot be read.
    """
    now = datetime.now(UTC)
    calibrations = list(Calibrations.load(settings.calibrations).by_words.values())
    if not calibrations:
        return []
    archive = Archive(settings.archive, settings.store)
    since = min(c.fitted_at for c in calibrations) - timedelta(days=1)
    before = read_alarms(settings.calibrations)
    found = watch(
        calibrations,
        answers_in(archive, since=since),
        moved(archive, calibrations, now=now),
        before=before,
        now=now,
    )
    alarms = [one.alarm for one in found if one.alarm is not None]
    if not dry_run and list(before) != alarms:
        write_alarms(settings.calibrations, alarms)
    return found


def run_monitor(settings: Settings, stop: threading.Event, *, every_s: float = EVERY_S) -> None:
    """Go round until told to stop; what cannot be read now is tried again."""
    telemetry.log.info("running", archive=settings.archive, every_s=every_s)
    while not stop.is_set():
        try:
            found = go_round(settings)
        except (PipelineError, OSError) as error:
            telemetry.log.error("the monitor cannot look", error=str(error))
        else:
            on = [one.calibration.question for one in found if one.alarm is not None]
            telemetry.log.info("looked", promises=len(found), alarms=on)
        stop.wait(every_s)
    telemetry.log.info("stopped")
