"""Progress, as the protocol wants it: one number that rises, not too often."""

import pytest

from mcp_backup.progress import Progress
from mcp_backup.server.listener import listener
from tests.server.conftest import ERAS, Era, Machine, text_of


class Heard:
    """What a client was told, and a clock."""

    def __init__(self) -> None:
        self.reports: list[tuple[float, float | None, str | None]] = []
        self.now = 0.0

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self.reports.append((progress, total, message))


async def test_reports_are_a_fifth_of_a_second_apart() -> None:
    heard = Heard()
    listen = listener(heard, lambda: heard.now)
    for step in range(100):
        heard.now = step / 64  # exact in binary
        await listen(Progress("capture", "notes", step, 100))
    assert [done for done, _, _ in heard.reports] == [0, 13, 26, 39, 52, 65, 78, 91]
    assert heard.reports[1] == (13, 100, "capture notes 13 %")


async def test_the_number_rises_through_stages_and_sources() -> None:
    heard = Heard()
    listen = listener(heard, lambda: heard.now)
    for stage, subject in (("capture", "a"), ("capture", "b"), ("verify", "a"), ("capture", "a")):
        for done in (0, 50, 100):
            heard.now += 1
            await listen(Progress(stage, subject, done, 100))
    numbers = [done for done, _, _ in heard.reports]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 300
    assert all(total is None or done <= total for done, total, _ in heard.reports)


async def test_a_total_that_is_not_known_is_not_made_up() -> None:
    heard = Heard()
    listen = listener(heard, lambda: heard.now)
    await listen(Progress("capture", "notes", 5, 0))
    assert heard.reports == [(5, None, "capture notes")]


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_asks_for_progress_gets_it(machine: Machine, era: Era) -> None:
    heard = Heard()
    async with machine.client(era) as client:
        result = await client.call_tool("create_backup", {}, progress_callback=heard)
    assert not result.is_error, text_of(result)
    assert heard.reports
    numbers = [done for done, _, _ in heard.reports]
    assert numbers == sorted(set(numbers))
