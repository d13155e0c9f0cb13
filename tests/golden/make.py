"""Make a golden repository: what this version writes, for all later versions to read.

    python -m tests.golden.make DIRECTORY

makes DIRECTORY/repository, with two backups, and DIRECTORY/expected.json, which says what comes
out of each. Done once per released version (or format change before the first) and kept.
"""

import json
import shutil
import sys
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from mcp_backup import __version__
from mcp_backup.verbs import CreateRequest
from mcp_backup.verbs_restores import RestoreRequest
from tests.doubles import FrozenClock
from tests.system import System, change, make_system


async def make(directory: Path) -> None:
    directory.mkdir(parents=True)
    with TemporaryDirectory(prefix="golden-") as place:
        system = await make_system(Path(place) / "system", rows=40)
        (system.project / "settings" / "name with ü.yaml").write_text("a: 1\n")
        (system.project / "settings" / "link.yaml").symlink_to("server.yaml")
        clock = FrozenClock()
        expected = {}
        for note in ("the first", "the second"):
            async with system.engine(clock) as engine:
                report = await engine.create(CreateRequest(note=note))
            expected[report.backup_id] = await digests(system, report.backup_id)
            change(system.notes)
            clock.advance(timedelta(days=1))
        shutil.copytree(system.repository, directory / "repository")
        document = {
            "program": f"mcp-backup {__version__}",
            "password": system.password,
            "backups": expected,
        }
        text = json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True)
        (directory / "expected.json").write_text(f"{text}\n")


async def digests(system: System, backup_id: str) -> dict[str, str]:
    """SHA-256 of every file that the backup gives back, and targets of links."""
    async with system.engine() as engine:
        plan = await engine.plan_restore(RestoreRequest(backup_id, target="scratch"))
        report = await engine.restore(plan.plan_id)
    place = system.settings.scratch / report.restore_id
    return {
        path.relative_to(place).as_posix(): (
            f"-> {path.readlink()}" if path.is_symlink() else sha256(path.read_bytes()).hexdigest()
        )
        for path in sorted(place.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


if __name__ == "__main__":
    anyio.run(make, Path(sys.argv[1]))
