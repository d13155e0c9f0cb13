"""export, doctor: taking data out of the repository, and looking after all it depends on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from msgspec import Struct

from mcp_backup import terminal_reports
from mcp_backup.cli.backups import FINDINGS, BackupId, BackupIdFlag
from mcp_backup.cli.session import Session, session
from mcp_backup.doctor import diagnose
from mcp_backup.errors import BackupError
from mcp_backup.export import export_backup
from mcp_backup.verbs_upkeep import Diagnosis


class Diagnoses(Struct, frozen=True):
    """Everything `doctor` looked at."""

    ok: bool
    diagnoses: Sequence[Diagnosis]


def export(  # noqa: PLR0913 - one parameter per flag
    context: typer.Context,
    backup: BackupId = "latest",
    *,
    out: Annotated[Path, typer.Option(help="The file to write; it must not exist.")],
    backup_id: BackupIdFlag = "",
    source: Annotated[str, typer.Option(help="The database to export, for sql.")] = "",
    format: Annotated[
        Literal["sql", "tar"],
        typer.Option(help="sql: one database as text, proven by reloading it; tar: all."),
    ] = "tar",
) -> int:
    """Take a backup out of the repository, as SQL text or as a .tar.zst archive."""
    this = session(context)
    path = this.surroundings.cwd / out.expanduser()
    report = this.run(
        lambda engine, listener: export_backup(
            engine, backup_id or backup, source, path, listener, wanted=format
        ),
        unfinished=f"{path} was not written.",
    )
    this.terminal.result(report, terminal_reports.exported(report))
    return 0


def doctor(context: typer.Context) -> int:
    """Look at everything a backup depends on. Exits with 3 when something is wrong."""
    this = session(context)
    found = _examined(this)
    ok = all(diagnosis.level != "problem" for diagnosis in found)
    this.terminal.result(Diagnoses(ok, found), terminal_reports.diagnosed(found))
    return 0 if ok else FINDINGS


def _examined(this: Session) -> Sequence[Diagnosis]:
    """Ask the engine; what keeps it from opening is a diagnosis too."""
    try:
        return this.run(lambda engine, _: diagnose(engine), unfinished="Nothing was changed.")
    except BackupError as error:
        return [Diagnosis("problem", error.code, str(error), error.hint)]
