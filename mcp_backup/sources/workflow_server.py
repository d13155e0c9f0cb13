"""Another MCP server, asked for its documents and given them back: the one place that talks to it.

    connected   the server, over streamable HTTP or as a child on stdio, for a block
    listed      every document it has, over all pages
    stored      one document given back
    removed     one document taken away, for undoing a restore that made it

A server can fail inside a success (`{"status": "error"}`); that is a failure here. So is an answer
that is visibly not all: fewer documents than the server says it has, or a page said to have a
successor that the settings do not say how to ask for.

MCP's client is asynchronous and a kind of source is not: the client lives in a thread of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

from mcp_backup.errors import BackupError, SourceUnreadable
from mcp_backup.sources import documents
from mcp_backup.sources.documents import Document, NoDocument
from mcp_backup.sources.source import SourceSpec

if TYPE_CHECKING:
    from mcp.client import Client
    from mcp_types import CallToolResult

_MOST_SHOWN = 200  # characters of another program's text in a message of ours
_TOTALS = ("total", "total_count")  # members in which servers say how many documents there are


class WorkflowServer:
    """A connected server, as one source's settings describe it."""

    def __init__(self, spec: SourceSpec, client: "Client", portal: BlockingPortal) -> None:
        """Talk for `spec` through `client`, which lives in `portal`; `connected` makes one."""
        self.engine = _engine(client)
        self._spec = spec
        self._client = client
        self._portal = portal
        self._options = spec.options

    def listed(self, keep: Callable[[Document], None]) -> int:
        """Hand every document to `keep`, page after page; return how many there were.

        Raises:
            SourceUnreadable: the server fails, answers what is no list of documents, names two
                alike, or visibly has more than it gave.
        """
        arguments = dict(self._options["arguments"])
        cursor: Mapping[str, str] = self._options.get("cursor") or {}
        names: set[str] = set()
        asked: set[str] = set()
        while True:
            answer = self.call(self._options["tool"], arguments)
            for document in self._documents(answer):
                if document.name in names:
                    raise self._wrong(f"two documents are named {document.name}", "id")
                names.add(document.name)
                keep(document)
            after = answer.get(cursor["answer"]) if cursor and isinstance(answer, dict) else None
            if after in (None, ""):
                self._refuse_partial(answer, len(names))
                return len(names)
            if str(after) in asked:
                raise self._wrong(f"its pages do not end: {after!r:.80} came twice", "cursor")
            asked.add(str(after))
            arguments[cursor["argument"]] = after

    def stored(self, document: Document) -> None:
        """Give one document back."""
        restore = self._options["restore"]
        value = document.value
        if restore["list"]:
            value = [value]
        arguments = {restore["argument"]: value} if restore["argument"] else value
        self.call(restore["tool"], arguments)

    def removed(self, document: Document) -> None:
        """Take one document away."""
        remove = self._options["remove"]
        value: Any = document.value
        if remove["by"] == "id":
            found = documents.identified(value, self._options["id"])
            value = found[0] if len(found) == 1 else found
        if remove["list"]:
            value = [value]
        self.call(remove["tool"], {remove["argument"]: value})

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        """Call a tool and return the JSON value that it answers.

        Raises:
            SourceUnreadable: it fails, by whatever means it says so.
        """
        seconds = self._options["timeout_seconds"]
        result = self._portal.call(self._client.call_tool, tool, dict(arguments), seconds)
        if result.is_error:
            raise self._failed(tool, _text(result))
        answer = self._value(tool, result)
        if why := _disguised_failure(answer):
            raise self._failed(tool, why)
        return answer

    def tools(self) -> set[str]:
        """Return the names of the server's tools."""
        names: set[str] = set()
        cursor = None
        while True:
            page = self._portal.call(partial(self._client.list_tools, cursor=cursor))
            names |= {tool.name for tool in page.tools}
            cursor = page.next_cursor
            if cursor is None:
                return names

    def _documents(self, answer: Any) -> Iterator[Document]:
        options = self._options
        try:
            items = _items(answer, options["items"])
            if items is None:
                yield documents.whole(options["tool"], answer, options["ignore"])
                return
            for item in items:
                yield documents.document(item, options["id"], options["ignore"])
        except NoDocument as error:
            raise self._wrong(str(error), "items` or `id") from error

    def _refuse_partial(self, answer: Any, got: int) -> None:
        if not isinstance(answer, dict):
            return
        for member in _TOTALS:
            total = answer.get(member)
            if isinstance(total, int) and not isinstance(total, bool) and total > got:
                raise self._wrong(f"it has {total} documents and gave {got}", "cursor")
        if answer.get("has_more") is True:
            raise self._wrong(f"it has more documents than the {got} it gave", "cursor")

    def _value(self, tool: str, result: "CallToolResult") -> Any:
        if result.structured_content is not None:
            content = result.structured_content
            return content["result"] if set(content) == {"result"} else content
        texts = [block.text for block in result.content if block.type == "text"]
        try:
            values = [documents.read(tool, text.encode(), ()).value for text in texts]
        except NoDocument as error:
            shown = " ".join(texts)[:_MOST_SHOWN]
            raise self._wrong(f"{tool} answers text that is not JSON: {shown!r}", "tool") from error
        return values[0] if len(values) == 1 else values

    def _failed(self, tool: str, why: str) -> SourceUnreadable:
        return SourceUnreadable(
            f"source {self._spec.name!r}: {tool} failed: {_printable(why)}",
            hint="Look at that server and its log, then try again.",
        )

    def _wrong(self, what: str, setting: str) -> SourceUnreadable:
        return SourceUnreadable(
            f"source {self._spec.name!r}: {what}",
            hint=f"Correct `{setting}` of the source in the settings, or `arguments`.",
        )


