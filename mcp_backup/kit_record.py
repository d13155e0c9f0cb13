"""What this machine remembers of its last recovery kit: when, and which key. Never a password.

    <state>/recovery-kit.json    {"version":1,"made":"…","key_id":"…","location":"…"}

It is a reminder for `doctor`, and losing it costs nothing but another kit.
"""

import json
from datetime import datetime
from pathlib import Path

from anyio import to_thread
from msgspec import Struct

from mcp_backup.durable import write_durably
from mcp_backup.engine import Engine
from mcp_backup.record import asdict
from mcp_backup.verbs_upkeep import Diagnosis

_NAME = "recovery-kit.json"
_VERSION = 1
_MAX_BYTES = 64 << 10
_MAKE = "Run `mcp-backup key recovery-kit --out FILE`, print it, and keep the page elsewhere."


class KitRecord(Struct, frozen=True):
    """The last kit: when it was made, whose password is on it, and for which location."""

    made: datetime
    key_id: str
    location: str


def save_record(state: Path, record: KitRecord) -> None:
    """Remember the kit. Blocks; raises `OSError`."""
    document = asdict(record) | {"version": _VERSION, "made": record.made.isoformat()}
    write_durably(state / _NAME, json.dumps(document).encode() + b"\n")


def load_record(state: Path) -> KitRecord | None:
    """Return what is remembered; None where there is nothing, or nothing that can be read."""
    try:
        with (state / _NAME).open("rb") as file:
            return decode_record(file.read(_MAX_BYTES))
    except OSError:
        return None


def decode_record(data: bytes) -> KitRecord | None:
    """Parse a record; None where it is none: the kit has to be made again, and that is all."""
    try:
        document = json.loads(data)
        made, key_id = datetime.fromisoformat(document["made"]), document["key_id"]
        location, version = document["location"], document["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    sound = version == _VERSION and isinstance(key_id, str) and isinstance(location, str)
    return KitRecord(made, key_id, location) if sound and made.tzinfo else None


async def kit_diagnosis(engine: Engine) -> Diagnosis:
    """Say whether there is a recovery kit that still opens this repository, as far as we know."""
    store = engine.repository.store
    record = await to_thread.run_sync(load_record, engine.state)
    if record is None:
        return Diagnosis(
            "warning", "recovery kit", "none was made on this machine, by what it remembers", _MAKE
        )
    made = f"made on {record.made:%Y-%m-%d}"
    if f"keys/{record.key_id}" not in await store.objects("keys/"):
        told = f"the one {made} holds the password of a key that was removed"
        return Diagnosis("warning", "recovery kit", told, f"{_MAKE} Destroy the old one.")
    if record.location != store.location:
        told = f"the one {made} is for {record.location}, and the repository is {store.location}"
        return Diagnosis("warning", "recovery kit", told, _MAKE)
    return Diagnosis("ok", "recovery kit", f"{made}, and its password still opens the repository")
