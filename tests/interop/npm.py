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
    install(NODE)


def install(directory: Path) -> None:
    """Have the packages of a directory installed as its lock file pins them, or skip, or fail."""
    unavailable = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    if shutil.which("node") is None or shutil.which("npm") is None:
        unavailable("Node.js and npm are not installed")
    with FileLock(directory / ".installing"):  # several processes run tests
        _install(directory, unavailable)


def _install(directory: Path, unavailable: Callable[[str], NoReturn]) -> None:
    lock, done = directory / "package-lock.json", directory / "node_modules/.package-lock.json"
    if done.exists() and done.stat().st_mtime >= lock.stat().st_mtime:
        return
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    made = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        unavailable(f"npm ci: {made.stderr}")
