"""Whatever documents a server holds, they come back as the evidence says they were."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.sources.round_trip import captured, examples, put_live
from tests.workflows.conftest import Keeper

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
FLOWS = st.dictionaries(
    TEXTS.filter(bool), st.dictionaries(TEXTS, VALUES, max_size=3), min_size=1, max_size=4
)


@given(flows=FLOWS, gone=st.booleans())
@examples(5)
def test_captured_put_back_and_captured_again_the_evidence_is_equal(
    daemon: tuple[Path, int], flows: dict[str, dict[str, Any]], gone: bool
) -> None:
    state, port = daemon
    with TemporaryDirectory() as directory:
        place = Path(directory)
        keeper = Keeper(place, state, f"http://127.0.0.1:{port}/mcp")
        state.write_text("{}")
        documents = {key: {**flow, "id": key} for key, flow in flows.items()}
        for document in documents.values():
            document.pop("updated_at", None)
        keeper.change(workflows=documents)
        spec = keeper.source().spec()
        first = captured(spec, place)
        changed = {key: {"id": key, "step": 9} for key in documents}
        keeper.change(workflows={} if gone else changed)
        put_live(spec, first, place)
        second = captured(spec, place)
        marks = second.evidence.facts["documents"]
        assert marks == first.evidence.facts["documents"]
        assert len(marks) == len(flows)
        assert keeper.workflows() == documents
