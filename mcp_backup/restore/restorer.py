"""The restorer: plan, approve, restore, undo, recover; what the engine calls of this room.

    plan → confirm → stage → examine → keep an undo point → exchange → verify → result

Staging comes before the undo point, so that the undo point is taken as late as can be. That of a
database is taken ahead, while its copy is examined or staged, and counts if nothing is written
until the exchange. A restore to scratch ends after the examination.
"""

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic

import anyio
from anyio import to_thread
from msgspec.structs import replace

from mcp_backup.errors import PlanExpired
from mcp_backup.manifest import SourceRecord
from mcp_backup.progress import Progress
from mcp_backup.repository.repository import Repository
from mcp_backup.restore import undo as undoing
from mcp_backup.restore.approval import PlanStore, Stored, new_plan_id
from mcp_backup.restore.examining import Means, Staged, is_proven, refuse, stage_source
from mcp_backup.restore.journal import (
    Begun,
    Journal,
    Record,
    Signature,
    Target,
    fsync_tree,
    restore_id,
)
from mcp_backup.restore.plan import Choice, Origin, choose, live_file
from mcp_backup.restore.planner import plan_original, plan_scratch
from mcp_backup.restore.recovery import Recovered, recover, recover_in_turn
from mcp_backup.restore.rules import Rules
from mcp_backup.restore.scratch import restore_to_scratch, sweep_scratch
from mcp_backup.restore.seen import look
from mcp_backup.restore.signatures import DATABASE, of_staged
from mcp_backup.restore.stager import subtree, survey, worded
from mcp_backup.restore.swap import Swap
from mcp_backup.restore.turn import turn
from mcp_backup.restore.undo_plan import UndoPlans
from mcp_backup.restore.workspace import RESTORES
from mcp_backup.sources import capture
from mcp_backup.sources.confined import refuse_links
from mcp_backup.sources.source import PIECEWISE, SERVED, Component, SourceSpec
from mcp_backup.tasks import task_group
from mcp_backup.verbs_restores import (
    RestoredTarget,
    RestorePlan,
    RestoreReport,
    RestoreRequest,
    UndoPoint,
    UndoReport,
)

_WRITTEN_EVERY = 0.2  # seconds


