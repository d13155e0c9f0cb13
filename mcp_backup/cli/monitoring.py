"""metrics, alerts: what monitors read, and whether the receivers of alerts can be reached."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import anyio
import typer
from msgspec import Struct

from mcp_backup.alerts.alerts import Alerts, Delivery
from mcp_backup.alerts.outbox import OpenCondition, PendingAlert
from mcp_backup.cli.session import session
from mcp_backup.errors import BackupError
from mcp_backup.metrics import exposition, measured, unopened, write_textfile
from mcp_backup.place import utc_now
from mcp_backup.terminal import count, moment

_UNDELIVERED = 3


class Told(Struct, frozen=True):
    """What is wrong and was told, what is still to be delivered, and how a test fared."""

    ok: bool
    open: Sequence[OpenCondition]
    pending: Sequence[PendingAlert]
    tested: Sequence[Delivery]


def metrics(
    context: typer.Context,
    *,
    textfile: Annotated[
        Path | None,
        typer.Option(help="Write them there, whole, for node_exporter.", metavar="FILE.prom"),
    ] = None,
) -> int:
    """Print metrics in Prometheus's text format.

    When the repository cannot be opened, they say that, and the exit code is the error's.
    """
    this = session(context)
    problem: BackupError | None = None
    try:
        facts = this.run(lambda engine, _: measured(engine), unfinished="Nothing was written.")
        text = exposition(facts)
    except BackupError as error:
        problem, text = error, unopened(error.code)
    if textfile is None:
        this.terminal.out.write(text.decode())
    else:
        write_textfile(this.surroundings.cwd / textfile.expanduser(), text)
    if problem:
        raise problem
    return 0


def alerts(
    context: typer.Context,
    *,
    test: Annotated[
        bool, typer.Option("--test", help="Send a test alert to every receiver, now.")
    ] = False,
) -> int:
    """Say what was told, and what could not be. Exits with 3 when something was not delivered."""
    this = session(context)
    telling = Alerts(this.settings(), utc_now, this.surroundings.environ)

    async def asked() -> Told:
        tested = await telling.test() if test else []
        pending = await telling.pending()
        failed = [alert for alert in pending if alert.trouble]
        ok = not failed and not any(delivery.trouble for delivery in tested)
        return Told(ok, await telling.conditions(), pending, tested)

    told = this.interruptible(lambda: anyio.run(asked), unfinished="A test may have arrived.")
    this.terminal.result(told, _lines(told))
    return 0 if told.ok else _UNDELIVERED


def _lines(told: Told) -> Sequence[str]:
    lines = [
        f"{delivery.receiver}: {delivery.trouble or 'the test alert arrived'}"
        for delivery in told.tested
    ]
    lines += [
        f"{condition.event} since {moment(condition.since)}: {condition.subject}: "
        f"{condition.message}"
        for condition in told.open
    ]
    lines += [
        f"not delivered to {alert.receiver} after {count(alert.tries, 'attempt')}: "
        f"{alert.title}{alert.trouble and f' ({alert.trouble})'}"
        for alert in told.pending
    ]
    return lines or ["nothing to tell"]
