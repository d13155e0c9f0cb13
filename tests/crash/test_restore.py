"""kill -9 before every step of a restore, a rollback, an undo and a recovery, of every kind.

After each, live data are old or new and never mixed within a database, a file or a document; the
next start brings all of them to one side, whichever the journal says; and nothing is left over.

What a kill leaves is what is on the disk at that moment. So a process halts before every step
until that is copied, and is then killed where the test goes on from there, or lives on to the
next; each copy is put in place in turn, and met by the next start.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import anyio
import pytest

from mcp_backup.opening import initialise
from mcp_backup.place import utc_now
from mcp_backup.restore.journal import Journal, read_all
from mcp_backup.restore.recovery import SETTLE_SECONDS
from mcp_backup.sources.postgres_ours import RECORD
from tests.crash.worlds import PIECE_BY_PIECE, WORLDS, Contents, PostgresWorld, World, told
from tests.postgres.conftest import programs, serving
from tests.restore.bench import backed_up, restorer_on, state_of
from tests.workflows import conftest as workflows

_PORT = 5435  # names the socket
_PATIENCE_SECONDS = 60


class Halting:
    """A process that carries out a verb, and waits before each of its steps."""

    def __init__(self, mother: Path, verb: str, world: str) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(mother))
            self._talk = connection.makefile("rw")
        self._say(f"{verb} {world}")
        self._pid = int(self._talk.readline())
        self._say()

    def steps(self) -> Iterator[str]:
        """Yield each step before it is taken, until the process ends."""
        with self._talk:
            while step := self._talk.readline().rstrip():
                if step == "ended":
                    return
                yield step
                self._say()
        raise AssertionError("the process died")

    def kill_once(self, happened: Callable[[], bool]) -> None:
        """Let it take the step, and kill it in the middle."""
        self._say()
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not happened():
            assert time.monotonic() < give_up
        self.kill()

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        with suppress(ConnectionResetError):  # a line was on its way
            while self._talk.readline():  # until it is gone
                pass
        self._talk.close()

    def _say(self, words: str = "") -> None:
        self._talk.write(f"{words}\n")
        self._talk.flush()


@dataclass(frozen=True)
class Scene:
    """A world that was backed up, then wrecked; `new` is what a restore brings back."""

    kind: str
    mother: Path  # of the processes
    world: World
    new: Contents
    old: Contents
    begun: Path  # a photo of it
    room: Path

    def killed_before_every(self, verb: str, least: int, since: str = "") -> Iterator[str]:
        """Carry out the verb; then for each of its steps bring back what a kill would leave.

        There are `least` of them, or the test would prove little. A moment that no step has
        changed is met once.
        """
        photos = Path(mkdtemp(dir=self.room))
        steps: list[str] = []
        seen: set[str] = set()
        for step in self.begun_now(verb).steps():
            if steps or step.startswith(since):
                steps.append(step)
                if (state := self.world.state()) not in seen:
                    seen.add(state)
                    self.world.photograph(photos / str(len(steps)))
        assert len(steps) >= least, steps
        for number, step in enumerate(steps, start=1):
            if (photos / str(number)).exists():
                self.world.develop(photos / str(number))
            yield step

    def killed(self, verb: str, before: str) -> None:
        """Carry out the verb, and kill it before a step."""
        process = self.begun_now(verb)
        for step in process.steps():
            if step == before:
                process.kill()
                return
        raise AssertionError(f"there was no step {before!r}")

    def carried_out(self, verb: str) -> None:
        for _ in self.begun_now(verb).steps():
            pass

    def begun_now(self, verb: str) -> Halting:
        if verb in ("restore", "rollback"):
            self.world.settle()
        return Halting(self.mother, verb, told(self.kind, self.world))

    def assert_not_torn(self, step: str) -> None:
        found = self.world.contents()
        for path in self.old.keys() | self.new.keys() | found.keys():
            assert found.get(path) in (self.old.get(path), self.new.get(path)), f"{path} at {step}"

    async def recovered(self, wanted: Contents, points: int, step: str) -> None:
        """Start again, and see what is there, and that nothing is left to recover or remove."""
        self.assert_not_torn(step)
        restorer = restorer_on(self.world.system)
        await restorer.recover()
        assert await restorer.recover() == [], step
        assert self.world.contents() == wanted, step
        assert len(await restorer.undo_points()) == points, step
        assert self.world.left(points) == [], step
        for record in read_all(state_of(self.world.system) / "restores"):
            assert record.outcome == "restored", step


@pytest.fixture(scope="module")
def mother(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The address of a process that forks others; it has loaded what they need."""
    address = tmp_path_factory.mktemp("mother") / "socket"
    words = [sys.executable, "-m", "tests.crash.restore_child", str(address)]
    with subprocess.Popen(words) as process:
        try:
            give_up = time.monotonic() + _PATIENCE_SECONDS
            while not address.exists():
                assert process.poll() is None
                assert time.monotonic() < give_up
                time.sleep(0.05)
            yield address
        finally:
            process.kill()


