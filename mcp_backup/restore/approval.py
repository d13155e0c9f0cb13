"""Plans and their approval: files, so that a terminal can approve what a server planned.

    <state>/plans/<plan_id>.json        the plan and what it saw; written once
    <state>/plans/<plan_id>.approved    who approved it, when, and the SHA-256 of what they saw
    <state>/plans/<plan_id>.used        which restore used it up; exactly one can

A plan is bound to one snapshot, to a selection, and to each target as it was seen. What binds:

    every target    kind and path in the settings, and whether it was there
    databases       the file itself (device, inode), and whether it was damaged; not its rows
    file sets       the content, mode and type of every file that would be replaced

The undo of a restore is planned and approved in the same way (`undo_plan`).

A database that is in use changes with every second, and a plan that its next row voids could
never be carried out. So newer rows do not bind; the plan says that they would be lost, and the
undo point, taken at the last moment, keeps them. Another file under the same name, or one that
was sound and is damaged, does void the plan: the person approved something else.

Ids come from outside; none reaches a path before it has been matched.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from anyio import to_thread
from msgspec import Struct
from msgspec.structs import replace

from mcp_backup.durable import (
    create_durably,
    make_directory_durably,
    remove_durably,
    write_durably,
)
from mcp_backup.errors import ApprovalRequired, PlanExpired, UnknownPlan
from mcp_backup.record import asdict
from mcp_backup.restore.seen import Seen
from mcp_backup.sources.source import Component, Holder
from mcp_backup.verbs_restores import PlannedTarget, RestorePlan

_PLAN_ID = re.compile(r"plan_[0-9a-f]{12}")
_KEPT_FOR = timedelta(days=7)  # after its end: long enough to be told "expired", not "unknown"


class Stored(Struct, frozen=True):
    """A plan as stored. `seen` is keyed like targets: "databases/notes"."""

    plan: RestorePlan
    seen: Mapping[str, Seen]


class PlanStore:
    """The plans under one state directory. Several processes may use it at once."""

    def __init__(self, state: Path, now: Callable[[], datetime]) -> None:
        """Keep plans in `state`/plans."""
        self._directory = state / "plans"
        self._now = now

    async def add(self, stored: Stored) -> None:
        """Keep a plan; sweep out those that ended a week ago. A cancel leaves it or not."""
        await to_thread.run_sync(self._add, stored)

    async def find(self, plan_id: str) -> Stored:
        """Return a plan, expired or not; `approved` says whether a person has approved it.

        Raises:
            UnknownPlan: there is none of that id.
        """
        return await to_thread.run_sync(self._find, plan_id)

    async def approve(self, plan_id: str, by: str) -> RestorePlan:
        """Approve a plan; approving twice changes nothing. A cancel leaves it approved or not.

        Raises:
            UnknownPlan: there is none of that id.
            PlanExpired: it is too old, or was used.
        """
        return await to_thread.run_sync(self._approve, plan_id, by)

    async def ready(self, plan_id: str, *, consent: bool) -> Stored:
        """Return a plan that may be carried out now, as far as time and approval go.

        `consent` tells that a person has approved it at this very moment, at this door.

        Raises:
            UnknownPlan: there is none of that id.
            PlanExpired: it is too old, or was used.
            ApprovalRequired: nobody has approved it.
        """
        return await to_thread.run_sync(self._ready, plan_id, consent)

    async def of_undo(self, restore_id: str) -> list[Stored]:
        """Return the plans for the undo of a restore that could still be carried out."""
        return await to_thread.run_sync(self._of_undo, restore_id)

    async def use_up(self, plan_id: str, restore_id: str) -> None:
        """Use a plan up: of all processes that try, one succeeds.

        Raises:
            PlanExpired: it was used before.
        """
        await to_thread.run_sync(self._use_up, plan_id, restore_id)

    def _add(self, stored: Stored) -> None:
        make_directory_durably(self._directory)
        self._sweep()
        write_durably(self._path(stored.plan.plan_id, "json"), _encode(stored))

    def _find(self, plan_id: str) -> Stored:
        try:
            data = self._path(plan_id, "json").read_bytes()
            stored = _decode(data)
        except FileNotFoundError:
            raise _unknown(plan_id) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _unreadable(plan_id, error) from error
        approved = stored.plan.approval in ("none", "token")
        approved = approved or self._is_approved(plan_id, data)
        return replace(stored, plan=replace(stored.plan, approved=approved))

    def _is_approved(self, plan_id: str, data: bytes) -> bool:
        """Tell whether a person has approved exactly these bytes of a plan."""
        try:
            document = json.loads(self._path(plan_id, "approved").read_bytes())
        except (FileNotFoundError, ValueError, RecursionError):
            return False
        return isinstance(document, dict) and document.get("plan") == sha256(data).hexdigest()

    def _approve(self, plan_id: str, by: str) -> RestorePlan:
        stored = self._current(plan_id)
        if not stored.plan.approved:
            digest = sha256(self._path(plan_id, "json").read_bytes()).hexdigest()
            document = {"by": by, "at": self._now().isoformat(), "plan": digest}
            write_durably(self._path(plan_id, "approved"), json.dumps(document).encode())
        return replace(stored.plan, approved=True)

    def _ready(self, plan_id: str, consent: bool) -> Stored:
        stored = self._current(plan_id)
        if not (stored.plan.approved or consent):
            raise ApprovalRequired(plan_id, stored.plan.undoes)
        return stored

    def _of_undo(self, restore_id: str) -> list[Stored]:
        found = []
        for path in self._directory.glob("plan_*.json"):
            with suppress(UnknownPlan, PlanExpired):
                stored = self._current(path.stem)
                found += [stored] if stored.plan.undoes == restore_id else []
        return found

    def _current(self, plan_id: str) -> Stored:
        stored = self._find(plan_id)
        self._refuse_used(plan_id)
        if self._now() >= stored.plan.expires:
            raise PlanExpired(
                f"plan {plan_id} was good until {stored.plan.expires:%Y-%m-%d %H:%M} UTC",
                hint="Plan the restore again. Nothing was touched.",
            )
        return stored

    def _refuse_used(self, plan_id: str) -> None:
        try:
            used = json.loads(self._path(plan_id, "used").read_bytes())
        except FileNotFoundError:
            return
        except (ValueError, RecursionError) as error:
            raise _unreadable(plan_id, error) from error
        by = used.get("restore_id", "") if isinstance(used, dict) else ""
        raise PlanExpired(
            f"plan {plan_id} was used by {by or 'a restore'}; a plan is good for one restore",
            hint="Plan the restore again. Nothing was touched.",
        )

    def _use_up(self, plan_id: str, restore_id: str) -> None:
        document = {"restore_id": restore_id, "at": self._now().isoformat()}
        try:
            create_durably(self._path(plan_id, "used"), json.dumps(document).encode())
        except FileExistsError:
            self._refuse_used(plan_id)

    def _path(self, plan_id: str, suffix: str) -> Path:
        if _PLAN_ID.fullmatch(plan_id) is None:
            raise _unknown(plan_id)
        return self._directory / f"{plan_id}.{suffix}"

    def _sweep(self) -> None:
        for path in self._directory.glob("plan_*.json"):
            try:
                ended = self._find(path.stem).plan.expires + _KEPT_FOR < self._now()
            except (UnknownPlan, PlanExpired):
                continue  # not ours, or swept by another process
            if ended:
                for suffix in ("approved", "used", "json"):
                    remove_durably(self._path(path.stem, suffix))


def new_plan_id(random: Callable[[int], bytes]) -> str:
    """Return a fresh plan id: 12 random digits, so that one cannot be guessed from another."""
    return f"plan_{random(6).hex()}"


def _unreadable(plan_id: str, error: Exception) -> PlanExpired:
    return PlanExpired(
        f"plan {plan_id} cannot be read: {error!s:.200}",
        hint="Plan the restore again. Nothing was touched.",
    )


def _unknown(plan_id: str) -> UnknownPlan:
    return UnknownPlan(
        f"no plan has the id {plan_id!r:.80}",
        hint="Call restore_backup without plan_id to get a plan, and use the id it answers. "
        "Nothing was touched.",
    )


def _encode(stored: Stored) -> bytes:
    plan = asdict(stored.plan)
    plan["created"] = stored.plan.created.isoformat()
    plan["expires"] = stored.plan.expires.isoformat()
    seen = {key: asdict(value) for key, value in stored.seen.items()}
    return json.dumps({"plan": plan, "seen": seen}, indent=1).encode()


def _decode(data: bytes) -> Stored:
    document = json.loads(data)
    plan: dict[str, Any] = dict(document["plan"])
    plan["created"] = datetime.fromisoformat(plan["created"])
    plan["expires"] = datetime.fromisoformat(plan["expires"])
    plan["targets"] = tuple(_target(item) for item in plan["targets"])
    plan["warnings"] = tuple(plan["warnings"])
    if plan["created"].tzinfo is None or plan["expires"].tzinfo is None:
        raise ValueError("its times have no zone")
    seen = {key: Seen(**value) for key, value in document["seen"].items()}
    return Stored(RestorePlan(**plan), seen)


def _target(item: Mapping[str, Any]) -> PlannedTarget:
    fields = dict(item)
    fields["component"] = Component(fields["component"])
    fields["holders"] = tuple(Holder(**holder) for holder in fields["holders"])
    return PlannedTarget(**fields)
