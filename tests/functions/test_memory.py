"""What a handler keeps comes back as it was, however often it changed and whichever way it was written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgefn.functions.memory import WHOLE_AFTER, Memory
from edgefn.store import CheckpointPart

CHANGES = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.one_of(st.none(), st.binary(max_size=WHOLE_AFTER // 3)), max_size=3),
    max_size=20,
)


@given(CHANGES)
def test_what_is_restored_is_what_was_changed(changes: list[dict[str, bytes | None]]) -> None:
    memory, stored = Memory("f"), list[CheckpointPart]()
    expected: dict[str, bytes] = {}
    for change in changes:
        memory.change(change)
        part = memory.part(change)
        if part is not None:
            stored = [part] if part.kind == "snapshot" else [*stored, part]
        expected |= {name: value for name, value in change.items() if value is not None}
        expected = {name: value for name, value in expected.items() if change.get(name, b"") is not None}
    assert memory.values == expected
    again = Memory("f")
    again.restore([part.data for part in stored])
    assert again.values == expected


def test_what_is_written_stays_in_proportion_to_what_is_kept() -> None:
    memory, size = Memory("f"), 0
    for n in range(5000):
        change = {"n": b"%d" % n}
        memory.change(change)
        part = memory.part(change)
        assert part is not None
        size = len(part.data) if part.kind == "snapshot" else size + len(part.data)
        assert size < 2 * WHOLE_AFTER
