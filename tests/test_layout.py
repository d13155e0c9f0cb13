"""The architecture, as tests: who may import whom, which room has which colour, how big things are.

    doors        cli  server  ecosystem  discovery  terminal…
    proof        proof (drills, evidence, objectives) on top of the verbs
    the verbs    engine  catalog  export  forgetting  opening  place  doctor
    directions   backup │ restore                       strangers to each other
    news         alerts  metrics  news
    things       sources │ repository
    bytes        format (pure) │ store (I/O)
    leaves       errors  durable  progress  tasks  arena  channel  workers  worker_processes
                 fork_server  manifest  verbs  settings…  retention  suspicion

A new module at the top of the package belongs in one of the sets below; a new room needs a reason.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mcp_backup"
FILE_LINES = 400
FUNCTION_LINES = 50  # without its docstring

SOURCE = {"sources.source"}  # the protocol and its data, not the kinds
SETTINGS = {"settings", "settings_alerts", "settings_sections", "settings_wording", "password"}
SETTINGS |= {"settings_postgres", "settings_workflows", "settings_drills", "settings_server"}
SETTINGS |= {
    "settings_environment",
    "settings_table",
    "settings_shape",
    "settings_mistakes",
    "secret",
}
HISTORY = {"history", "history_facts", "history_file", "history_queries"}
VERBS = {"engine", "catalog", "export", "opening", "place", "doctor", "recording", "outcomes"}
VERBS |= {
    "checking",
    "creating",
    "restoring",
    "verifying",
    "kit_record",
    "handing_out",
    "judging",
    "snapshot_cache",
    "index_cache",
    "approval_advice",
}
KEYS = {"keyring", "recovery_kit", "recovery_page"}  # passwords: no tool gets near them
INSTALLING = {"service", "shim"}
AUTHORITY = {"tokens", "passphrase"}  # hashes alone; read by the doors, written by the terminal
STATUS = {"status"}  # reads verdicts, and looks around; drops nothing
TERMINAL = {
    "cli",
    "terminal",
    "terminal_bars",
    "terminal_drills",
    "terminal_progress",
    "terminal_reports",
    "terminal_status",
    "discovery",
    "discovery_postgres",
    "discovery_servers",
    "discovery_shards",
}
LEAVES = {
    "churn",
    "drill_facts",
    "status_report",
    "errors",
    "durable",
    "page_cache",
    "progress",
    "record",
    "tasks",
    "arena",
    "channel",
    "fork_server",
    "worker_processes",
    "workers",
    "manifest",
    "outline",
    "verbs",
    "verbs_restores",
    "verbs_upkeep",
}
RUNBOOK = {"runbook"}  # prints and carries out pages for people
PROOF = {"proof"}  # drills and their evidence; restores into scratch only
DROPPING = {"forgetting"}  # what deletes backups: no tool gets near it
POLICY = {"retention", "suspicion"}
ROOMS = {"format", "store", "repository", "sources", "backup", "restore", "alerts"}
BELOW = LEAVES | ROOMS | SETTINGS | POLICY | HISTORY | {"slots"}
DOORS = {"drill_facts", "errors", "progress", "record", "verbs", "history_facts", "status_report"}
DOORS |= {"verbs_restores", "verbs_upkeep"}
TELLING = {"alerts", "metrics", "news"}
PRINTING = DOORS | {"terminal"}

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "page_cache": set(),
    "durable": {"page_cache"},
    "progress": set(),
    "record": set(),
    "tasks": {"errors"},
    "arena": set(),
    "channel": {"arena"},
    "fork_server": set(),
    "worker_processes": {"arena", "errors", "fork_server"},
    "workers": {"arena", "channel", "errors", "worker_processes"},
    "churn": set(),
    "manifest": {"errors", "churn", "record"} | SOURCE,
    "outline": {"manifest"},
    "retention": set(),
    "suspicion": {"manifest"} | SOURCE,
    "verbs": {"errors", "manifest"} | SOURCE,
    "verbs_restores": SOURCE,
    "verbs_upkeep": {"verbs"},
    "status_report": set(),
    "drill_facts": {"verbs"} | SOURCE,
    **dict.fromkeys(HISTORY, HISTORY | {"errors"}),
    "cron": set(),
    **dict.fromkeys(SETTINGS, SETTINGS | {"errors", "cron"} | SOURCE),
    "slots": {"verbs", "cron", "drill_facts"} | SETTINGS,
    **{each: {"errors", "durable", "record"} for each in INSTALLING | AUTHORITY},
    "scheduler_thread": VERBS | SETTINGS | DOORS | {"schedule", "alerts", "news"},
    "schedule": VERBS | SETTINGS | DROPPING | DOORS | PROOF | {"slots", "durable"},
    "format": {"errors"},
    "store": {"errors", "durable", "page_cache"},
    "repository": {
        "errors",
        "page_cache",
        "format",
        "store",
        "progress",
        "tasks",
        "arena",
        "channel",
        "workers",
        "verbs",
    },
    "sources": {"errors", "durable", "page_cache", "record", "arena", "channel", "workers"},
    "backup": (LEAVES - {"durable", "page_cache"})
    | {"format", "repository", "sources", "suspicion"},
    "alerts": {"errors", "durable", "record", "verbs", "history_facts", "status_report"} | SETTINGS,
    "restore": LEAVES | {"format", "repository", "sources"},
    **dict.fromkeys(VERBS, BELOW | VERBS | {"proof.evidence"}),
    **dict.fromkeys(PROOF, BELOW | VERBS),
    "approval_advice": BELOW | VERBS | AUTHORITY,
    **dict.fromkeys(RUNBOOK, BELOW | VERBS | PROOF),
    **dict.fromkeys(DROPPING, BELOW | VERBS | PROOF),
    **dict.fromkeys(KEYS, BELOW | VERBS | KEYS),
    **dict.fromkeys(STATUS, BELOW | VERBS | DROPPING | PROOF | {"discovery"}),
    **dict.fromkeys(
        TERMINAL, PRINTING | {"discovery_postgres", "discovery_servers", "discovery_shards"}
    ),
    "news": {"alerts", "errors", "place", "engine"} | SETTINGS,
    "metrics": BELOW | VERBS | {"status"},
    "cli": DOORS
    | SOURCE
    | SETTINGS
    | VERBS
    | TERMINAL
    | DROPPING
    | KEYS
    | TELLING
    | STATUS
    | PROOF
    | RUNBOOK
    | INSTALLING
    | AUTHORITY
    | {"server"},
    "server": DOORS
    | SOURCE
    | SETTINGS
    | VERBS
    | TELLING
    | STATUS
    | PROOF
    | RUNBOOK
    | {"schedule", "tokens"},
    "ecosystem_facts": DOORS | SOURCE,
    "ecosystem": DOORS
    | SOURCE
    | SETTINGS
    | VERBS
    | TELLING
    | STATUS
    | {"ecosystem_facts", "scheduler_thread"},
    "__main__": {"cli", "worker_processes"},
    "__init__": {"ecosystem"},
}

ONLY_IN: dict[str, set[str]] = {  # each library has a seam, and nobody above it knows the library
    "apscheduler": {"schedule"},
    "apsw": {"sources"},
    "duckdb": {"sources"},
    "psycopg": {"sources"},
    "sqlite3": {"sources", "alerts"} | HISTORY,
    "httpx2": {"alerts", "cli", "server", "sources"},
    "prometheus_client": {"metrics"},
    "cryptography": {"format"},
    "zstandard": {"format"},
    "platformdirs": SETTINGS,
    "pydantic": {"server"},
    "mcp": {"server", "cli", "sources"},
    "starlette": {"server"},
    "uvicorn": {"server"},
    "jwt": {"server"},
    "typer": {"cli"},
    "rich": TERMINAL,
}
IMPURE = {  # what reaches outside the process, or waits, or differs from run to run
    "anyio",
    "asyncio",
    "io",
    "mmap",
    "multiprocessing",
    "pathlib",
    "random",
    "secrets",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
}
OUTSIDE = re.compile(r"os\.(?!urandom$)")
FORBIDDEN_NAMES = {"utils", "util", "helpers", "common", "manager", "base", "core", "misc"}

MODULES = sorted(PACKAGE.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Yield every module imported, by whatever statement, with its line."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:  # `from mcp_backup import engine` imports a module too
                yield f"{node.module}.{alias.name}", node.lineno


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(PACKAGE.parent)}:{line}"


def modules_of(*rooms: str) -> list[Path]:
    return [path for path in MODULES if room_of(path) in rooms]


def functions_of(path: Path) -> Iterator[Function]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_every_module_belongs_to_a_room() -> None:
    assert {room_of(path) for path in MODULES} - set(MAY_IMPORT) == set()


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room, "__version__"}
    wrong = [
        f"{where(path, line)} imports {name}"
        for path in modules_of(room)
        for name, line in imports_of(path)
        if name.startswith("mcp_backup.")
        and not any(f"{name}.".startswith(f"mcp_backup.{target}.") for target in allowed)
    ]
    assert wrong == []


def test_each_library_is_known_only_at_its_seam() -> None:
    wrong = [
        f"{where(path, line)} imports {name}"
        for path in MODULES
        for name, line in imports_of(path)
        if room_of(path) not in ONLY_IN.get(name.split(".")[0], {room_of(path)})
    ]
    assert wrong == []


def test_the_format_is_pure() -> None:
    """Nothing but `os.urandom`, for the random numbers of the envelope, comes from outside."""
    wrong = [
        f"{where(path, line)} imports {name}"
        for path in modules_of("format")
        for name, line in imports_of(path)
        if name.split(".")[0] in IMPURE
    ]
    wrong += [
        f"{where(path, node.lineno)} {ast.unparse(node)[:40]}"
        for path in modules_of("format")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.AsyncFunctionDef)
        or (isinstance(node, ast.Call) and ast.unparse(node.func) in ("open", "datetime.now"))
        or (isinstance(node, ast.Attribute) and OUTSIDE.match(ast.unparse(node)))
    ]
    assert wrong == []


def test_what_blocks_is_not_async() -> None:
    """`durable` and the kinds of sources run in worker threads and processes."""
    parent_side = {"capture.py", "workflow_client.py"}  # and MCP's client is async
    wrong = [
        where(path, node.lineno)
        for path in modules_of("durable", "sources")
        if path.name not in parent_side
        for node in functions_of(path)
        if isinstance(node, ast.AsyncFunctionDef)
    ]
    assert wrong == []


def test_imports_are_absolute() -> None:
    wrong = [
        where(path, node.lineno)
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert wrong == []


def test_files_are_small() -> None:
    sizes = {where(path, 1): len(path.read_text().splitlines()) for path in MODULES}
    assert {path: size for path, size in sizes.items() if size > FILE_LINES} == {}


def test_functions_are_small() -> None:
    wrong = {}
    for path in MODULES:
        for function in functions_of(path):
            size = (function.end_lineno or 0) - function.lineno + 1 - docstring_lines(function)
            if size > FUNCTION_LINES:
                wrong[f"{where(path, function.lineno)} {function.name}"] = size
    assert wrong == {}


def docstring_lines(function: Function) -> int:
    if ast.get_docstring(function, clean=False) is None:
        return 0
    first = function.body[0]
    return (first.end_lineno or 0) - first.lineno + 1


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    names = {path.relative_to(PACKAGE).with_suffix("") for path in MODULES}
    words = {str(name): set("_".join(name.parts).split("_")) for name in names}
    assert {name for name, parts in words.items() if parts & FORBIDDEN_NAMES} == set()


def test_every_public_name_says_what_it_promises() -> None:
    wrong = [f"{where(path, line)} {name}" for path in MODULES for name, line in undocumented(path)]
    assert wrong == []


def undocumented(path: Path) -> Iterator[tuple[str, int]]:
    if ast.get_docstring(tree_of(path)) is None and tree_of(path).body:
        yield "the module", 1
    pending: list[ast.Module | ast.ClassDef] = [tree_of(path)]
    while pending:
        for node in pending.pop().body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None:
                yield node.name, node.lineno
            if isinstance(node, ast.ClassDef):
                pending.append(node)


def test_each_room_says_what_it_is_for() -> None:
    for room in ROOMS:
        path = PACKAGE / room / "__init__.py"
        assert path.exists(), f"{path} is missing"
        assert ast.get_docstring(tree_of(path)), f"{path} has no docstring"
