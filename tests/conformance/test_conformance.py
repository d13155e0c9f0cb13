"""The MCP conformance suite, against our own HTTP application, for both protocols.

With the suite's fixtures mounted every scored scenario passes. The bare server fails what is in
`bare-*.yml`, for the reasons given there, and nothing else.
"""

import asyncio
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcp_backup.opening import initialise
from tests.interop.npm import install
from tests.server.conftest import Machine, made
from tests.server.serving import PATIENCE, pipe

HERE = Path(__file__).parent
NODE = HERE / "node"
SUITE = NODE / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
ARCHITECTURE = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), "")
NODE_22 = NODE / f"node_modules/node-linux-{ARCHITECTURE}/bin/node"
REVISIONS = ["2025-11-25", "2026-07-28"]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine whose server shows every tool."""
    install(NODE)
    machine = made(tmp_path_factory.mktemp("conformance"))
    machine.config.write_text(f'{machine.config.read_text()}\n[server]\nscopes = ["admin"]\n')
    asyncio.run(initialise(machine.settings()))
    return machine


@contextmanager
def serving(machine: Machine, *fixtures: str) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.conformance.serve", str(machine.config), *fixtures]
    log = (machine.root / "server.log").open("w")
    with log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process:
        try:
            yield pipe(process.stdout).readline().decode().removeprefix("serving at ").strip()
        finally:
            process.terminate()
            process.wait(PATIENCE)


@pytest.fixture(scope="module")
def bare(machine: Machine) -> Iterator[str]:
    with serving(machine) as address:
        yield address


@pytest.fixture(scope="module")
def complete(machine: Machine) -> Iterator[str]:
    with serving(machine, "fixtures") as address:
        yield address


def judge(address: str, revision: str, out: Path, *options: str) -> None:
    command = [str(NODE_22), str(SUITE), "server", "--url", address, "--requirements", revision]
    command += ["--timeout", "30000", "-o", str(out), *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr
    assert "✓ tools-list" in ran.stdout


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_scored_scenario_passes_where_the_suite_has_its_fixtures(
    complete: str, tmp_path: Path, revision: str
) -> None:
    judge(complete, revision, tmp_path)


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_bare_server_fails_what_is_listed_and_nothing_else(
    bare: str, tmp_path: Path, revision: str
) -> None:
    judge(bare, revision, tmp_path, "--expected-failures", str(HERE / f"bare-{revision}.yml"))
