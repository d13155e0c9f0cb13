"""Workflows: state that another MCP server holds, read and given back by calling its tools.

    capture    every document, over all pages, as one canonical JSON file each
    place      what is missing or different there is given back, document by document; what only
               the server has is left alone
    put back   what was there before is given back; what the restore made is taken away, where
               the settings name a tool for that

A document is one call, so a crash leaves each of them old or new, and doing it again does no harm.
Where the settings say that the tool does not replace, it is two, and a crash between them leaves
the document gone: it is staged and in the undo point, and the next start gives it back.
The documents are read page by page: a server that changes meanwhile may give a mixture, which is
said.

An undo point:

    <directory>/present/<name>   documents that were there, of those a restore would write
    <directory>/created/<name>   documents that were not, as the restore will make them
    <directory>/.kept.json       written last, so without it nothing was kept
"""

import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mcp_backup.durable import make_directory_durably, write_durably
from mcp_backup.errors import IntegrityError, RestoreError, SourceUnreadable
from mcp_backup.sources import comparison, documents
from mcp_backup.sources.documents import Document, NoDocument
from mcp_backup.sources.kinds import KeptCopy
from mcp_backup.sources.sink import Sink
from mcp_backup.sources.source import Entry, Evidence, FileEvidence, Finding, Holder, SourceSpec
from mcp_backup.sources.workflow_server import WorkflowServer, connected

ABSENT = "absent"
KEPT = ".kept.json"  # no document's name begins with a dot
_VERSION = 1
_MODE = 0o600
_MOST_NAMED = 5


def capture(spec: SourceSpec, sink: Sink, scratch: Path) -> Evidence:
    """Read every document into `scratch`, then hand them on in the order of their names.

    Raises:
        SourceUnreadable: see `WorkflowServer.listed`.
    """
    marks: dict[str, str] = {}

    def keep(document: Document) -> None:
        (scratch / document.name).write_bytes(document.content)
        marks[document.name] = document.mark

    with connected(spec) as server:
        server.listed(keep)
    entries: dict[str, list[str | int]] = {}
    files = []
    for name in sorted(marks):
        files.append(_send(spec, sink, scratch / name))
        entries[name] = ["file", f"{_MODE:04o}", os.geteuid(), os.getegid()]
    return Evidence(
        engine=server.engine,
        files=tuple(files),
        facts={"documents": marks, "entries": entries, "tool": spec.options["tool"]},
        notes=tuple(sink.notes),
    )


def fingerprint(spec: SourceSpec) -> str:
    """Return "": only the documents themselves tell whether they changed."""
    return ""


def examine(directory: Path, evidence: Evidence | None) -> list[Finding]:
    """Compare staged documents with what was captured, and see that each is one.

    Raises:
        IntegrityError: the evidence is none.
    """
    marks = documents.marks(evidence)
    findings = comparison.differences(directory, evidence)
    for name in marks:
        try:
            documents.read(name, _content(directory / name), ())
        except FileNotFoundError:
            continue  # the comparison has said so
        except NoDocument as error:
            findings.append(Finding("document", name, str(error)))
    return findings


def holders(spec: SourceSpec) -> list[Holder]:
    """Return nobody: the server itself is asked to change what it holds."""
    return []


def signature(spec: SourceSpec, paths: Sequence[str]) -> dict[str, str]:
    """Return the mark of each of the named documents as the server has it now, or "absent"."""
    live = _live(spec, frozenset(paths))
    return {path: live[path].mark if path in live else ABSENT for path in paths}


def signature_of(spec: SourceSpec, directory: Path) -> dict[str, str]:
    """Return the marks of the documents staged in `directory`."""
    return {name: item.mark for name, item in _in(spec, directory).items()}


def reach(spec: SourceSpec) -> str:
    """See that the server answers and has every tool that the settings name.

    Raises:
        SourceUnreadable: it does not, or lacks one.
    """
    with connected(spec) as server:
        engine, tools = server.engine, server.tools()
    options = spec.options
    needed = [
        options["tool"],
        *(options[key]["tool"] for key in ("restore", "remove") if options[key]),
    ]
    missing = [tool for tool in needed if tool not in tools]
    if missing:
        raise SourceUnreadable(
            f"source {spec.name!r}: {engine} at {spec.path} has no tool {missing[0]!r}",
            hint=f"Correct the source in the settings; it has: {', '.join(sorted(tools)):.500}.",
        )
    more = "" if options["restore"] else "; restores go to scratch, as no `restore` tool is named"
    return f"{engine} at {spec.path} answers, and has {', '.join(needed)}{more}"


def keep(spec: SourceSpec, directory: Path, staged: Path) -> KeptCopy:
    """Save what placing `staged` would change; `staged` may also be an undo point to put back."""
    put, removed = _wanted(spec, staged)
    live = _live(spec, frozenset({*put, *removed}))
    created = {name: item for name, item in put.items() if name not in live}
    size = 0
    for part, held in (("present", live), ("created", created)):
        make_directory_durably(directory / part)
        for item in held.values():
            write_durably(directory / part / item.name, item.content)
            size += len(item.content)
    write_durably(directory / KEPT, json.dumps({"version": _VERSION}).encode())
    return KeptCopy("present" if live else "absent", size)


