import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_backup.errors import IntegrityError
from mcp_backup.format.gotext import json_string, json_value, mended, quote, unquote
from tests.format.strategies import any_json, names, plain_text

# name on disk, strconv.Quote's, and that as encoding/json writes it (Go 1.19)
QUOTED = [
    (b"plain", "plain", "plain"),
    (b'a"b', r"a\"b", r"a\\\"b"),
    (b"back\\slash", r"back\\slash", r"back\\\\slash"),
    (b"<&>'", "<&>'", r"\u003c\u0026\u003e'"),
    (b"tab\tnl\n", r"tab\tnl\n", r"tab\\tnl\\n"),
    (b"\a\b\f\r\v\x00\x1b\x7f", r"\a\b\f\r\v\x00\x1b\x7f", r"\\a\\b\\f\\r\\v\\x00\\x1b\\x7f"),
    (b"\xff\xe2\x82", r"\xff\xe2\x82", r"\\xff\\xe2\\x82"),
    (b"nbsp\xc2\xa0", r"nbsp\u00a0", r"nbsp\\u00a0"),
    ("é\U0001f600\ufffd".encode(), "é\U0001f600\ufffd", "é\U0001f600\ufffd"),
    ("\u0085\u200d\u2028".encode(), r"\u0085\u200d\u2028", r"\\u0085\\u200d\\u2028"),
    ("\ue000\U000e0001".encode(), r"\ue000\U000e0001", r"\\ue000\\U000e0001"),
    (b"\xed\xa0\x80", r"\xed\xa0\x80", r"\\xed\\xa0\\x80"),  # a surrogate is not UTF-8
]


@pytest.mark.parametrize(("raw", "quoted", "in_json"), QUOTED)
def test_names_are_quoted_as_go_quotes_them(raw: bytes, quoted: str, in_json: str) -> None:
    name = raw.decode(errors="surrogateescape")
    assert quote(name) == quoted
    assert json_string(quoted) == f'"{in_json}"'
    assert unquote(quoted) == name


@given(names)
def test_a_name_comes_back_through_quotes_and_json(name: str) -> None:
    written = json_string(quote(name))
    assert unquote(json.loads(written)) == name
    written.encode()


@given(st.text(st.sampled_from(list("\\\"'abfnrtvxuUX0178F \né")), max_size=12) | plain_text)
def test_any_other_text_is_a_name_or_an_integrity_error(text: str) -> None:
    try:
        name = unquote(text)
    except IntegrityError:
        return
    assert unquote(quote(name)) == name


@pytest.mark.parametrize(
    "text",
    ['"', "\n", "\\", "\\'", "\\x4", "\\xg0", "\\400", "\\18", "\\ud800", "\\U00110000", "\\q"],
)
def test_what_go_refuses_to_unquote_is_an_integrity_error(text: str) -> None:
    with pytest.raises(IntegrityError, match="name"):
        unquote(text)


def test_octal_escapes_are_bytes() -> None:
    assert unquote(r"\101\377") == "A\udcff"


def test_json_strings_are_written_as_go_writes_them() -> None:
    assert json_string('<>&\u2028\u2029\x7f/é\x01\x08\x0c\n\r\t"\\\udcff') == (
        r'"\u003c\u003e\u0026\u2028\u2029' + "\x7f/é" + r'\u0001\u0008\u000c\n\r\t\"\\\ufffd"'
    )
    assert json_value({"b": [1, True, None], "a": "x"}) == '{"b":[1,true,null],"a":"x"}'


@given(any_json)
def test_any_json_value_comes_back_but_for_lone_surrogates(value: object) -> None:
    written = json_value(value)
    written.encode()
    assert json_value(json.loads(written)) == json_value(json.loads(mended(written)))


@given(plain_text)
def test_text_without_surrogates_is_not_mended(text: str) -> None:
    assert mended(text) == text == json.loads(json_string(text))
