"""A server with three workflows, on stdio or HTTP, and settings that back them up."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mcp_backup.settings import Settings
from mcp_backup.settings_sections import RepositorySettings
from mcp_backup.settings_table import checked
from mcp_backup.settings_workflows import WorkflowSettings

READING: Mapping[str, Any] = {
    "name": "flows",
    "tool": "list_workflows",
    "items": "workflows",
    "arguments": {"limit": 2},
    "cursor": {},
    "ignore": ("updated_at",),
}
GIVING: Mapping[str, Any] = {"restore": {"tool": "save_workflow", "argument": "workflow"}}
TAKING: Mapping[str, Any] = {"remove": {"tool": "delete_workflow", "argument": "workflow_id"}}
_PATIENCE_SECONDS = 20


@dataclass(frozen=True)
class Keeper:
    """The server's state, and settings for a system that has nothing else to back up."""

    root: Path
    state: Path
    url: str = ""

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.state.read_text())
        return document

    def workflows(self) -> dict[str, Any]:
        """What the server holds, but for what it writes into it by itself."""
        return {
            key: {name: value for name, value in flow.items() if name != "updated_at"}
            for key, flow in self.document()["workflows"].items()
        }

    def change(self, **document: Any) -> None:
        self.state.write_text(json.dumps(self.document() | document))

    def put(self, key: str, flow: dict[str, Any] | None) -> None:
        flows = self.document()["workflows"]
        flows.pop(key, None)
        self.change(workflows=flows | ({key: flow} if flow is not None else {}))

    def source(self, **settings: Any) -> WorkflowSettings:
        here: dict[str, Any] = {"url": self.url}
        if not self.url:
            here = {"command": (sys.executable, "-m", "tests.workflows.keeper", str(self.state))}
        return checked(WorkflowSettings, {**READING, **GIVING, **TAKING, **here, **settings})

    def settings(self, *sources: WorkflowSettings, **more: Any) -> Settings:
        return Settings(
            repository=RepositorySettings(
                location=str(self.root / "backups"), password_file=self.root / "backups.key"
            ),
            workflows=sources or (self.source(),),
            state_dir=self.root / "mine",
            **more,
        )


def flow(key: str, step: int = 1) -> dict[str, Any]:
    return {"id": key, "state": {"step": step, "name": "Überprüfung", "big": 2**60}, "done": False}


@pytest.fixture
def child(tmp_path: Path) -> Keeper:
    """The server as a child on stdio."""
    return made(Keeper(tmp_path, tmp_path / "state.json"))


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """The server's state, and the port it listens at, for all tests: it starts slowly."""
    state = tmp_path_factory.mktemp("keeper") / "state.json"
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    with serving(state, port):
        yield state, port


@pytest.fixture
def keeper(daemon: tuple[Path, int], tmp_path: Path) -> Keeper:
    """The server as a daemon, with its state as new."""
    state, port = daemon
    return made(Keeper(tmp_path, state, f"http://127.0.0.1:{port}/mcp"))


@pytest.fixture
def away(keeper: Keeper) -> Keeper:
    """A server that nobody runs."""
    return Keeper(keeper.root, keeper.state, "http://127.0.0.1:9/mcp")


def made(keeper: Keeper) -> Keeper:
    flows = {key: flow(key) for key in ("deploy", "nightly", "../../etc/passwd")}
    keeper.state.write_text(json.dumps({"workflows": flows}))
    return keeper


@contextmanager
def serving(state: Path, port: int) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.workflows.keeper", str(state), str(port)],
        stderr=subprocess.DEVNULL,
    )
    try:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < give_up, "the server did not start"
                time.sleep(0.05)
            else:
                break
        yield
    finally:
        process.terminate()
        process.wait(_PATIENCE_SECONDS)
