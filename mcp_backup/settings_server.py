"""The `[server]` table: where the server listens, who may talk to it, and what they may do."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import force_setattr

from mcp_backup.settings_table import Filled, Refused, Section, UsablePath, shaped

Scope = Literal["read", "backup", "restore", "admin"]
ALL_SCOPES: tuple[Scope, ...] = ("read", "backup", "restore", "admin")
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


HostName = Annotated[
    str,
    shaped(
        r"\A(?:\[[^/?#@ *,]*|[^:/?#@ *,]+)\Z",
        'be a host name such as "backup.example", without a port',
    ),
]
Origin = Annotated[
    str, shaped(r"\Ahttps?://[^/?#@ *]+\Z", 'be an origin such as "https://app.example"')
]
WebAddress = Annotated[
    str,
    shaped(
        r"\A(?:https://|http://127\.0\.0\.1|http://localhost|http://\[::1\])",
        "begin with https://; http:// is for this machine only",
    ),
]


class OAuthSettings(Section, frozen=True, kw_only=True):
    """Whose access tokens are accepted. Only tokens signed with a public key can be.

    `scopes` says which of our scopes each of the issuer's stands for; without, the same names.
    """

    issuer: WebAddress
    audience: Filled
    jwks_url: WebAddress | None = None
    jwks_file: UsablePath | None = None
    algorithms: Annotated[tuple[Algorithm, ...], Meta(min_length=1)] = ("RS256", "ES256")
    scopes: dict[str, tuple[Scope, ...]] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse no place for keys, and two."""
        if (self.jwks_url is None) == (self.jwks_file is None):
            raise Refused("must have either `jwks_url` or `jwks_file`")


class ServerSettings(Section, frozen=True, kw_only=True):
    """Where the HTTP server listens, who may talk to it, and what clients may do.

    `scopes` are those of a client that shows no token: on stdio, and over HTTP on this machine
    as long as there are no tokens.
    """

    host: Filled = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8765
    allowed_hosts: tuple[HostName, ...] = ()
    allowed_origins: tuple[Origin, ...] = ()
    scopes: tuple[Scope, ...] = ("read", "backup", "restore")
    trusted_proxies: tuple[Filled, ...] = ()
    tls_cert: UsablePath | None = None
    tls_key: UsablePath | None = None
    max_calls: Annotated[int, Meta(ge=1, le=1000)] = 32
    oauth: OAuthSettings | None = None

    def __post_init__(self) -> None:
        """Refuse half of TLS, and write hosts and origins as browsers do: small, without []."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise Refused("must have both `tls_cert` and `tls_key`, or neither")
        hosts = tuple(host.lower().strip("[]") for host in self.allowed_hosts)
        force_setattr(self, "allowed_hosts", hosts)
        origins = tuple(origin.lower() for origin in self.allowed_origins)
        force_setattr(self, "allowed_origins", origins)
