"""Tools that take their own arguments and no others, and whose refusals can be acted on.

The SDK ignores unknown arguments, words bad ones as a validation dump, and hides the text of
everything but its own error class. A `ClosedTool` refuses unknown arguments, words every
argument error as one sentence, and tells a `BackupError` with its code, fact and next step.
Anything else raised stays a bug: the SDK logs it with its traceback and answers generically.
"""

import difflib
import inspect
import json
from collections.abc import Callable
from typing import Any, TypeVar

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mcp_backup.errors import BackupError, NotPermitted, UsageError
from mcp_backup.history_facts import Asker, asked_by
from mcp_backup.server.replies import Reply
from mcp_backup.server.scopes import LOCAL, access_token, refuse_outsiders
from mcp_backup.server.wording import readable, sentence

ERROR_META = "mcp-backup/error"  # the key of `_meta` under which an error's facts are
ANSWER_LIMIT = 8000  # characters of text and structured content together, about 2,000 tokens
_ROWS = (50, 20, 10, 5, 2, 1)

ReportT = TypeVar("ReportT")
ReplyT = TypeVar("ReplyT", bound=Reply)


class ClosedTool(Tool):
    """A tool whose errors a client can read and act on."""

    async def run(
        self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False
    ) -> Any:
        """Run the tool; expected failures are results with `is_error`, never exceptions."""
        try:
            refuse_outsiders(self.name)
        except NotPermitted as error:
            return refused(error)
        try:
            self.fn_metadata.validate_arguments(arguments)
        except ValidationError as error:
            return refused(UsageError(self._wording(error), hint="Nothing was done."))
        try:
            with asked_by(_asker(context, self.name)):
                return await super().run(arguments, context, convert_result)
        except UnexpectedToolError as error:
            if isinstance(error.__cause__, BackupError):
                return refused(error.__cause__)
            raise

    def _wording(self, error: ValidationError) -> str:
        known = list(self.parameters["properties"])
        return f"{self.name}: " + "; ".join(_complaint(each, known) for each in error.errors())


def _asker(context: Context[Any, Any], tool: str) -> Asker:
    """Say who calls: clients tell their name and version when they connect, or never.

    Over HTTP, whose token it came with is known as well.
    """
    client = context.session.client_params
    info = client.client_info if client else None
    token = access_token(context.request_context.request)
    shown = f" with {token.client_id}" if token and token.client_id != LOCAL else ""
    return Asker("mcp", f"{info.name if info else ''}{shown}", info.version if info else "", tool)


def closed(fn: Callable[..., Any], title: str, annotations: ToolAnnotations) -> Tool:
    """Make a tool of an async function: its docstring is the description, its arguments all."""
    tool = ClosedTool.from_function(
        fn, title=title, description=inspect.cleandoc(fn.__doc__ or ""), annotations=annotations
    )
    model = tool.fn_metadata.arg_model
    model.model_config["extra"] = "forbid"
    model.model_rebuild(force=True)
    tool.parameters = _lean(model.model_json_schema(by_alias=True))
    tool.fn_metadata.output_schema = _lean(tool.fn_metadata.output_schema)
    return tool


def told(
    report: ReportT, of: Callable[[ReportT, int | None], ReplyT], summary: Callable[[ReplyT], str]
) -> CallToolResult:
    """Answer with a report: a short text, and the reply as structured content.

    As many rows are shown as fit `ANSWER_LIMIT`, at least one.
    """
    for rows in _ROWS:
        reply = of(report, rows)
        text, content = summary(reply), reply.model_dump(mode="json")
        if len(text) + len(json.dumps(content)) <= ANSWER_LIMIT:
            break
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=content)


def refused(error: BackupError) -> CallToolResult:
    """Answer with an error.

    Without structured content, since clients check that against the schema of success.
    """
    hint = readable(error.hint)
    facts = {"code": error.code, "retryable": error.retryable, "hint": hint}
    text = sentence(error.code, readable(str(error)), hint)
    return CallToolResult(
        content=[TextContent(type="text", text=text)], is_error=True, _meta={ERROR_META: facts}
    )


def _complaint(error: ErrorDetails, known: list[str]) -> str:
    """Word one argument error without repeating the value, which may be long or secret."""
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        return f"there is no argument {name[:40]!r}{meant} (it takes {', '.join(known)})"
    if error["type"] == "missing":
        return f"{name} is needed"
    if error["type"] == "bool_parsing":
        return f"{name} should be true or false"
    message = error["msg"].replace("tuple", "list")
    return f"{name} {message[0].lower()}{message[1:]}".replace("input should", "should")


def _lean(schema: Any) -> Any:
    """Leave out of a schema what repeats its names: titles, and descriptions of models."""
    if isinstance(schema, list):
        return [_lean(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    model = "properties" in schema
    return {
        key: {name: _lean(each) for name, each in value.items()}
        if key in ("properties", "$defs")
        else _lean(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str)) and not (key == "description" and model)
    }