def place(spec: SourceSpec, staged: Path) -> list[str]:
    """Give back what the server lacks or has differently; return notes for people.

    Raises:
        RestoreError: the settings name no tool for that.
        SourceUnreadable: the server refused a document; those before it are there.
    """
    return _exchanged(spec, _in(spec, staged), {})


def put_back(spec: SourceSpec, directory: Path) -> list[str]:
    """Make the server's documents what `keep` saw; return notes for people. May be repeated.

    Raises:
        IntegrityError: the undo point is damaged; nothing was touched.
    """
    put, removed = _kept(spec, directory)
    return _exchanged(spec, put, removed)


def _exchanged(
    spec: SourceSpec, put: Mapping[str, Document], removed: Mapping[str, Document]
) -> list[str]:
    if put and not spec.options.get("restore"):
        raise RestoreError(
            f"source {spec.name!r} has no tool to give documents back with",
            hint="Name it as `restore` in the settings, or restore with target=scratch and give "
            "the files back yourself. Nothing was touched.",
        )
    live: dict[str, Document] = {}
    others: list[str] = []

    def look(document: Document) -> None:
        if document.name in put or document.name in removed:
            live[document.name] = document
        else:
            others.append(document.name)

    with connected(spec) as server:
        server.listed(look)
        for name, document in sorted(put.items()):
            _give(server, spec, document, live.get(name))
        stay = []
        for name in sorted(removed):
            if name in live and spec.options.get("remove"):
                server.removed(live[name])
            elif name in live:
                stay.append(name)
    return [
        *_named("left alone, being only there", others),
        *_named("stay, since the settings name no `remove` tool", stay),
    ]


def _give(
    server: WorkflowServer, spec: SourceSpec, document: Document, live: Document | None
) -> None:
    if live is not None and live.mark == document.mark:
        return
    if live is not None and not spec.options["restore"]["replaces"]:
        server.removed(live)
    server.stored(document)


def _live(spec: SourceSpec, names: frozenset[str]) -> dict[str, Document]:
    """Return those of the named documents that the server has."""
    found: dict[str, Document] = {}

    def keep(document: Document) -> None:
        if document.name in names:
            found[document.name] = document

    with connected(spec) as server:
        server.listed(keep)
    return found


def _wanted(
    spec: SourceSpec, staged: Path
) -> tuple[Mapping[str, Document], Mapping[str, Document]]:
    """Return what is to be put there, and what taken away."""
    if (staged / KEPT).exists():
        return _kept(spec, staged)
    return _in(spec, staged), {}


def _kept(spec: SourceSpec, directory: Path) -> tuple[dict[str, Document], dict[str, Document]]:
    try:
        version = json.loads((directory / KEPT).read_bytes())["version"]
        if version == _VERSION:
            return _in(spec, directory / "present"), _in(spec, directory / "created")
        why = f"version {version} of it is not known here"
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SourceUnreadable) as error:
        why = str(error)
    raise IntegrityError(
        f"the undo point {directory} cannot be used: {why}",
        hint="Nothing was touched. Restore from a backup instead.",
    )


def _in(spec: SourceSpec, directory: Path) -> dict[str, Document]:
    """Read the documents in a directory of ours."""
    found = {}
    for path in sorted(directory.iterdir()):
        try:
            ignored = spec.options.get("ignore", ())
            found[path.name] = documents.read(path.name, _content(path), ignored)
        except NoDocument as error:
            raise SourceUnreadable(
                f"source {spec.name!r}: {error}",
                hint="The backup holds something mcp-backup did not write. Nothing was touched.",
            ) from error
    return found


def _content(path: Path) -> bytes:
    """Return the bytes of a staged file.

    Raises:
        FileNotFoundError: there is none.
        NoDocument: a hostile backup has something else there, a link for one.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        raise NoDocument(f"{path.name} is no file")
    return path.read_bytes()


def _send(spec: SourceSpec, sink: Sink, path: Path) -> FileEvidence:
    content = path.read_bytes()
    path.unlink()  # scratch is not for what has been handed on
    sink.entry(
        Entry(
            path=path.name,
            type="file",
            mode=_MODE,
            mtime_ns=0,  # documents have no time of their own; the same one keeps the tree the same
            uid=os.geteuid(),
            gid=os.getegid(),
            size=len(content),
        )
    )
    sink.write(content)
    return sink.end_file(f"{spec.path}#{path.name}")


def _named(what: str, names: Iterable[str]) -> list[str]:
    listed = sorted(names)
    if not listed:
        return []
    more = ", ..." if len(listed) > _MOST_NAMED else ""
    return [f"{what}: {', '.join(listed[:_MOST_NAMED])}{more} ({len(listed)})"]
