"""What the MCP conformance suite expects of a server under test, beside our own tools.

The suite names these tools, prompts and resources, and says what each must do. They are mounted
on our own HTTP application, so that what is judged is our server: its guard, its sessions, its
answers. They are in no release.
"""

import asyncio
import json
from base64 import b64decode
from typing import Annotated, Any, Literal

from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import Message, UserMessage
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CallToolResult,
    ClientCapabilities,
    Completion,
    ContentBlock,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    MissingRequiredClientCapabilityErrorData,
    SamplingCapability,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAF"
    "BQIAX8jx0gAAAABJRU5ErkJggg=="
)
SILENCE = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
Ctx = Context[Any, Any]
Kind = Literal["string", "boolean"]
Rounds = CallToolResult | InputRequiredResult


def mount(server: MCPServer[Any]) -> None:
    """Mount everything."""
    for tools in (_contents, _running, _elicitations, _rounds):
        tools(server)
    _resources(server)
    _prompts(server)
    _of_2025(server)


def text(words: str) -> TextContent:
    return TextContent(type="text", text=words)


def done(words: str) -> CallToolResult:
    return CallToolResult(content=[text(words)])


def embedded(uri: str, mime: str, words: str) -> EmbeddedResource:
    contents = TextResourceContents(uri=uri, mime_type=mime, text=words)
    return EmbeddedResource(type="resource", resource=contents)


def _contents(server: MCPServer[Any]) -> None:
    """Kinds of content."""
    image = ImageContent(type="image", data=PIXEL, mime_type="image/png")

    @server.tool(description="A simple text", structured_output=False)
    def test_simple_text() -> str:
        return "This is a simple text response for testing."

    @server.tool(description="An image", structured_output=False)
    def test_image_content() -> ImageContent:
        return image

    @server.tool(description="A sound", structured_output=False)
    def test_audio_content() -> AudioContent:
        return AudioContent(type="audio", data=SILENCE, mime_type="audio/wav")

    @server.tool(description="An embedded resource", structured_output=False)
    def test_embedded_resource() -> EmbeddedResource:
        return embedded("test://embedded-resource", "text/plain", "An embedded resource.")

    @server.tool(description="Text, image and resource", structured_output=False)
    def test_multiple_content_types() -> list[ContentBlock]:
        resource = embedded(
            "test://mixed-content-resource", "application/json", '{"test":"data","value":123}'
        )
        return [text("Multiple content types test:"), image, resource]

    @server.tool(description="Fails", structured_output=False)
    def test_error_handling() -> str:
        raise ToolError("This tool intentionally returns an error for testing")


def _running(server: MCPServer[Any]) -> None:
    """What is told while a tool runs."""

    @server.tool(description="Logs while it runs", structured_output=False)
    async def test_tool_with_logging(ctx: Ctx) -> str:
        for step in ("started", "is processing data", "completed"):
            await ctx.request_context.session.send_log_message("info", f"The tool {step}")
            await asyncio.sleep(0.05)
        return "logged"

    @server.tool(description="Logs, if it is asked to", structured_output=False)
    async def test_logging_tool(ctx: Ctx) -> str:
        await ctx.request_context.session.send_log_message("info", "Logged")
        return "logged"

    @server.tool(description="Tells its progress", structured_output=False)
    async def test_tool_with_progress(ctx: Ctx) -> str:
        for share in (0, 50, 100):
            await ctx.report_progress(share, 100, f"{share} of 100")
            await asyncio.sleep(0.05)
        return "done"

    @server.tool(description="Asks the client's model", structured_output=False)
    async def test_sampling(prompt: str, ctx: Ctx) -> str:
        answer = await ctx.request_context.session.create_message(
            [SamplingMessage(role="user", content=text(prompt))],
            max_tokens=100,
            related_request_id=ctx.request_id,
        )
        assert isinstance(answer.content, TextContent)
        return f"LLM response: {answer.content.text}"

    @server.tool(description="Needs a client that has a model", structured_output=False)
    async def test_missing_capability(ctx: Ctx) -> str:
        able = ctx.client_capabilities
        if able is None or able.sampling is None:
            needed = ClientCapabilities(sampling=SamplingCapability())
            data = MissingRequiredClientCapabilityErrorData(required_capabilities=needed)
            raise MCPError(
                MISSING_REQUIRED_CLIENT_CAPABILITY,
                "the client has no model",
                data.model_dump(mode="json", by_alias=True, exclude_none=True),
            )
        return "the client has one"


