"""The `[server]` table: where the server listens, who may talk to it, and what they may do."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mcp_backup.settings_sections import Filled, Section, UsablePath

Scope = Literal["read", "backup", "restore", "admin"]
ALL_SCOPES: tuple[Scope, ...] = ("read", "backup", "restore", "admin")
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


def _origin(text: str) -> str:
    scheme, apart, rest = text.partition("://")
    if scheme not in ("http", "https") or not apart or not rest or set(rest) & set("/?#@ *"):
        raise ValueError('must be an origin such as "https://app.example"')
    return text.lower()


def _host(text: str) -> str:
    if not text or set(text) & set("/?#@ *,") or (":" in text and not text.startswith("[")):
        raise ValueError('must be a host name such as "backup.example", without a port')
    return text.lower().strip("[]")


def _web(text: str) -> str:
    if not text.startswith(("https://", "http://127.0.0.1", "http://localhost", "http://[::1]")):
        raise ValueError("must begin with https://; http:// is for this machine only")
    return text


HostName = Annotated[str, AfterValidator(_host)]
Origin = Annotated[str, AfterValidator(_origin)]
WebAddress = Annotated[str, AfterValidator(_web)]


class OAuthSettings(Section):
    """Whose access tokens are accepted. Only tokens signed with a public key can be.

    `scopes` says which of our scopes each of the issuer's stands for; without, the same names.
    """

    issuer: WebAddress
    audience: Filled
    jwks_url: WebAddress | None = None
    jwks_file: UsablePath | None = None
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256")
    scopes: dict[str, tuple[Scope, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_place_for_keys(self) -> "OAuthSettings":
        if (self.jwks_url is None) == (self.jwks_file is None):
            raise ValueError("must have either `jwks_url` or `jwks_file`")
        return self


class ServerSettings(Section):
    """Where the HTTP server listens, who may talk to it, and what clients may do.

    `scopes` are those of a client that shows no token: on stdio, and over HTTP on this machine
    as long as there are no tokens.
    """

    host: Filled = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    allowed_hosts: tuple[HostName, ...] = ()
    allowed_origins: tuple[Origin, ...] = ()
    scopes: tuple[Scope, ...] = ("read", "backup", "restore")
    trusted_proxies: tuple[Filled, ...] = ()
    tls_cert: UsablePath | None = None
    tls_key: UsablePath | None = None
    max_calls: Annotated[int, Field(ge=1, le=1000)] = 32
    oauth: OAuthSettings | None = None

    @model_validator(mode="after")
    def _both_of_tls(self) -> "ServerSettings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("must have both `tls_cert` and `tls_key`, or neither")
        return self
