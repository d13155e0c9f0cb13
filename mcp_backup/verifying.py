"""Verifying: one backup against what its sources saw, as deep as is asked for."""

from time import monotonic
from typing import TYPE_CHECKING

from mcp_backup.errors import UsageError
from mcp_backup.outcomes import bytes_of
from mcp_backup.progress import Listener
from mcp_backup.repository.locks import PATIENCE_SECONDS, locked
from mcp_backup.repository.pool import SEALING, sealing_pool
from mcp_backup.restore.verify import Verifier
from mcp_backup.restore.workspace import workspace
from mcp_backup.sources.capture import CAPTURING
from mcp_backup.verbs import Level, SourceFinding, VerifyReport
from mcp_backup.workers import forking

if TYPE_CHECKING:
    from mcp_backup.engine import Engine


async def verify(
    engine: "Engine", backup_id: str, level: Level, listener: Listener
) -> VerifyReport:
    """Verify one backup; see `Engine.verify`."""
    began = monotonic()
    async with forking(SEALING, *CAPTURING), locked(engine.repository, wait=PATIENCE_SECONDS):
        backup = await engine.catalog.find(backup_id)
        manifest = await engine.catalog.manifest(backup)
        if manifest is None:
            raise UsageError(
                f"snapshot {backup.backup_id} was made by another program, and holds no "
                "evidence to verify against",
                hint="Run `mcp-backup check --level data` to prove the whole repository.",
            )
        records = [record for record in manifest.sources if record.outcome != "failed"]
        findings: list[SourceFinding] = []
        async with (
            workspace(engine.settings.scratch) as scratch,
            sealing_pool(engine.repository.key) as pool,
        ):
            verifier = Verifier(engine.repository, pool, scratch / "verify", listener)
            for record in records:
                tree = await engine.catalog.tree(backup, record.tree)
                found = await verifier.verify(record, tree, level)
                findings += [SourceFinding.of(record.name, finding) for finding in found]
    return VerifyReport(
        backup_id=backup.backup_id,
        snapshot_id=backup.id.hex(),
        level=level,
        findings=tuple(findings),
        sources=tuple(record.name for record in records),
        read_bytes=bytes_of(records) if level is not Level.STRUCTURE else 0,
        duration_seconds=round(monotonic() - began, 3),
    )
