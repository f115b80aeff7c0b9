"""What a commit holds of Python handlers: nothing before its event is covered, everything once, in the order of a handler."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edgefn.functions.invocation import Cover, Invocation, from_row
from edgefn.functions.journal import FINISHED, MAX_PASSING, PATIENCE, Completion, Cut, Journal
from edgefn.functions.memory import Memory
from edgefn.metrics import Metrics
from edgefn.store import CheckpointPart, Letter, NewItem
from edgefn.testing import ManualClock


class Desk:
    """A journal, and the memories of its handlers."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.memories: dict[str, Memory] = {}
        self.metrics = Metrics()
        self.journal = Journal(self.memory, self.clock.monotonic, self.metrics)
        self.journal.engine_started(1)

    def memory(self, name: str) -> Memory:
        return self.memories.setdefault(name, Memory(name))

    def event(self, id: str, *, function: str = "f", engine: int = 1, **options: object) -> Invocation:
        """A durable event of an engine whose next commit covers it."""
        invocation = Invocation(id, function, "t", b"{}", durable=True, cover=Cover(engine), **options)  # type: ignore[arg-type]
        self.journal.add(invocation)
        return invocation

    def commit(self) -> Cut:
        cut = self.journal.cut(with_engine=True)
        self.journal.stored(cut)
        return cut


def item(n: int = 1) -> NewItem:
    return NewItem("summary/f", b"%d" % n, n)


def test_an_invocation_that_is_done_before_its_commit_never_has_a_row() -> None:
    desk = Desk()
    event = desk.event("a")
    desk.journal.complete(Completion(event, [item()], {"n": b"1"}))
    assert not desk.commit()  # the engine's commit has not come: the event may come a second time
    desk.journal.cover(1)
    cut = desk.commit()
    assert cut.items == [item()]
    assert [(part.owner, part.kind) for part in cut.parts] == [("function f", "delta")]
    assert not desk.commit()


def test_one_that_still_runs_when_its_event_is_covered_has_a_row_until_it_is_done() -> None:
    desk = Desk()
    event = desk.event("a", parts=(CheckpointPart("trigger f", "delta", b"x"),))
    desk.journal.cover(1)
    cut = desk.commit()
    assert [(part.owner, part.kind) for part in cut.parts] == [("call a", "snapshot"), ("trigger f", "delta")]
    assert from_row("a", cut.parts[0].data).topic == "t"
    desk.journal.complete(Completion(event, [item()]))
    cut = desk.commit()
    assert [(part.owner, part.kind) for part in cut.parts] == [("call a", "drop")]
    assert cut.items == [item()]


def test_a_later_invocation_waits_for_an_earlier_one_of_its_handler_since_the_state_holds_both() -> None:
    desk = Desk()
    early = desk.event("a")
    late = Invocation("b", "f", "timer", b"")
    other = Invocation("c", "g", "timer", b"")
    desk.journal.complete(Completion(early, [item(1)], {"n": b"1"}))
    desk.journal.complete(Completion(late, [item(2)], {"n": b"2"}))
    desk.journal.complete(Completion(other, [item(3)]))
    assert desk.commit().items == [item(3)]
    desk.journal.cover(1)
    cut = desk.commit()
    assert cut.items == [item(1), item(2)]
    (part,) = cut.parts
    assert msgspec.msgpack.decode(part.data) == {"n": b"2"}


def test_what_comes_again_from_a_new_engine_is_known_and_covered_by_that_one_s_commit() -> None:
    desk = Desk()
    event = desk.event("a")
    desk.journal.complete(Completion(event, [item()]))
    desk.journal.engine_started(2)
    desk.journal.cover(2)  # nothing of it came again yet
    assert not desk.commit()
    assert desk.journal.knows("a")
    desk.journal.cover(2)
    assert desk.commit().items == [item()]
    assert desk.journal.knows("a")  # also when it comes a third time
    assert not desk.journal.holds("a")


def test_what_an_invocation_has_started_is_stored_when_it_is_whichever_engine_brings_its_event_again() -> None:
    desk = Desk()
    event = desk.event("a")
    child = Invocation("b", "g", "invoke/f", b"", durable=True, cover=event.cover)
    desk.journal.add(child)
    desk.journal.complete(Completion(event))
    desk.journal.engine_started(2)
    assert desk.journal.knows("a")
    assert not desk.commit()
    desk.journal.cover(2)
    assert [part.owner for part in desk.commit().parts] == ["call b"]


def test_what_never_comes_again_is_stored_after_a_while() -> None:
    desk = Desk()
    desk.journal.complete(Completion(desk.event("a"), [item()]))
    desk.journal.engine_started(2)
    desk.clock.advance(PATIENCE / 1e9 + 1)
    desk.journal.cover(2)
    assert desk.commit().items == [item()]


def test_a_dead_letter_goes_with_the_commit_that_drops_the_row() -> None:
    desk = Desk()
    event = desk.event("a")
    desk.journal.cover(1)
    desk.commit()
    letter = Letter("f", 0, 0, 1, "failed", "", b"{}")
    desk.journal.complete(Completion(event, letter=letter))
    cut = desk.commit()
    assert cut.letters == [letter]
    assert [(part.owner, part.kind) for part in cut.parts] == [("call a", "drop")]


def test_a_retry_is_written_down_so_that_a_crash_does_not_begin_anew() -> None:
    desk = Desk()
    event = desk.event("a")
    desk.journal.cover(1)
    desk.commit()
    event.attempt = 2
    desk.journal.retried(event)
    (part,) = desk.commit().parts
    assert from_row("a", part.data).attempt == 2


