"""A process that prunes a repository, again and again, killed at each call of the store in turn.

    python -m tests.crash.prune_child TEMPLATE WORK

TEMPLATE is copied to WORK/N, in which a forked child prunes and is killed before call N. What the
calls are is printed, one a line. Forked, since starting an interpreter for each would take
minutes; there are no threads yet to be lost by that.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import anyio

from mcp_backup.store.local import LocalStore
from tests.doubles import Fault, FaultyStore, How
from tests.repository.pruning import prune, reopened


async def pruned(store: FaultyStore) -> None:
    await prune(await reopened(store))


def killed(root: Path, fault: Fault) -> bool:
    """Prune in a child of our own; tell whether it was killed before it had finished."""
    child = os.fork()
    if child == 0:
        anyio.run(pruned, FaultyStore(LocalStore(root), fault))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"{root}: {status}"
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def calls_of(root: Path) -> list[str]:
    """Prune to the end in a child; return what it asked of the store."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        store = FaultyStore(LocalStore(root))
        anyio.run(pruned, store)
        os.write(writer, "\n".join(f"{verb} {name}" for verb, name in store.calls).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as calls:
        text = calls.read()
    os.wait()
    return text.splitlines()


def main() -> None:
    template, work = Path(sys.argv[1]), Path(sys.argv[2])
    shutil.copytree(template, work / "calm")
    calls = calls_of(work / "calm")
    for number in range(1, len(calls) + 1):
        shutil.copytree(template, work / f"{number}")
        assert killed(work / f"{number}", Fault("any", number, How.KILL)), f"no call {number}"
    sys.stdout.write("\n".join(calls))


if __name__ == "__main__":
    main()