@contextmanager
def connected(spec: SourceSpec) -> Iterator[WorkflowServer]:
    """Be connected to a source's server for the duration of the block.

    Raises:
        SourceUnreadable: nobody answers there, or not in MCP.
    """
    library = import_module("mcp_backup.sources.workflow_client")  # it takes most of a second
    try:
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(library.client_of(spec)) as client,
        ):
            yield WorkflowServer(spec, client, portal)
    except (*library.BROKEN, BaseExceptionGroup) as error:
        for leaf in _leaves(error):
            if isinstance(leaf, BackupError):
                raise leaf from None
            if isinstance(leaf, library.BROKEN):
                raise SourceUnreadable(
                    f"source {spec.name!r}: {spec.path}: {_printable(str(leaf))}",
                    hint="Start that server, or correct its address in the settings.",
                ) from error
        raise


def _engine(client: "Client") -> str:
    info = client.server_info
    return f"{_printable(info.name)} {_printable(info.version)}".strip() if info else "MCP server"


def _items(answer: Any, member: str) -> Sequence[Any] | None:
    """Return the list of documents in an answer; None when the answer is one document itself.

    Raises:
        NoDocument: there is no list where the settings say so.
    """
    if isinstance(answer, str):
        raise NoDocument(f"the answer is text, not documents: {answer[:_MOST_SHOWN]!r}")
    if not member:
        if isinstance(answer, list):
            return answer
        lists = [value for value in answer.values() if isinstance(value, list)] if answer else []
        return lists[0] if len(lists) == 1 else None
    found = answer
    for part in member.split("."):
        if not isinstance(found, Mapping) or part not in found:
            has = ", ".join(sorted(map(str, found))) if isinstance(found, Mapping) else "no members"
            raise NoDocument(f"the answer has no {member!r}; it has: {has:.{_MOST_SHOWN}}")
        found = found[part]
    if not isinstance(found, list):
        raise NoDocument(f"{member!r} in the answer is no list")
    return found


def _disguised_failure(answer: Any) -> str:
    """Return why an answer that came as a success is a failure; "" when it is none."""
    if not isinstance(answer, Mapping):
        return ""
    status = answer.get("status")
    failed = isinstance(status, str) and status.casefold() in ("error", "failed", "failure")
    if failed or answer.get("success") is False or answer.get("isError") is True:
        told = answer.get("error") or answer.get("message") or answer.get("detail") or "no reason"
        return str(told)
    return ""


def _text(result: "CallToolResult") -> str:
    return " ".join(block.text for block in result.content if block.type == "text")


def _printable(text: str) -> str:
    """Bound another program's text, and take the control characters out."""
    return "".join(c if c.isprintable() else " " for c in text)[:_MOST_SHOWN].strip() or "no reason"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