def test_only_so_many_finished_ids_are_remembered() -> None:
    desk = Desk()
    for n in range(FINISHED + 5):
        event = desk.event(str(n), engine=0)
        desk.journal.complete(Completion(event))
    desk.commit()
    assert not desk.journal.knows("0")
    assert desk.journal.knows(str(FINISHED + 4))


@given(st.lists(st.sampled_from(["event", "done", "retry", "cover", "commit", "crash"]), max_size=60))
def test_whatever_happens_each_event_is_stored_once_and_no_state_before_its_row(steps: list[str]) -> None:
    """Against a plain reference: what the store holds after each commit is the events that are covered, done or not."""
    desk = Desk()
    open_: list[Invocation] = []
    rows: set[str] = set()
    effects: Counter[str] = Counter()
    covered: set[str] = set()
    known: list[str] = []
    for number, step in enumerate([*steps, "cover", "commit"]):
        if step == "event":
            open_.append(desk.event(f"e{number}"))
            known.append(f"e{number}")
        elif step == "done" and open_:
            done = open_.pop(0)
            desk.journal.complete(Completion(done, [NewItem("summary/f", done.id.encode(), 0)], {done.id: b"1"}))
        elif step == "retry" and open_:
            open_[0].attempt += 1
            desk.journal.retried(open_[0])
        elif step == "cover":
            desk.journal.cover(1)
            covered.update(known)
        elif step == "commit":
            cut = desk.commit()
            for part in cut.parts:
                name = part.owner.removeprefix("call ")
                if part.owner.startswith("call "):
                    (rows.discard if part.kind == "drop" else rows.add)(name)
            effects.update(one.payload.decode() for one in cut.items)
            assert set(effects) | rows <= covered
    assert all(times == 1 for times in effects.values())
    assert rows == {one.id for one in open_}
    assert set(effects) == set(known) - rows
    again = Memory("f")
    again.restore([msgspec.msgpack.encode(dict.fromkeys(effects, b"1"))])
    assert desk.memory("f").values == again.values


def test_what_an_invocation_has_started_is_not_stored_before_it_is_itself() -> None:
    """Else a crash in between would run it again, and start the same once more after that was done and forgotten."""
    desk = Desk()
    early = desk.event("early")  # not covered: what is done after it waits for it
    parent = desk.event("parent", engine=0)
    desk.commit()  # the row of the parent
    desk.journal.complete(Completion(early, [item(1)]))
    desk.journal.complete(Completion(parent, [item(2)]))
    done = parent.child("done", "g", "invoke/f", b"{}")
    waits = parent.child("waits", "h", "invoke/f", b"{}")
    for child in (done, waits):
        desk.journal.add(child)
    desk.journal.complete(Completion(done, [item(3)]))
    assert not desk.commit()
    desk.journal.cover(1)
    cut = desk.commit()
    assert cut.items == [item(1), item(2), item(3)]
    assert cut.rows == [waits]


def passing(n: int, function: str = "f") -> Invocation:
    """One that nobody sends again."""
    return Invocation(f"p{n}", function, "t", b"{}")


def test_while_the_store_takes_nothing_the_oldest_that_is_not_durable_gives_way_and_is_counted() -> None:
    desk = Desk()
    event = desk.event("durable")
    desk.journal.complete(Completion(event, [item(-1)], {"from": b"durable", "event": b"1"}))
    n = 20_000
    for i in range(n):
        desk.journal.complete(Completion(passing(i), [item(i)], {"newest": b"%d" % i, f"old {i % 10}": b"1"}))
    dropped = desk.metrics.counters["functions.dropped.store_unavailable"]
    assert n > dropped > 0
    desk.journal.cover(1)
    cut = desk.commit()
    # What is durable is there, and of the others the newest, in their order.
    assert cut.items == [item(-1), *(item(i) for i in range(dropped, n))]
    assert sum(500 + len(one.payload) for one in cut.items) <= MAX_PASSING
    # No change of the handler's state is lost with them.
    again = Memory("f")
    again.restore([part.data for part in cut.parts if part.owner == "function f"])
    assert again.values == desk.memories["f"].values
    assert len(again.values) == 13


def test_what_was_stored_does_not_count_against_what_is_done_next() -> None:
    desk = Desk()
    for turn in range(5):
        for i in range(5000):
            desk.journal.complete(Completion(passing(i), [item(i)]))
        assert len(desk.commit().items) == 5000, turn
    assert desk.metrics.total("functions.dropped") == 0


def test_one_handler_does_not_take_another_one_s_room() -> None:
    desk = Desk()
    desk.journal.complete(Completion(passing(0, "quiet"), [item(0)]))
    for i in range(20_000):
        desk.journal.complete(Completion(passing(i, "noisy"), [item(i)]))
    assert desk.commit().items[0] == item(0)


def test_one_that_is_larger_than_the_room_leaves_its_change_behind() -> None:
    desk = Desk()
    large = NewItem("summary/f", bytes(MAX_PASSING), 0)
    desk.journal.complete(Completion(passing(0), [large], {"n": b"1"}))
    cut = desk.commit()
    assert (cut.items, [part.owner for part in cut.parts]) == ([], ["function f"])
    assert desk.metrics.counters["functions.dropped.store_unavailable"] == 1
    assert not desk.commit()