class Account(BaseModel):
    """A user's account."""

    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


class Defaults(BaseModel):
    """One default of each primitive kind."""

    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: Annotated[str, Field(json_schema_extra={"enum": ["active", "inactive", "pending"]})] = (
        "active"
    )
    verified: bool = True


def _titled(*values: str) -> list[dict[str, str]]:
    return [{"const": value, "title": f"The {value} one"} for value in values]


class Choices(BaseModel):
    """Every way to write an enumeration."""

    untitledSingle: Annotated[  # noqa: N815 - the suite's names
        str, Field(json_schema_extra={"enum": ["option1", "option2", "option3"]})
    ]
    titledSingle: Annotated[  # noqa: N815
        str, Field(json_schema_extra={"oneOf": _titled("value1", "value2", "value3")})
    ]
    legacyEnum: Annotated[  # noqa: N815
        str,
        Field(json_schema_extra={"enum": ["opt1", "opt2"], "enumNames": ["One", "Two"]}),
    ]
    untitledMulti: Annotated[  # noqa: N815
        list[str],
        Field(json_schema_extra={"items": {"type": "string", "enum": ["option1", "option2"]}}),
    ]
    titledMulti: Annotated[  # noqa: N815
        list[str], Field(json_schema_extra={"items": {"anyOf": _titled("value1", "value2")}})
    ]


def _elicitations(server: MCPServer[Any]) -> None:
    """Questions to the person, by the protocol of 2025."""

    async def asked(ctx: Ctx, message: str, model: type[BaseModel]) -> str:
        answer = await ctx.elicit(message, model)
        data = answer.data.model_dump_json() if answer.action == "accept" else "{}"
        return f"User response: action={answer.action}, content={data}"

    @server.tool(description="Asks for an account", structured_output=False)
    async def test_elicitation(message: str, ctx: Ctx) -> str:
        return await asked(ctx, message, Account)

    @server.tool(description="Asks with defaults", structured_output=False)
    async def test_elicitation_sep1034_defaults(ctx: Ctx) -> str:
        return await asked(ctx, "Please review the defaults", Defaults)

    @server.tool(description="Asks to choose", structured_output=False)
    async def test_elicitation_sep1330_enums(ctx: Ctx) -> str:
        return await asked(ctx, "Please choose", Choices)

    @server.tool(description="Asks within the result", structured_output=False)
    async def test_streaming_elicitation(ctx: Ctx) -> Rounds:
        return _ask({"user_name": _question("What is your name?", "name")})


def _question(message: str, name: str, kind: Kind = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _to_the_model(words: str) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=text(words))
    return CreateMessageRequest(
        params=CreateMessageRequestParams(messages=[message], max_tokens=100)
    )


def _ask(requests: dict[str, InputRequest], state: str | None = None) -> InputRequiredResult:
    return InputRequiredResult(input_requests=requests, request_state=state)


def _answer(ctx: Ctx, key: str) -> Any:
    return (ctx.input_responses or {}).get(key)


def _content(ctx: Ctx, key: str, name: str) -> Any:
    """What the person filled in; None when they did not, or not this."""
    return (getattr(_answer(ctx, key), "content", None) or {}).get(name)