class Restorer:
    """Restores under one state directory. `undo` and `recover` need no repository."""

    def __init__(self, rules: Rules, specs: Sequence[SourceSpec]) -> None:
        """Restore to where the settings say that sources are (`specs`)."""
        self._rules = rules
        self._specs = tuple(specs)
        self._plans = PlanStore(rules.state, rules.now)
        self._restores = rules.state / RESTORES

    async def plan(
        self, repository: Repository, origin: Origin, request: RestoreRequest
    ) -> RestorePlan:
        """Work out what a restore would do, and keep that as a plan. Touches nothing live.

        Raises:
            UnknownSource, UsageError, RestoreError: see `plan.choose`.
            StagingRejected: the backup's tree is hostile.
        """
        rules = self._rules
        chosen = choose(origin, request, self._specs)
        scratch = request.target == "scratch"
        if scratch:
            found = await plan_scratch(repository, origin, chosen.choices, rules.scratch)
        else:
            found = await plan_original(repository, origin, chosen.choices, rules.state)
        now = rules.now()
        plan = RestorePlan(
            plan_id=new_plan_id(rules.random),
            backup_id=origin.backup_id,
            snapshot_id=origin.snapshot_id.hex(),
            created=now,
            expires=now + timedelta(minutes=rules.plan_minutes),
            target=request.target,
            targets=found.targets,
            scratch=_real(rules.scratch) if scratch else "",
            needed_bytes=found.needed_bytes,
            free_bytes=found.free_bytes,
            approval="none" if scratch else rules.confirmation,
            approved=scratch or rules.confirmation == "token",
            warnings=(*chosen.warnings, *found.warnings),
        )
        await self._plans.add(Stored(plan, found.seen))
        return plan

    async def shown(self, plan_id: str) -> RestorePlan:
        """Return a plan made before, with whether it has been approved."""
        return (await self._plans.find(plan_id)).plan

    async def approve(self, plan_id: str, by: str) -> RestorePlan:
        """Approve a plan in a person's name."""
        return await self._plans.approve(plan_id, by)

    async def restore(
        self, plan_id: str, origin: Origin, means: Means, *, consent: bool = False
    ) -> RestoreReport:
        """Carry out a plan. `origin` is the backup that it names.

        A cancel before the exchange leaves live data alone, and the plan used up; one that comes
        later is delivered after the exchange is complete or undone.

        Raises:
            UnknownPlan, PlanExpired, ApprovalRequired: not this plan, or not now.
            StagingRejected, IntegrityError: the backup is not what was captured.
            TargetBusy: a process holds a live file, or another restore is running.
            RolledBack, RestoreInterrupted: see `swap`.
        """
        began = monotonic()
        stored = await self._plans.ready(plan_id, consent=consent)
        choices = self._choices(stored.plan, origin)
        identity = restore_id(self._rules.now(), self._rules.random)
        if stored.plan.target == "scratch":
            await self._plans.use_up(plan_id, identity)
            scratch = Path(stored.plan.scratch)
            targets = await restore_to_scratch(means, origin, choices, scratch, identity)
        else:
            targets = await self._restore_original(stored, origin, choices, means, identity)
        return RestoreReport(
            restore_id=identity,
            plan_id=plan_id,
            backup_id=origin.backup_id,
            status="staged" if stored.plan.target == "scratch" else "restored",
            targets=targets,
            undo_id="" if stored.plan.target == "scratch" else identity,
            duration_seconds=round(monotonic() - began, 3),
        )

    async def undo(self, identity: str, *, consent: bool = False) -> UndoReport:
        """Put back what was live before a restore; see `undo.undo`.

        Raises:
            ApprovalRequired: by the rules a person must agree, and none has; names the plan.
            UnknownPlan, RestoreError, TargetBusy, RolledBack: see `undo.undo`.
        """
        rules, began = self._rules, monotonic()
        async with turn(rules.state):
            await self._recover_in_turn()
            undone = await to_thread.run_sync(undoing.undoable, self._restores, identity)
            if not consent and rules.confirmation != "token":
                await UndoPlans(self._plans, rules).agreed(undone)
            record = await undoing.undo(
                self._restores, identity, rules.now, rules.random, rules.step
            )
            await self._prune()
        return UndoReport(identity, _restored(record), round(monotonic() - began, 3))

    async def undo_points(self) -> list[UndoPoint]:
        """Return what can be undone, newest first."""
        return await undoing.undo_points(self._restores)

    async def recover(self) -> list[Recovered]:
        """Finish or put right what crashes left; see `recovery.recover`."""
        rules = self._rules
        await to_thread.run_sync(sweep_scratch, rules.scratch)
        return await recover(rules.state, rules.now, rules.step, rules.settle_seconds)

    async def _restore_original(
        self,
        stored: Stored,
        origin: Origin,
        choices: Sequence[Choice],
        means: Means,
        identity: str,
    ) -> tuple[RestoredTarget, ...]:
        rules = self._rules
        async with turn(rules.state):
            await self._recover_in_turn()
            await self._still_as_seen(stored, origin, choices, means.repository)
            await self._plans.use_up(stored.plan.plan_id, identity)
            begun = _begun(stored, choices, identity, rules.now())
            journal = await to_thread.run_sync(
                Journal.create, self._restores, begun, rules.now, rules.step
            )
            swap = Swap(journal)
            try:
                await swap.prepared(await self._stage(swap, origin, choices, means))
                await means.listener(Progress("swap", identity, 0, len(choices)))
                await swap.run()
            except BaseException:
                await swap.abandon()
                raise
            record = await swap.read()
            await self._prune()
        return _restored(record)

    async def _stage(
        self, swap: Swap, origin: Origin, choices: Sequence[Choice], means: Means
    ) -> dict[str, Signature]:
        """Stage and examine every target; return the signatures of what will go live."""
        record = await swap.read()
        new: dict[str, Signature] = {}
        for choice, target in zip(choices, record.begun.targets, strict=True):
            self._rules.step(f"stage {target.key}")
            directory = record.staged(target)
            await to_thread.run_sync(refuse_links, record.directory, directory)
            near = means.beside(live_file(choice))
            staged = await self._staged(swap, target, near, origin, choice.record)
            refuse(choice.record, staged)
            if target.spec.kind in SERVED:
                await capture.prepare(target.spec, directory, choice.record.evidence)
            if staged.content:
                new[target.key] = {DATABASE: staged.content}
            else:
                new[target.key] = await of_staged(target.spec, directory)
        return new

    async def _staged(
        self, swap: Swap, target: Target, means: Means, origin: Origin, record: SourceRecord
    ) -> Staged:
        """Stage and examine one target; meanwhile make it durable, and keep what is live.

        That is kept while the copy is examined, for which one processor is enough, or else while
        it is staged.
        """
        directory, staging = (await swap.read()).staged(target), anyio.CancelScope()

        async def meanwhile() -> None:
            staging.cancel()
            self._rules.step(f"fsync staged {target.key}")
            if not is_proven(record):
                tasks.start_soon(swap.keep_ahead, target)
            await to_thread.run_sync(_written, directory)

        async with task_group() as tasks:
            if is_proven(record):
                tasks.start_soon(swap.keep_ahead, target)
            if target.spec.component is Component.DATABASES:  # few files, and large
                tasks.start_soon(_write_early, directory, staging)
            return await stage_source(means, origin.tree, record, directory, meanwhile)

    def _choices(self, plan: RestorePlan, origin: Origin) -> tuple[Choice, ...]:
        """Find a plan's targets in the backup and in the settings again."""
        assert plan.snapshot_id == origin.snapshot_id.hex()
        chosen = choose(origin, RestoreRequest(target=plan.target), self._specs)
        found = {choice.key: choice for choice in chosen.choices}
        keys = [f"{target.component}/{target.source}" for target in plan.targets]
        for key in keys:
            if key not in found:
                raise PlanExpired(
                    f"the settings have changed since {plan.plan_id} was made: no place for {key}",
                    hint="Plan the restore again. Nothing was touched.",
                )
        return tuple(found[key] for key in keys)

    async def _still_as_seen(
        self, stored: Stored, origin: Origin, choices: Sequence[Choice], repository: Repository
    ) -> None:
        for choice in choices:
            assert choice.spec is not None
            paths: Sequence[str] = ()
            if choice.spec.kind in PIECEWISE:  # what else there is, is looked at whole
                tree = await subtree(repository, origin.tree, choice.record.tree)
                paths = (await survey(repository, tree)).paths
            now = await look(choice.spec, paths)
            if why := stored.seen[choice.key].differs(now):
                raise PlanExpired(
                    f"the live file changed since the plan was made: {choice.key}: {why}",
                    hint="Plan the restore again, and look at what it says now. "
                    "Nothing was touched.",
                )

    async def _recover_in_turn(self) -> None:
        rules = self._rules
        await recover_in_turn(self._restores, rules.now, rules.step, rules.settle_seconds)

    async def _prune(self) -> None:
        rules = self._rules
        await undoing.prune(self._restores, rules.undo_keep, rules.now, rules.step)


