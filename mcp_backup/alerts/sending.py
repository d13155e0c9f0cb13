"""One alert, handed to one receiver, within a bounded time.

Requests go through httpx2's transport and not through its client: the client logs every address,
follows redirects and keeps cookies. A redirect counts as a failure, so nothing said to one host
ends up at another. What failed is said in our own words, since a library's may hold the address.
"""

import os
import shlex
import signal
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from urllib.parse import urlsplit, urlunsplit

import anyio
import httpx2
from anyio import to_thread
from msgspec import Struct

from mcp_backup import __version__
from mcp_backup.alerts.alert import Alert
from mcp_backup.settings_alerts import AlertSettings, Event

_MOST_ANSWER = 4096  # bytes of an answer that are looked at
_WITHHELD = ("MCP_BACKUP_PASSWORD",)  # a command needs to tell, not to open the repository
_PATHS = {Event.START: "/start", Event.SUCCESS: "", Event.RECOVERY: "", Event.TEST: "/log"}
_PATH_OF_TROUBLE = "/fail"
_ALRIGHT = (Event.START, Event.SUCCESS, Event.RECOVERY, Event.TEST)


class Undelivered(Exception):
    """An alert did not arrive; the message says why, and holds no secret."""


class Patience(Struct, frozen=True):
    """How long one try may take, all in all, in seconds."""

    request: float = 15.0
    command: float = 60.0


async def send(
    settings: AlertSettings, alert: Alert, environ: Mapping[str, str], patience: Patience
) -> None:
    """Hand `alert` to the receiver. Cancelled, it may have arrived or not.

    Raises:
        Undelivered: it did not arrive, as far as can be known.
    """
    match settings.kind:
        case "command":
            await _run(settings, alert, environ, patience.command)
        case "webhook":
            headers = {"Content-Type": "application/json", **_authorization(settings)}
            await _post(_url(settings), headers, alert.encoded(), patience.request)
        case "ntfy":
            headers = {
                "Title": _header(alert.title),
                "Priority": "default" if alert.event in _ALRIGHT else "high",
                "Tags": "white_check_mark" if alert.event in _ALRIGHT else "warning",
                **_authorization(settings),
            }
            await _post(_url(settings), headers, alert.text.encode(), patience.request)
        case "healthchecks":
            body = f"{alert.title}\n{alert.text}".encode()
            answer = await _post(_ping(_url(settings), alert.event), {}, body, patience.request)
            if answer.startswith(b"OK ("):  # "OK (not found)": it knows no such check
                raise Undelivered("the service knows no such check, or does not take the ping")


def _url(settings: AlertSettings) -> str:
    assert settings.url is not None
    return settings.url.reveal()


def _authorization(settings: AlertSettings) -> dict[str, str]:
    if settings.token is None:
        return {}
    return {"Authorization": f"Bearer {settings.token.reveal()}"}


def _ping(url: str, event: Event) -> str:
    parts = urlsplit(url)
    path = parts.path.rstrip("/") + _PATHS.get(event, _PATH_OF_TROUBLE)
    return urlunsplit(parts._replace(path=path))


def _header(text: str) -> str:
    """Return `text` as one line of ASCII, encoded as RFC 2047 has it where it is not."""
    line = " ".join(text.split())
    if line.isascii() and line.isprintable():
        return line
    return f"=?UTF-8?B?{b64encode(line.encode()).decode()}?="


@cache
def _trusted(scheme: str) -> ssl.SSLContext:
    """Return whose certificates are believed; reading them takes a tenth of a second."""
    if scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # believes nobody, and is not asked
    return httpx2.create_ssl_context()


async def _post(url: str, headers: Mapping[str, str], body: bytes, seconds: float) -> bytes:
    """Send a request; return the beginning of the answer, whose status must be 2xx."""
    trouble = ""
    status, answer = 0, b""
    trust = await to_thread.run_sync(_trusted, urlsplit(url).scheme)
    try:
        with anyio.fail_after(seconds):
            request = httpx2.Request(
                "POST",
                url,
                headers={"User-Agent": f"mcp-backup/{__version__}", **headers},
                content=body,
                extensions={"timeout": httpx2.Timeout(seconds).as_dict()},
            )
            async with httpx2.AsyncHTTPTransport(verify=trust, trust_env=False) as transport:
                response = await transport.handle_async_request(request)
                try:
                    status = response.status_code
                    async for part in response.aiter_raw():
                        answer += part
                        if len(answer) >= _MOST_ANSWER:
                            break
                finally:
                    await response.aclose()
    except (TimeoutError, httpx2.TimeoutException):
        trouble = f"no answer within {seconds:g} seconds"
    except httpx2.ConnectError:
        trouble = "no connection"
    except httpx2.InvalidURL:
        trouble = "the address cannot be used"
    except httpx2.HTTPError as error:
        trouble = f"the connection broke ({type(error).__name__})"
    if trouble:
        raise Undelivered(trouble)
    if 300 <= status < 400:
        raise Undelivered(f"answered {status}: it has moved; write its new address")
    if not 200 <= status < 300:
        raise Undelivered(f"answered {status}")
    return answer[:_MOST_ANSWER]


async def _run(
    settings: AlertSettings, alert: Alert, environ: Mapping[str, str], seconds: float
) -> None:
    """Run the command, without a shell, with the alert as JSON on its standard input.

    Its variables, BACKUP_EVENT and so on, say the same. What it prints goes nowhere.
    """
    assert settings.command is not None
    facts = {f"BACKUP_{name.upper()}": str(value) for name, value in alert.document().items()}
    kept = {name: value for name, value in environ.items() if name not in _WITHHELD}
    clean = {name: value.replace("\0", "") for name, value in facts.items()}
    try:
        process = await anyio.open_process(
            shlex.split(settings.command.reveal()),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**kept, **clean},
            start_new_session=True,
        )
    except OSError as error:
        raise Undelivered(f"the command cannot be started: {error.strerror}") from None
    try:
        with anyio.fail_after(seconds):
            assert process.stdin is not None
            with suppress(anyio.BrokenResourceError, OSError):  # not everybody reads it
                await process.stdin.send(alert.encoded())
                await process.stdin.aclose()
            status = await process.wait()
    except TimeoutError:
        raise Undelivered(f"the command did not end within {seconds:g} seconds") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it started
        with anyio.CancelScope(shield=True):
            await process.aclose()
    if status:
        raise Undelivered(f"the command ended with status {status}")