def _rounds(server: MCPServer[Any]) -> None:
    """Questions within results, by the protocol of 2026."""
    name = _question("What is your name?", "name")
    tool = server.tool

    @tool(description="Asks for a name", structured_output=False)
    async def test_input_required_result_elicitation(ctx: Ctx) -> Rounds:
        told = _content(ctx, "user_name", "name")
        return done(f"Hello, {told}!") if told else _ask({"user_name": name})

    @tool(description="Asks the client's model", structured_output=False)
    async def test_input_required_result_sampling(ctx: Ctx) -> Rounds:
        told = _answer(ctx, "capital_question")
        if told is None:
            return _ask({"capital_question": _to_the_model("What is the capital of France?")})
        return done(f"The model said: {told.content.text}")

    @tool(description="Asks for roots", structured_output=False)
    async def test_input_required_result_list_roots(ctx: Ctx) -> Rounds:
        told = _answer(ctx, "client_roots")
        if told is None:
            return _ask({"client_roots": ListRootsRequest()})
        return done(f"Roots: {', '.join(str(root.uri) for root in told.roots)}")

    @tool(description="Keeps state between rounds", structured_output=False)
    async def test_input_required_result_request_state(ctx: Ctx) -> Rounds:
        if _answer(ctx, "confirm") is None or ctx.request_state != "asked":
            return _ask({"confirm": _question("Please confirm", "ok", "boolean")}, "asked")
        return done("state-ok")

    @tool(description="Trusts no changed state", structured_output=False)
    async def test_input_required_result_tampered_state(ctx: Ctx) -> Rounds:
        if ctx.request_state != "asked":
            return _ask({"confirm": _question("Please confirm", "ok", "boolean")}, "asked")
        return done("state-ok")

    @tool(description="Asks three things", structured_output=False)
    async def test_input_required_result_multiple_inputs(ctx: Ctx) -> Rounds:
        wanted: dict[str, InputRequest] = {
            "user_name": name,
            "greeting": _to_the_model("Generate a greeting"),
            "client_roots": ListRootsRequest(),
        }
        if all(_answer(ctx, key) is not None for key in wanted):
            return done("all three")
        return _ask(wanted, "asked")

    @tool(description="Asks twice", structured_output=False)
    async def test_input_required_result_multi_round(ctx: Ctx) -> Rounds:
        if ctx.request_state == "second" and (color := _content(ctx, "step2", "color")):
            return done(f"Your favorite color is {color}")
        if ctx.request_state == "first" and _content(ctx, "step1", "name"):
            color_question = _question("Step 2: What is your favorite color?", "color")
            return _ask({"step2": color_question}, "second")
        return _ask({"step1": _question("Step 1: What is your name?", "name")}, "first")

    @tool(description="Asks only what the client can be asked", structured_output=False)
    async def test_input_required_result_capabilities(ctx: Ctx) -> Rounds:
        able = ctx.client_capabilities or ClientCapabilities()
        wanted: dict[str, InputRequest] = {}
        if able.sampling:
            wanted["greeting"] = _to_the_model("Generate a greeting")
        if able.elicitation:
            wanted["user_name"] = name
        return _ask(wanted) if wanted else done("There is nothing that I could ask")


def _resources(server: MCPServer[Any]) -> None:
    @server.resource("test://static-text", description="A text", mime_type="text/plain")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", description="An image", mime_type="image/png")
    def static_binary() -> bytes:
        return b64decode(PIXEL)

    @server.resource("test://watched-resource", description="Watched", mime_type="text/plain")
    def watched() -> str:
        return "Watched resource content"

    @server.resource("test://template/{id}/data", description="By id", mime_type="application/json")
    def by_id(id: str) -> str:
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


def _prompts(server: MCPServer[Any]) -> None:
    @server.prompt(description="A prompt")
    def test_simple_prompt() -> list[Message]:
        return [UserMessage("This is a simple prompt for testing.")]

    @server.prompt(description="A prompt with arguments")
    def test_prompt_with_arguments(arg1: str, arg2: str) -> list[Message]:
        return [UserMessage(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'")]

    @server.prompt(description="A prompt with a resource")
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[Message]:  # noqa: N803
        resource = embedded(resourceUri, "text/plain", "Embedded resource content for testing.")
        return [UserMessage(resource), UserMessage("Please process the embedded resource above.")]

    @server.prompt(description="A prompt with an image")
    def test_prompt_with_image() -> list[Message]:
        image = ImageContent(type="image", data=PIXEL, mime_type="image/png")
        return [UserMessage(image), UserMessage("Please analyze the image above.")]

    @server.prompt(description="A prompt that asks first")
    async def test_input_required_result_prompt(ctx: Ctx) -> list[Message] | InputRequiredResult:
        told = _content(ctx, "user_context", "context")
        if not told:
            question = _question("What context should the prompt use?", "context")
            return _ask({"user_context": question})
        return [UserMessage(f"Use this context: {told}")]

    @server.completion()  # type: ignore[no-untyped-call,untyped-decorator]
    async def complete(ref: Any, argument: Any, context: Any) -> Completion:
        return Completion(values=[], total=0, has_more=False)


def _of_2025(server: MCPServer[Any]) -> None:
    """What the SDK's server does not serve by itself, and only the protocol of 2025 has."""

    async def accepted(ctx: ServerRequestContext[Any, Any], params: Any) -> EmptyResult:
        return EmptyResult()

    low = server._lowlevel_server
    low.add_request_handler("logging/setLevel", SetLevelRequestParams, accepted)
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, accepted)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, accepted)