@pytest.fixture(scope="module", params=sorted(WORLDS))
def staged_scene(
    mother: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """One for each kind, made once."""
    kind: str = request.param
    root = tmp_path_factory.mktemp(kind)
    with ExitStack() as stack:
        at: dict[str, Any] = {}
        if kind == "postgres":
            server = stack.enter_context(serving(programs(), _PORT))
            at = {"home": str(server.home), "bin": str(server.bin_dir), "port": server.port}
        elif kind == "workflows":
            with closing(socket.create_server(("127.0.0.1", 0))) as probe:
                port = probe.getsockname()[1]
            stack.enter_context(workflows.serving(root / "live" / "state.json", port))
            at = {"url": f"http://127.0.0.1:{port}/mcp"}
        world = WORLDS[kind](root, at)
        world.begin()
        anyio.run(initialise, world.system.settings)
        anyio.run(partial(backed_up, world.system, verify=world.verified))
        new = world.contents()
        world.damage()
        old = world.contents()
        new = {**old, **new}  # what the backup does not have is left alone
        assert new != old
        yield Scene(kind, mother, world, new, old, world.photograph(root / "begun"), root)


@pytest.fixture
def scene(staged_scene: Scene) -> Scene:
    """The scene as it was at first, whatever the test before has made of it."""
    staged_scene.world.develop(staged_scene.begun)
    return staged_scene


async def test_a_restore_killed_before_any_step_is_all_old_or_all_new(scene: Scene) -> None:
    begun = False
    for step in scene.killed_before_every("restore", least=14):
        await scene.recovered(scene.new if begun else scene.old, int(begun), step)
        begun = begun or step == "journal exchanging"
    assert begun


async def test_a_rollback_killed_before_any_step_ends_all_old(scene: Scene) -> None:
    for step in scene.killed_before_every("rollback", least=8, since="journal failed"):
        await scene.recovered(scene.old, 0, step)


async def test_an_undo_killed_before_any_step_is_all_restored_or_all_undone(scene: Scene) -> None:
    scene.carried_out("restore")
    assert scene.world.contents() == scene.new
    begun = False
    for step in scene.killed_before_every("undo", least=12):
        await scene.recovered(scene.old if begun else scene.new, 1, step)
        begun = begun or step == "journal exchanging"
    assert begun


async def test_a_recovery_killed_before_any_step_is_taken_up_again(scene: Scene) -> None:
    """Of a restore, which goes forward, and of a rollback, which goes back."""
    scene.killed("restore", f"exchange {scene.world.key}")
    for step in scene.killed_before_every("recover", least=6):
        await scene.recovered(scene.new, 1, step)
    scene.world.develop(scene.begun)
    scene.killed("rollback", f"put back {scene.world.key}")
    for step in scene.killed_before_every("recover", least=7):
        await scene.recovered(scene.old, 0, step)


@pytest.mark.parametrize("staged_scene", PIECE_BY_PIECE, indirect=True)
async def test_an_exchange_killed_between_two_pieces_is_finished_or_taken_back(
    scene: Scene,
) -> None:
    world = scene.world
    for failed, wanted, points in ((False, scene.new, 1), (True, scene.old, 0)):
        world.develop(scene.begun)
        scene.killed("restore", f"exchange {world.key}")
        restores = state_of(world.system) / "restores"
        (record,) = read_all(restores)
        world.exchange_half(record.directory / "staged" / world.key)
        assert world.contents() not in (scene.old, scene.new)
        if failed:
            journal = Journal(record.directory, utc_now)
            journal.append("failed", target=world.key, message="it was refused")
        await scene.recovered(wanted, points, "between two pieces")


@pytest.mark.parametrize("staged_scene", ["postgres"], indirect=True)
@pytest.mark.parametrize("made", [False, True])
async def test_a_restore_killed_while_a_database_is_made_beside_the_live_one_leaves_none(
    scene: Scene, made: bool
) -> None:
    """Its worker outlives it for a moment, and so may what that has asked the server for."""
    world = scene.world
    assert isinstance(world, PostgresWorld)
    process = scene.begun_now("restore")

    def happened() -> bool:
        noted = any(world.live.glob(f"restorer/restores/*/staged/{world.key}/{RECORD}"))
        return any("_new_" in name for name in world.server.databases()) if made else noted

    for step in process.steps():
        if step.startswith("fsync staged"):
            process.kill_once(happened)
            break
    began, at = time.monotonic(), dict[str, float]()

    def noted(what: str) -> None:
        at[what] = time.monotonic() - began

    restorer = restorer_on(world.system, noted, settle_seconds=SETTLE_SECONDS)
    (found,) = await restorer.recover()
    assert (found.outcome, world.left(0)) == ("abandoned", [])
    assert at["discard"] >= SETTLE_SECONDS  # until then, a worker may begin to make a database
    assert world.contents() == scene.old
