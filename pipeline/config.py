"""Configuration: `WEIR_…` variables and one `weir.toml`, read here and nowhere else.

`WEIR_KAFKA_SERVERS` sets `servers` in the section `[kafka]`; variables go before the file.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from policies.notation import Share
from workers.spec import REMOTE_DEADLINE_S, TIDY_S

#: Where the repository or the installed package has its own policies and bundled model.
_HOUSE = Path(__file__).resolve().parent.parent
SHIPPED_POLICIES = _HOUSE / "policies"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Kafka(_Section):
    """How to reach Kafka."""

    servers: str = "localhost:9092"
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None
    group: str = "weir"
    #: Put before every topic's and group's name; what is inside the records leaves it out.
    topic_prefix: str = ""
    #: True on every real broker; False on the embedded one, which has no transactions.
    transactions: bool = True
    partitions: Annotated[int, Field(ge=1)] = 12
    replication: Annotated[int, Field(ge=1)] = 1
    session_s: Annotated[float, Field(gt=0)] = 45.0
    max_in_flight: Annotated[int, Field(ge=1)] = 1024
    #: A commit that takes longer ends the process: its successor finds out what became of it.
    commit_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    #: How long kept decisions, verdicts, tickets and reviews are readable.
    retention_days: Annotated[int, Field(ge=1)] = 90


class Redis(_Section):
    """How to reach Redis."""

    url: SecretStr = SecretStr("redis://localhost:6379/0")


class Store(_Section):
    """Where media lie: `s3://…` by any endpoint, and one folder for `file:` and relative references."""

    folder: Path | None = None
    #: Where `weir send` puts media and what `weir doctor` tries: `s3://BUCKET/PREFIX`, or a folder below the store's.
    uploads: str = ""
    endpoint: str | None = None
    region: str = "us-east-1"
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None


class Media(_Section):
    """Bounds on what is fetched and decoded."""

    max_bytes: int = 25_000_000
    max_pixels: int = 50_000_000
    max_frames: int = 8
    max_media: int = 10
    fetch_timeout_s: float = 10.0
    #: How long an upload may wait for its media before a decision says that they could not be had.
    fetch_deadline_s: float = 120.0
    #: Whether text in pictures is read (the extra `ocr`), quoted in prompts, and judged by policies on captions.
    read_text: bool = False


class PoolSettings(_Section):
    """Ray and its actors."""

    #: Of the Ray to join; without one, and without Ray's own variable, a local one is started.
    address: str | None = Field(default_factory=lambda: os.environ.get("RAY_ADDRESS") or None)  # noqa: TID251 -- this is the file that may
    namespace: str = "weir"
    num_gpus: float = 0.0
    classifiers_min: Annotated[int, Field(ge=1)] = 1
    classifiers_max: Annotated[int, Field(ge=1)] = 1
    preparers_min: Annotated[int, Field(ge=1)] = 1
    preparers_max: Annotated[int, Field(ge=1)] = 2
    batch: Annotated[int, Field(ge=1)] = 32
    #: CPU threads of each classifier; all cores, shared out, where it is not set.
    threads: Annotated[int, Field(ge=1)] | None = None
    call_timeout_s: float = 60.0
    idle_s: float = 600.0


class ClassifierSettings(_Section):
    """One `[[classifiers]]` entry; their order is the cascade."""

    name: str = "bundled"
    #: A hub name, a folder, `bundled`, or `stub`.
    model: str = "bundled"
    kind: Literal[
        "generative", "contrastive", "image", "text", "guard", "remote", "gemini", "stub"
    ] = "generative"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "auto"
    reads: tuple[Literal["image", "caption"], ...] = ("image", "caption")
    policies: tuple[str, ...] | None = None
    #: A plain model's label -> policy.
    labels: dict[str, str] = Field(default_factory=dict)
    #: Further settings of the kind: endpoint, dialect, budget, ….
    options: dict[str, Any] = Field(default_factory=dict)
    rationales: bool = True


class Stream(_Section):
    """How the upload consumer works."""

    #: How long a decision waits for its rationale before it goes without.
    rationale_wait_s: Annotated[float, Field(ge=0)] = 20.0
    #: How often an upload whose media or classifier were away is scored again before a person looks at it.
    max_rescores: Annotated[int, Field(ge=1)] = 5


class Shadow(_Section):
    """Policies or classifiers that decide beside those in force, are recorded, and never act; without any, none do."""

    #: A folder of policies; without one, those in force.
    policies: Path | None = None
    #: Classifiers like `[[classifiers]]`; without any, those in force.
    classifiers: tuple[ClassifierSettings, ...] = ()
    #: The share of contents that it looks at, like 5%.
    rollout: Share = 1.0

    @property
    def on(self) -> bool:
        """Return whether anything decides in the shadow."""
        return self.policies is not None or bool(self.classifiers)


class Console(_Section):
    """The console for people."""

    #: Accounts and roles, as `weir people add` writes them.
    people: Path = Path("people.yaml")
    #: Whoever opens `/welcome?token=…` with this is signed in with every role; on the own machine only.
    invitation: SecretStr | None = None
    #: Share of jobs at which the model's opinion is hidden, to measure how much it sways people.
    blind: Annotated[float, Field(ge=0, le=1)] = 0.0
    #: Share of claims that mix in an item whose right answers are known, as a lead said by `weir queue golden`.
    golden: Annotated[float, Field(ge=0, le=1)] = 0.0
    #: How long a job stays somebody's whose page is silent; an open page renews it.
    lease_s: Annotated[float, Field(ge=10)] = 120.0
    session_h: Annotated[float, Field(gt=0)] = 8.0
    #: Where people reach the console, for a provider to send them back to; without it, what their browser says.
    url: str = ""


class Oidc(_Section):
    """Sign-in by an OpenID Connect provider; without an issuer there is none."""

    issuer: str = ""
    client_id: str = ""
    client_secret: SecretStr | None = None
    scopes: str = "openid profile"
    #: The claim that names a person for good, and the one that lists what they are.
    identity: str = "sub"
    claim: str = "groups"
    #: A value of that claim -> a role; without any, its values are the roles' own names.
    roles: dict[str, str] = Field(default_factory=dict)
    #: What the button says: sign in with ….
    title: str = "your organisation"


class Telemetry(_Section):
    """Logs and metrics."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    metrics_port: int | None = None


