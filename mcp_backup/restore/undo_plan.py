"""The plan of an undo: an undo changes live data as a restore does, so a person agrees to it too.

Nobody asks for such a plan. An undo without consent makes one, or finds the one it made before,
and says which plan waits for approval; the same call again, once it is approved, carries it out.
"""

from datetime import UTC, datetime, timedelta

from anyio import to_thread
from msgspec import Struct

from mcp_backup.errors import ApprovalRequired
from mcp_backup.restore.approval import PlanStore, Stored, new_plan_id
from mcp_backup.restore.journal import UNDO, Record, Target
from mcp_backup.restore.planner import free_bytes, short_of
from mcp_backup.restore.rules import Rules
from mcp_backup.restore.seen import Seen, look
from mcp_backup.restore.undo import size_of
from mcp_backup.sources import capture
from mcp_backup.sources.source import Holder
from mcp_backup.verbs_restores import PlannedTarget, RestorePlan


class UndoPlans(Struct, frozen=True):
    """The plans of undos, among all plans."""

    plans: PlanStore
    rules: Rules

    async def agreed(self, record: Record) -> None:
        """Return when a person has approved the undo of this restore; its plan is then used up.

        Raises:
            ApprovalRequired: nobody has, or live data are not as they were then. Names the plan.
        """
        identity = record.begun.restore_id
        seen = {target.key: await _look(record, target) for target in record.begun.targets}
        waiting: RestorePlan | None = None
        for stored in await self.plans.of_undo(identity):
            if any(stored.seen[key].differs(now) for key, now in seen.items()):
                continue
            if stored.plan.approved:
                await self.plans.use_up(stored.plan.plan_id, identity)
                return
            waiting = stored.plan
        if waiting is None:
            waiting = await self._plan(record, seen)
            await self.plans.add(Stored(waiting, seen))
        raise ApprovalRequired(waiting.plan_id, identity)

    async def _plan(self, record: Record, seen: dict[str, Seen]) -> RestorePlan:
        now = self.rules.now()
        targets = [
            await _planned(record, target, seen[target.key]) for target in record.begun.targets
        ]
        needed = sum(target.live_bytes for target in targets)
        free = await to_thread.run_sync(free_bytes, self.rules.state)
        return RestorePlan(
            plan_id=new_plan_id(self.rules.random),
            backup_id=record.begun.backup_id,
            snapshot_id=record.begun.snapshot_id,
            created=now,
            expires=now + timedelta(minutes=self.rules.plan_minutes),
            target="original",
            targets=tuple(targets),
            scratch="",
            needed_bytes=needed,
            free_bytes=free,
            approval=self.rules.confirmation,
            approved=False,
            warnings=short_of(needed, free),
            undoes=record.begun.restore_id,
        )


async def _look(record: Record, target: Target) -> Seen:
    return await look(target.spec, tuple(record.new[target.key]))


async def _planned(record: Record, target: Target, seen: Seen) -> PlannedTarget:
    holders: list[Holder] = []
    if seen.state != "absent":
        holders = await capture.holders(target.spec)
    return PlannedTarget(
        source=target.spec.name,
        component=target.spec.component,
        kind=target.spec.kind,
        original=target.spec.path,
        live_state=seen.state,
        live_bytes=seen.size,
        backup_bytes=await to_thread.run_sync(size_of, record.directory / UNDO / target.key),
        action="create" if seen.state == "absent" else "replace",
        holders=tuple(holders),
        lost=_lost(record, seen),
    )


def _lost(record: Record, seen: Seen) -> str:
    """Say what was written since the restore began, as far as the live file's time tells."""
    started = record.begun.started
    if seen.changed_ns <= started.timestamp() * 1e9:
        return ""
    changed = datetime.fromtimestamp(seen.changed_ns // 10**9, UTC)
    return (
        f"what the restore brought back, and changes since {started:%Y-%m-%d %H:%M:%S} UTC, "
        f"would be replaced: last changed {changed:%Y-%m-%d %H:%M:%S} UTC"
    )
