"""What others wrote for Node: clients and servers, pinned by `node/package.json` and its lock file.

They are installed beside it on first use. Test modules that need them import `installed`.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from filelock import FileLock

NODE = Path(__file__).parent / "node"


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    """Have the packages installed as pinned. Without Node, skip; but not where CI runs."""
    unavailable = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    if shutil.which("node") is None or shutil.which("npm") is None:
        unavailable("Node.js and npm are not installed")
    with FileLock(NODE / ".installing"):  # several processes run tests
        _install(unavailable)


def _install(unavailable: Callable[[str], NoReturn]) -> None:
    lock, done = NODE / "package-lock.json", NODE / "node_modules/.package-lock.json"
    if done.exists() and done.stat().st_mtime >= lock.stat().st_mtime:
        return
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    made = subprocess.run(command, cwd=NODE, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        unavailable(f"npm ci: {made.stderr}")