class Settings(BaseSettings):
    """Everything that can be configured."""

    model_config = SettingsConfigDict(
        env_prefix="WEIR_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="forbid",
        frozen=True,
    )

    #: The name of this pipeline process: its transactional id and group instance id come from it.
    instance: str = Field(default_factory=lambda: f"weir-{socket.gethostname()}")
    policies: Path = SHIPPED_POLICIES
    calibrations: Path = _HOUSE / "workers" / "mini" / "calibrations"
    #: Where uploads, decisions and verdicts are archived: a folder, or `s3://BUCKET/PREFIX` at the store's endpoint.
    archive: str = "archive"
    #: Whether uploads are archived, too: captions and where media lie, which a changed wording is scored on again.
    archive_uploads: bool = True
    #: How long a record waits at most until it is in the archive; the shorter, the more and smaller its files.
    archive_wait_s: Annotated[float, Field(gt=0)] = 60.0
    kafka: Kafka = Kafka()
    redis: Redis = Redis()
    store: Store = Store()
    media: Media = Media()
    pool: PoolSettings = PoolSettings()
    stream: Stream = Stream()
    shadow: Shadow = Shadow()
    console: Console = Console()
    oidc: Oidc = Oidc()
    telemetry: Telemetry = Telemetry()
    classifiers: tuple[ClassifierSettings, ...] = (ClassifierSettings(),)

    @model_validator(mode="after")
    def _deadlines_come_first(self) -> Self:
        """Refuse a remote classifier whose worker would be ended as hung before its own deadline."""
        for entry in (*self.classifiers, *self.shadow.classifiers):
            if entry.kind not in {"remote", "gemini"}:
                continue
            told = entry.options.get("deadline_s", REMOTE_DEADLINE_S)
            if (
                not isinstance(told, int | float)
                or not 0 < told < self.pool.call_timeout_s - TIDY_S
            ):
                raise ValueError(
                    f"classifier {entry.name!r}: its option deadline_s is {told!r}; it must be a number of seconds "
                    f"more than {TIDY_S:g} below pool.call_timeout_s ({self.pool.call_timeout_s:g}), "
                    "or its worker is ended as hung before it can say that the endpoint is away"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments go before variables, variables before the file."""
        del dotenv_settings, file_secret_settings
        path = os.environ.get("WEIR_CONFIG", "weir.toml")  # noqa: TID251 -- this is the file that may
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(path))


def environment() -> dict[str, str]:
    """Return a copy of the environment, for the programs that we start."""
    return dict(os.environ)  # noqa: TID251 -- this is the file that may


def adopt(variables: Mapping[str, str]) -> None:
    """Put variables into the environment of this process, where settings made later find them."""
    os.environ.update(variables)  # noqa: TID251 -- this is the file that may
