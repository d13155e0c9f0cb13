"""A call whose client leaves: finished, stopped, or cancelled, by what the client said."""

from collections.abc import Callable

import anyio
import pytest

from mcp_backup.errors import UsageError
from mcp_backup.server.finishing import Finishing

FOREVER = 3600.0


class Call:
    """One call: its work ends when it is let go."""

    def __init__(self, patience: float) -> None:
        self.how = Finishing(patience)
        self.unwanted, self.begun, self.may_end = anyio.Event(), anyio.Event(), anyio.Event()
        self.done = False

    async def work(self) -> str:
        self.begun.set()
        await self.may_end.wait()
        self.done = True
        return "the answer"

    async def run(self, then: Callable[["Call", anyio.CancelScope], None]) -> str | None:
        """Run it; `then` happens in the middle. Return its answer, or None if it was cancelled."""
        answer = None
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:

                async def call() -> None:
                    nonlocal answer
                    answer = await self.how.run(self.work, self.unwanted, "backup")

                tasks.start_soon(call)
                await self.begun.wait()
                then(self, tasks.cancel_scope)
                with anyio.CancelScope(shield=True):
                    await anyio.wait_all_tasks_blocked()
                    self.may_end.set()
        return answer


async def test_a_call_whose_client_stays_is_answered() -> None:
    call = Call(FOREVER)
    assert await call.run(lambda call, scope: None) == "the answer"


async def test_a_call_whose_client_leaves_is_finished(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    call = Call(FOREVER)
    assert await call.run(lambda call, scope: scope.cancel()) is None
    assert call.done
    assert "finished without its client: backup" in caplog.text


async def test_a_call_that_takes_too_long_without_its_client_is_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    call = Call(0)
    assert await call.run(lambda call, scope: scope.cancel()) is None
    assert not call.done
    assert "stopped without its client, nothing of it is kept: backup" in caplog.text


def cancelled(call: Call, scope: anyio.CancelScope) -> None:
    call.unwanted.set()
    scope.cancel()


def stopped(call: Call, scope: anyio.CancelScope) -> None:
    scope.cancel()
    call.how.stop()


@pytest.mark.parametrize("ended", [cancelled, stopped])
async def test_a_call_that_is_cancelled_or_stopped_ends_at_once(
    ended: Callable[[Call, anyio.CancelScope], None],
) -> None:
    call = Call(FOREVER)
    assert await call.run(ended) is None
    assert not call.done


async def test_a_failure_is_told_as_itself() -> None:
    async def fails() -> None:
        raise UsageError("it cannot be", hint="")

    with pytest.raises(UsageError, match="it cannot be"):
        await Finishing(FOREVER).run(fails, anyio.Event(), "backup")
