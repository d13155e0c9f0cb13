"""Our HTTP application on a free port, bare or with the suite's fixtures: a program of its own."""

import socket
import sys
from pathlib import Path

import uvicorn

from mcp_backup.place import utc_now
from mcp_backup.server.access import TokenBackend
from mcp_backup.server.app import build_server
from mcp_backup.server.guard import ImpatientProtocol
from mcp_backup.server.http import http_app
from mcp_backup.server.keeper import EngineKeeper, opening_of
from mcp_backup.server.logs import log_to_stderr
from mcp_backup.settings import load_settings
from mcp_backup.tokens import TokenStore
from tests.conformance.fixtures import mount


def main(config: str, fixtures: str = "") -> None:
    """Serve, and say where, until the end of the world."""
    log_to_stderr()
    settings = load_settings(Path(config), {}, Path(config).parent)
    keeper = EngineKeeper(opening_of(settings))
    server = build_server(keeper, server=settings.server)
    if fixtures:
        mount(server)
    tokens = TokenStore(settings.state_dir, utc_now)
    app = http_app(
        server, keeper, settings.server, TokenBackend(tokens, None, settings.server.scopes)
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"serving at http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)  # noqa: T201
        configured = uvicorn.Config(app, http=ImpatientProtocol, ws="none", log_config=None)
        uvicorn.Server(configured).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
