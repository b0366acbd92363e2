"""What the console's routes share: the desk, the shelf in Redis, the accounts, the media store."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from secrets import token_hex
from typing import Final

from dashboards.console.appealed import Past
from dashboards.console.exposure import Clock
from dashboards.console.neighbours import Neighbours
from dashboards.console.oidc import Provider
from dashboards.console.wishes import Wishes
from pipeline import kafka
from pipeline.audit import audit_record
from pipeline.config import Settings
from pipeline.desk import Desk, Rules, open_desk
from pipeline.messages import PEOPLE
from pipeline.people import ROLES, Account, Accounts
from pipeline.redis import Shelf
from pipeline.specs import access_of
from policies.schema import PolicySet
from workers.bounds import Bounds
from workers.store import Store, open_stores

#: Whom an invitation signs in.
GUEST: Final = "demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Everything that a request needs."""

    desk: Desk
    shelf: Shelf
    accounts: Accounts
    store: Store
    bounds: Bounds = Bounds()  # noqa: RUF009 -- frozen
    session: timedelta = timedelta(hours=8)
    blind: float = 0.0
    invitation: str | None = None
    oidc: Provider | None = None
    #: Where people reach the console, where that is not what their browser says.
    url: str = ""
    #: The policy set of a digest, as it once was.
    past: Callable[[str], PolicySet | None] = lambda _: None
    #: How people's settings are read from the log.
    told: Callable[[], list[bytes]] = list
    wishes: Wishes = field(init=False)
    clock: Clock = field(init=False)
    neighbours: Neighbours = field(init=False)
    secret: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Every process of the console signs with the same secret, which is made by the first.
        secret = self.shelf.put_first("secret", token_hex(32)).encode()
        object.__setattr__(self, "secret", secret)
        object.__setattr__(self, "wishes", Wishes(self.shelf, self.desk.log, self.told))
        object.__setattr__(self, "clock", Clock(self.desk, self.shelf))
        object.__setattr__(self, "neighbours", Neighbours(self.desk, self.shelf))

    def know(self, person: str, account: Account) -> None:
        """Remember who somebody is whom a provider vouched for, so that they are seen among the others."""
        self.shelf.file("known", person, account.model_dump_json())

    def people(self) -> dict[str, Account]:
        """Return everybody of the file, and whoever a provider ever vouched for."""
        known = self.shelf.drawer("known")
        vouched = {name: Account.model_validate_json(said) for name, said in known.items()}
        return {**vouched, **self.accounts.all()}

    def audit(self, by: str, what: str, *, job_id: str | None = None, detail: str = "") -> None:
        """Write down who saw or did something; what cannot be written down is not done."""
        self.desk.log.place([audit_record(by, what, job_id=job_id, detail=detail)])

    def close(self) -> None:
        """Let go of the connections."""
        self.desk.close()
        self.shelf.close()


def open_site(settings: Settings) -> Site:
    """Return the site of a configuration.

    Raises:
        PolicyError: the policies cannot be read.
        RefusedError: sign-in by a provider is set up wrongly.
    """
    rules = Rules(lease=timedelta(seconds=settings.console.lease_s), golden=settings.console.golden)
    desk = open_desk(settings, rules)
    invitation = settings.console.invitation
    return Site(
        desk=replace(desk, policies=_in_turn(desk.policies)),
        shelf=Shelf(settings.redis.url.get_secret_value()),
        accounts=Accounts(settings.console.people, _guests(desk) if invitation else None),
        store=open_stores(access_of(settings)),
        bounds=Bounds(
            max_bytes=settings.media.max_bytes,
            max_pixels=settings.media.max_pixels,
            max_frames=settings.media.max_frames,
            max_media=settings.media.max_media,
            fetch_timeout_s=settings.media.fetch_timeout_s,
        ),
        session=timedelta(hours=settings.console.session_h),
        blind=settings.console.blind,
        invitation=invitation.get_secret_value() if invitation else None,
        oidc=Provider(settings.oidc) if settings.oidc.issuer else None,
        url=settings.console.url.rstrip("/"),
        past=Past(settings.kafka),
        told=lambda: [r.value for r in kafka.read(settings.kafka, [PEOPLE]) if r.value],
    )


def _guests(desk: Desk) -> dict[str, Account]:
    """Return the account of whoever starts the console on their own machine: they may do everything."""
    queues = desk.queues.values()
    languages = {language for queue in queues for language in queue.languages} | {"en"}
    skills = {skill for queue in queues for skill in queue.skills}
    sealed = tuple(name for name, queue in desk.queues.items() if queue.sealed)
    return {
        GUEST: Account(
            name="Demo",
            roles=ROLES,
            languages=tuple(sorted(languages)),
            skills=tuple(sorted(skills)),
            sealed=sealed,
        )
    }


def _in_turn(read: Callable[[], PolicySet]) -> Callable[[], PolicySet]:
    """Return a reader of policies for many threads; a folder under watch is made for one."""
    lock = threading.Lock()

    def current() -> PolicySet:
        with lock:
            return read()

    return current
