"""The least that one can serve with the MCP SDK: what starting a server costs anybody."""

from mcp.server.mcpserver import MCPServer

server: MCPServer[None] = MCPServer("bare", version="1")


@server.tool()
async def hello(name: str = "you") -> str:
    """Greet somebody."""
    return f"hello {name}"


if __name__ == "__main__":
    server.run()
