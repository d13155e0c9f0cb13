import copy
import json
import traceback

import msgspec
import pytest

from mcp_backup.secret import Secret

SECRET = Secret("hunter2")


@pytest.mark.parametrize(
    "shown",
    [
        repr(SECRET),
        str(SECRET),
        f"{SECRET} {SECRET!r} {[SECRET]}",
        json.dumps({"password": SECRET}, default=str),
        msgspec.json.encode({"password": SECRET}, enc_hook=str).decode(),
    ],
)
def test_a_secret_shows_asterisks(shown: str) -> None:
    assert "hunter2" not in shown
    assert "**********" in shown


def test_a_traceback_shows_no_secret() -> None:
    with pytest.raises(TypeError) as raised:
        SECRET + "more"  # type: ignore[operator]
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


def test_secrets_are_equal_where_their_texts_are() -> None:
    assert Secret("a") == Secret("a") == copy.deepcopy(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert SECRET.reveal() == "hunter2"
