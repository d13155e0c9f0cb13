"""Processes that restore, undo or recover in a world, and halt before each step.

    python -m tests.crash.restore_child SOCKET

For each connection to SOCKET a child is forked, which reads "VERB WORLD" there, answers its
process id, tells each step and takes it when it reads a line, and says "ended" at the end. Forked,
since what a process has to import takes longer than what most of them do.

    restore     of the world's own source
    rollback    of all there is; the exchange of the last source fails
    undo        of the one restore that can be
    recover     what the next start does
"""

import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TextIO

import anyio

from mcp_backup.errors import RolledBack
from mcp_backup.restore.journal import Steps, read_all
from tests.crash.worlds import SABOTEUR, World, found
from tests.restore.bench import bench, restorer_on, state_of


async def restore(world: World, step: Steps) -> None:
    async with bench(world.alone, step) as on:
        await on.restore()


async def rollback(world: World, step: Steps) -> None:
    def sabotage(what: str) -> None:
        if what == f"exchange {SABOTEUR}":
            (record,) = read_all(state_of(world.system) / "restores")
            (record.directory / "staged" / SABOTEUR / "flow.json").unlink()
        step(what)

    async with bench(world.system, sabotage) as on:
        try:
            await on.restore()
        except RolledBack:
            return
    raise AssertionError("the exchange did not fail")


async def undo(world: World, step: Steps) -> None:
    restorer = restorer_on(world.system, step)
    (point,) = await restorer.undo_points()
    await restorer.undo(point.restore_id, consent=True)


async def recover(world: World, step: Steps) -> None:
    await restorer_on(world.system, step).recover()


VERBS: Mapping[str, Callable[[World, Steps], Awaitable[None]]] = {
    "restore": restore,
    "rollback": rollback,
    "undo": undo,
    "recover": recover,
}


def carry_out(talk: TextIO) -> None:
    """Do what is asked for, step by step."""
    verb, _, world = talk.readline().partition(" ")

    def step(what: str) -> None:
        talk.write(f"{what}\n")
        talk.flush()
        if not talk.readline():
            raise EOFError(what)

    step(str(os.getpid()))
    anyio.run(partial(VERBS[verb], found(world), step))
    talk.write("ended\n")


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{sys.argv[1]}.new")
        listener.listen()
        os.rename(f"{sys.argv[1]}.new", sys.argv[1])
        while True:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    listener.close()
                    with connection.makefile("rw") as talk:
                        carry_out(talk)
                    return


if __name__ == "__main__":
    main()
