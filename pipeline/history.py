"""Policy sets that were ever live: read from Kafka by digest, and put back into a policy folder."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.config import Kafka
from pipeline.errors import RefusedError
from pipeline.kafka import read
from pipeline.messages import POLICIES
from policies.errors import PolicyError
from policies.folder import read_policies
from policies.schema import PolicySet

#: What is put behind the name of a file that a rollback takes out of force.
ASIDE = ".before-rollback"


class Published(BaseModel):
    """One policy set as it stands on `moderation.policies`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: str
    files: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a rollback did to the folder."""

    written: tuple[str, ...]
    set_aside: tuple[str, ...]


def published(settings: Kafka, digest: str) -> Published:
    """Return the set with this digest, or the one whose digest begins like this.

    Raises:
        RefusedError: no set, or more than one, was ever live under it.
    """
    found: dict[str, Published] = {}
    for record in read(settings, [POLICIES]):
        key = (record.key or b"").decode(errors="replace")
        if key.startswith(digest) and record.value is not None:
            try:
                found[key] = Published.model_validate_json(record.value)
            except ValidationError:
                continue  # written by no version of ours
    if not found:
        raise RefusedError(
            f"no policy set {digest} was ever live; decisions name theirs in policy_set"
        )
    if len(found) > 1:
        raise RefusedError(f"{digest} may mean {', '.join(sorted(found))}: write more of it")
    return next(iter(found.values()))


def unpacked(kept: Published, folder: Path) -> PolicySet:
    """Write a set's files into an empty folder and return what they say.

    Raises:
        RefusedError: the files do not make the set that the digest names.
    """
    for name, text in kept.files.items():
        path = folder / name
        if path.parent != folder:
            raise RefusedError(f"{kept.digest} names a file outside its folder: {name}")
        path.write_text(text, encoding="utf-8")
    try:
        policies = read_policies(folder)
    except PolicyError as error:
        raise RefusedError(
            f"this version does not read the files of {kept.digest}:\n{error}"
        ) from error
    if policies.digest != kept.digest:
        raise RefusedError(
            f"the files of {kept.digest} make {policies.digest} in this version of Weir: "
            "compare them with weir policy diff before you use them"
        )
    return policies


def put_back(kept: Published, folder: Path) -> Change:
    """Write a set's files into the policy folder; policies that it did not have are set aside.

    Raises:
        RefusedError: the files do not make the set that the digest names; the folder is as it was.
    """
    # In the same folder, so that each file takes its place at once.
    with tempfile.TemporaryDirectory(prefix=".rollback-", dir=folder) as beside:
        unpacked(kept, Path(beside))
        extra = [path for path in sorted(folder.glob("*.yaml")) if path.name not in kept.files]
        for path in extra:
            shutil.move(path, path.with_name(path.name + ASIDE))
        for name in kept.files:
            (Path(beside) / name).replace(folder / name)
    return Change(written=tuple(sorted(kept.files)), set_aside=tuple(path.name for path in extra))