async def _write_early(directory: Path, staging: anyio.CancelScope) -> None:
    """Have the disk write what comes until `staging` is over, so that its end waits for little."""
    with staging:
        while True:
            await anyio.sleep(_WRITTEN_EVERY)
            await to_thread.run_sync(_written, directory)


def _written(directory: Path) -> None:
    """Have the disk write what is staged by now; what it refuses is told once, and so not lost."""
    if directory.exists():
        with worded(directory):
            fsync_tree(directory)


def _real(directory: Path) -> str:
    """Return where a directory is; a link put in its place after the plan is not followed."""
    return os.path.realpath(directory)


def _begun(stored: Stored, choices: Sequence[Choice], identity: str, started: datetime) -> Begun:
    plan = stored.plan
    sizes = {f"{target.component}/{target.source}": target.backup_bytes for target in plan.targets}
    targets = [
        Target(replace(choice.spec, real=stored.seen[choice.key].real), sizes[choice.key])
        for choice in choices
        if choice.spec
    ]
    return Begun(
        restore_id=identity,
        purpose="restore",
        plan_id=plan.plan_id,
        backup_id=plan.backup_id,
        snapshot_id=plan.snapshot_id,
        started=started,
        targets=tuple(targets),
    )


def _restored(record: Record) -> tuple[RestoredTarget, ...]:
    return tuple(
        RestoredTarget(
            target.spec.name,
            target.spec.component,
            target.spec.path,
            target.size,
            record.exchanged[target.key],
        )
        for target in record.begun.targets
    )
