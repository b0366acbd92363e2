"""The audit log: who saw and did what, on a topic that is only ever written to."""

from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

from pipeline.messages import AUDIT, Id, Time, headers
from pipeline.records import Outgoing

#: What is done by somebody whom nobody knows (yet).
NOBODY: Final = "(nobody)"


class AuditEvent(BaseModel):
    """Somebody saw or did something."""

    model_config = ConfigDict(frozen=True, extra="allow")

    event_id: Id
    by: Id
    what: Id  # signed_in, refused, signed_out, viewed, revealed, answered, undone, …
    job_id: Id | None = None
    detail: str = ""
    address: str | None = None
    at: Time


def audit_record(
    by: str, what: str, *, job_id: str | None = None, detail: str = "", address: str | None = None
) -> Outgoing:
    """Return the record that somebody saw or did something just now."""
    event = AuditEvent(
        event_id=str(uuid4()),
        by=by or NOBODY,
        what=what,
        job_id=job_id,
        detail=detail[:500],
        address=address,
        at=datetime.now(UTC),
    )
    return Outgoing(
        topic=AUDIT,
        key=event.by.encode(),
        value=event.model_dump_json(exclude_none=True).encode(),
        headers=tuple(headers("audit", event.event_id)),
    )
