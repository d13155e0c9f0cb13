"""The demo tells the truth, and leaves only what it says it leaves."""

import os
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parent.parent / "examples" / "demo.py"


def test_the_demo_wrecks_and_restores_live_databases_and_proves_it(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, DEMO],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    assert "NOT SO" not in ran.stdout
    for proof in (
        "every message is back",
        "the balances add up again",
        "writes on, into the restored data",
        "is garbage, as before",
        "the other process never noticed a thing",
    ):
        assert f"ok: {proof}" in ran.stdout or f"{proof}\n" in ran.stdout
    (place,) = tmp_path.glob("mcp-backup-demo-*")
    assert f"rm -r {place}" in ran.stdout
    assert (place / "ecosystem/mcp-backup.toml").is_file()
