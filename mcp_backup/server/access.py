"""Who a request comes from: the token it shows, or this machine where there are no tokens.

Without any token and without OAuth, a server that only this machine reaches lets everybody in,
with the scopes of the settings. The first token ends that, also for servers that are running.
"""

import logging
from collections.abc import Sequence
from functools import partial

from anyio import to_thread
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, RequireAuthMiddleware
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from pydantic import AnyHttpUrl, ConfigDict, TypeAdapter
from starlette.authentication import AuthCredentials, AuthenticationBackend
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_backup.errors import SettingsInvalid
from mcp_backup.server.oauth import JwtVerifier
from mcp_backup.server.scopes import LOCAL
from mcp_backup.settings_server import ALL_SCOPES, OAuthSettings
from mcp_backup.tokens import PREFIX, Token, TokenStore

logger = logging.getLogger(__name__)

_BEARER = "bearer "
_ADDRESS = TypeAdapter(AnyHttpUrl, config=ConfigDict(url_preserve_empty_path=True))
_OPEN_PATHS = ("/healthz", "/.well-known/oauth-protected-resource")  # answer little without


class TokenBackend(AuthenticationBackend):
    """Finds out who a request comes from. `unasked`: the scopes without a token, where allowed."""

    def __init__(
        self, tokens: TokenStore, oauth: OAuthSettings | None, unasked: Sequence[str] | None
    ) -> None:
        """Accept tokens of ours, and the authorization server's if one is configured."""
        self._tokens = tokens
        self._jwt = JwtVerifier(oauth) if oauth else None
        self._unasked = unasked

    async def authenticate(
        self, conn: HTTPConnection
    ) -> tuple[AuthCredentials, AuthenticatedUser] | None:
        """Return who it is; None if nobody who may come in."""
        if await self._is_open():
            found: AccessToken | None = _let_in(LOCAL, self._unasked or ())
        else:
            found = await self._shown(conn.headers.get("authorization", ""))
        if found is None:
            return None
        return AuthCredentials(found.scopes), AuthenticatedUser(found)

    async def _is_open(self) -> bool:
        if self._unasked is None or self._jwt:
            return False
        try:
            return not await to_thread.run_sync(self._tokens.tokens)
        except SettingsInvalid as error:
            logger.warning("%s", error)
            return False

    async def _shown(self, header: str) -> AccessToken | None:
        if not header.lower().startswith(_BEARER):
            return None
        shown = header[len(_BEARER) :].strip()
        if not shown.startswith(PREFIX):
            return await self._jwt.verify_token(shown) if self._jwt else None
        try:
            token = await to_thread.run_sync(self._tokens.find, shown)
        except SettingsInvalid as error:
            logger.warning("%s", error)
            return None
        return _let_in(f"token {token.name}", token.scopes, token) if token else None


class Admission:
    """Lets in whoever shows a good token; /healthz answers others too, in one word."""

    def __init__(self, app: ASGIApp, metadata_url: AnyHttpUrl | None) -> None:
        """Guard an application; the address of RFC 9728's metadata is told to those refused."""
        self._open = app
        self._guarded = RequireAuthMiddleware(app, [], metadata_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse with 401, or go on."""
        admitted = scope["type"] == "lifespan" or scope["path"].startswith(_OPEN_PATHS)
        await (self._open if admitted else self._guarded)(scope, receive, send)


def admitting(app: ASGIApp, backend: TokenBackend, metadata_url: AnyHttpUrl | None) -> ASGIApp:
    """Put a guard before an application."""
    admission = Admission(app, metadata_url)
    return AuthenticationMiddleware(AuthContextMiddleware(admission), backend=backend)


def metadata(oauth: OAuthSettings | None) -> tuple[AnyHttpUrl | None, list[Route]]:
    """Return where the metadata of RFC 9728 is, and its routes.

    An audience that is no address is not a resource that could be described.
    """
    if oauth is None or not oauth.audience.startswith(("https://", "http://")):
        return None, []
    resource = _ADDRESS.validate_python(oauth.audience)
    supported = list(oauth.scopes) or list(ALL_SCOPES)
    make = partial(create_protected_resource_routes, resource_name="mcp-backup")
    routes = make(resource, [_ADDRESS.validate_python(oauth.issuer)], supported)
    return build_resource_metadata_url(resource), routes


def _let_in(client: str, scopes: Sequence[str], token: Token | None = None) -> AccessToken:
    expires = int(token.expires.timestamp()) if token else None
    return AccessToken(token="", client_id=client, scopes=list(scopes), expires_at=expires)
