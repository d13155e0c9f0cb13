"""The worker process of sources: one operation on one source, then the end.

Everything that opens a live database does so here, in a process of its own: a second library, or
a plain open and close of the same file, would drop the locks of the first.

    parent → child   the operation's name and its arguments
    child → parent   for a capture what the sink sends; then
                     answer {value}  or  error {value: {code, message, hint}}
"""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from mcp_backup.arena import Arena
from mcp_backup.channel import Channel, serve_child
from mcp_backup.errors import BackupError, SourceUnreadable
from mcp_backup.record import asdict
from mcp_backup.sources import wire
from mcp_backup.sources.kinds import (
    OPENED,
    database_kind,
    fingerprint,
    kind,
    opened_kind,
    remote_kind,
    server_kind,
)
from mcp_backup.sources.sink import Sink
from mcp_backup.sources.source import SourceSpec

Fields = Mapping[str, Any]


def main(argv: list[str]) -> None:
    """Do the one thing asked for; end when the parent has the answer."""
    channel, arena = serve_child(argv)
    request = channel.receive()
    if request is None:
        return
    try:
        if request.kind == "capture":
            value = _capture(channel, arena, request.fields)
        else:
            value = _OPERATIONS[request.kind](request.fields)
    except BackupError as error:
        _send_error(channel, error)
    except OSError as error:
        _send_error(channel, _refused(request.fields, error))
    else:
        channel.send("answer", value=value)
    while channel.receive() is not None:  # slots given back; the parent closes when it has read all
        pass


def _send_error(channel: Channel, error: BackupError) -> None:
    channel.send("error", value=wire.fields_of(error))


def _refused(fields: Fields, error: OSError) -> BackupError:
    name = fields["spec"]["name"] if "spec" in fields else fields.get("name", "")
    where = error.filename if error.filename is not None else "a file of it"
    return SourceUnreadable(
        f"source {name!r}: {where}: {error.strerror or error}",
        hint="Look at the path's permissions and the space left on its disk, then try again.",
    )


def _capture(channel: Channel, arena: Arena | None, fields: Fields) -> Any:
    if arena is None:
        raise ValueError("a capture needs an arena")
    spec = wire.spec_of(fields["spec"])
    evidence = kind(spec.kind).capture(spec, Sink(channel, arena), Path(fields["scratch"]))
    return asdict(evidence)


def _fingerprints(fields: Fields) -> Any:
    specs = [wire.spec_of(value) for value in fields["specs"]]
    return [_fingerprint(spec) for spec in specs]


def _fingerprint(spec: SourceSpec) -> str:
    try:
        return fingerprint(spec)
    except (BackupError, OSError):
        return ""  # whatever it is, the capture will meet it and say so


def _examine(fields: Fields) -> Any:
    evidence = wire.evidence_of(fields["evidence"]) if fields["evidence"] else None
    directory = Path(fields["directory"])
    if fields["proven"] and evidence is not None and fields["kind"] in OPENED:
        found = opened_kind(fields["kind"]).opens(directory, evidence)
    else:
        found = kind(fields["kind"]).examine(directory, evidence)
    return [asdict(finding) for finding in found]


def _holders(fields: Fields) -> Any:
    spec = wire.spec_of(fields["spec"])
    return [asdict(holder) for holder in kind(spec.kind).holders(spec)]


def _keep(fields: Fields) -> Any:
    spec = wire.spec_of(fields["spec"])
    return asdict(kind(spec.kind).keep(spec, Path(fields["directory"]), Path(fields["staged"])))


def _place(fields: Fields) -> Any:
    spec = wire.spec_of(fields["spec"])
    return kind(spec.kind).place(spec, Path(fields["staged"]))


def _put_back(fields: Fields) -> Any:
    spec = wire.spec_of(fields["spec"])
    return kind(spec.kind).put_back(spec, Path(fields["directory"]))


def _is_sound(fields: Fields) -> Any:
    spec = wire.spec_of(fields["spec"])
    return database_kind(spec.kind).is_sound(spec)


def _content_digest(fields: Fields) -> Any:
    return database_kind(fields["kind"]).content_digest(fields["name"], Path(fields["path"]))


def _signature(fields: Fields) -> Any:
    spec = wire.spec_of(fields["spec"])
    return remote_kind(spec.kind).signature(spec, fields["paths"])


def _signature_of(fields: Fields) -> Any:
    spec = wire.spec_of(fields["spec"])
    return remote_kind(spec.kind).signature_of(spec, Path(fields["directory"]))


def _reach(fields: Fields) -> Any:
    spec = wire.spec_of(fields["spec"])
    return remote_kind(spec.kind).reach(spec)


def _value_of(fields: Fields) -> Any:
    asked = database_kind(fields["kind"])
    if not hasattr(asked, "value_of"):
        raise SourceUnreadable(f"a copy of kind {fields['kind']} answers no queries by itself")
    return asked.value_of(Path(fields["directory"]), fields["query"], fields["seconds"])


def _prepare(fields: Fields) -> None:
    spec = wire.spec_of(fields["spec"])
    evidence = wire.evidence_of(fields["evidence"]) if fields["evidence"] else None
    server_kind(spec.kind).prepare(spec, Path(fields["staged"]), evidence)


def _rehearse(fields: Fields) -> Any:
    spec = wire.spec_of(fields["spec"])
    evidence = wire.evidence_of(fields["evidence"]) if fields["evidence"] else None
    staged, directory = Path(fields["staged"]), Path(fields["directory"])
    return asdict(server_kind(spec.kind).rehearse(spec, staged, directory, evidence))


def _value_in(fields: Fields) -> Any:
    spec = wire.spec_of(fields["spec"])
    directory = Path(fields["directory"])
    return server_kind(spec.kind).value_in(spec, directory, fields["query"], fields["seconds"])


def _discard(fields: Fields) -> None:
    spec = wire.spec_of(fields["spec"])
    server_kind(spec.kind).discard(spec, Path(fields["directory"]))


def _look(fields: Fields) -> Any:
    spec = wire.spec_of(fields["spec"])
    return server_kind(spec.kind).look(spec)


def _export_sql(fields: Fields) -> Any:
    exporter = import_module("mcp_backup.sources.export_sql")
    return exporter.export_sql(Path(fields["image"]), Path(fields["out"]))


_OPERATIONS: Mapping[str, Callable[[Fields], Any]] = {
    "fingerprints": _fingerprints,
    "examine": _examine,
    "holders": _holders,
    "keep": _keep,
    "place": _place,
    "put_back": _put_back,
    "is_sound": _is_sound,
    "content_digest": _content_digest,
    "signature": _signature,
    "signature_of": _signature_of,
    "reach": _reach,
    "value_of": _value_of,
    "prepare": _prepare,
    "rehearse": _rehearse,
    "value_in": _value_in,
    "discard": _discard,
    "look": _look,
    "export_sql": _export_sql,
}

if __name__ == "__main__":
    main(sys.argv)
