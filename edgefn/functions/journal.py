"""What the next commit has to hold of Python handlers: who waits, who is done, and the effects of those that are.

An event of QoS 1 may come a second time until the engine's commit covers it. Its invocation starts at once all the same; but
neither its row nor its effects are stored before that commit, nor those of later invocations of its handler, since the
handler's state holds both. Most invocations are done by then, and never have a row.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgefn.clock import NS
from edgefn.functions.invocation import Cover, Invocation
from edgefn.functions.memory import Change, Memory
from edgefn.metrics import Metrics
from edgefn.store import CheckpointPart, Letter, NewItem

FINISHED = 20_000  # ids that are remembered after they were stored as done
MAX_PASSING = 8 << 20  # bytes of each handler's invocations that are done, not durable, and not stored
PATIENCE = 30 * NS  # after the engine died: until then, what its events have started may still come again


@dataclass(slots=True, eq=False)
class Completion:
    """One invocation that is through, or that was given up. `letter`: it ends among the dead letters."""

    invocation: Invocation
    items: Sequence[NewItem] = ()
    change: Change = field(default_factory=dict)
    letter: Letter | None = None

    @property
    def size(self) -> int:
        """Bytes, about; what the handler has changed is not among them, since it is kept."""
        effects = [*(item.payload for item in self.items), *([self.letter.payload] if self.letter else [])]
        return self.invocation.size + sum(len(one) + 500 for one in effects)


@dataclass(frozen=True, slots=True)
class Cut:
    """One commit's worth. It is stored as it is, as often as it takes; then `Journal.stored` is told."""

    items: list[NewItem]
    parts: list[CheckpointPart]
    letters: list[Letter]
    rows: list[Invocation]
    done: list[Invocation]

    def __bool__(self) -> bool:
        return bool(self.items or self.parts or self.letters or self.rows or self.done)


class Journal:
    """It holds what the queues of the handlers hold, and what is done since the last commit.

    Of durable events that is bounded, since a broker holds back what is not acknowledged. Of all others the oldest gives way
    where the store takes nothing for long.
    """

    def __init__(self, memory: Callable[[str], Memory], monotonic: Callable[[], int], metrics: Metrics) -> None:
        self.changed = asyncio.Event()  # there is something for a commit
        self._memory = memory
        self._monotonic = monotonic
        self._metrics = metrics
        self._known: dict[str, Invocation] = {}  # durable, and not stored as done
        self._passing: set[str] = set()  # ids of what is not durable, and waits or runs
        self._unwritten: dict[str, Invocation] = {}  # of these, those whose row is not there or not right
        self._completions: dict[str, deque[Completion]] = {}  # by handler, in the order in which they ended
        self._weight: Counter[str] = Counter()  # by handler: bytes of those that are not durable
        self._loose: list[CheckpointPart] = []  # of no invocation that is stored
        self._covered: list[Cover] = []  # by a commit of the engine's that is not being stored yet
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._engine = 0
        self._since = 0  # when that engine began

    def knows(self, id: str) -> bool:
        """Whether it runs, waits or is done already. One that came again is now the business of the engine that brought it."""
        invocation = self._known.get(id)
        if invocation is not None and not invocation.stored:
            invocation.cover.engine, invocation.cover.committed = self._engine, False
        return invocation is not None or id in self._passing or id in self._finished

    def holds(self, id: str) -> bool:
        """Whether it runs or waits, or is done and the store does not know yet."""
        return id in self._known

    def add(self, invocation: Invocation) -> None:
        """An invocation waits."""
        if not invocation.durable:
            self._passing.add(invocation.id)
            return
        self._known[invocation.id] = invocation
        if not invocation.stored:
            self._unwritten[invocation.id] = invocation
            self.changed.set()

    def note(self, part: CheckpointPart) -> None:
        """Something that triggers have to remember, whatever becomes of an invocation."""
        self._loose.append(part)
        self.changed.set()

    def retried(self, invocation: Invocation) -> None:
        """It has failed and will be tried again: after a crash, not from the beginning."""
        if invocation.durable:
            self._unwritten[invocation.id] = invocation
            self.changed.set()

    def complete(self, completion: Completion) -> None:
        invocation = completion.invocation
        self._passing.discard(invocation.id)
        self._memory(invocation.function).change(completion.change)
        if invocation.durable or completion.items or completion.change or completion.letter:
            self._unwritten.pop(invocation.id, None)
            self._completions.setdefault(invocation.function, deque()).append(completion)
            if not invocation.durable:
                self._weight[invocation.function] += completion.size
                if self._weight[invocation.function] > MAX_PASSING:
                    self._make_room(invocation.function)
            self.changed.set()

    def _make_room(self, function: str) -> None:
        """Gives up the older half of what is not durable: rows and letters, not what it has changed in the handler's state."""
        kept: deque[Completion] = deque()
        changed: dict[str, bytes | None] = {}
        for completion in self._completions[function]:
            if not completion.invocation.durable and self._weight[function] > MAX_PASSING // 2:
                self._weight[function] -= completion.size
                changed.update(completion.change)
                if completion.items or completion.letter:
                    self._metrics.count("functions.dropped", reason="store_unavailable")
                continue
            if changed:
                completion.change, changed = {**changed, **completion.change}, {}
            kept.append(completion)
        if changed:  # none is left to carry it
            kept.append(Completion(completion.invocation, (), changed))
            self._weight[function] += kept[-1].size
        self._completions[function] = kept

    def engine_started(self, engine: int) -> None:
        self._engine, self._since = engine, self._monotonic()
        self._covered.clear()  # by a commit of the one before, which nobody stores any more

    def cover(self, engine: int) -> None:
        """The engine has cut its next commit: it covers all events that it has brought so far."""
        late = self._monotonic() - self._since > PATIENCE
        for invocation in self._known.values():
            if invocation.cover.engine == engine or late:
                self._covered.append(invocation.cover)

    def cut(self, *, with_engine: bool) -> Cut:
        """Takes what can be stored now. with_engine: together with that commit of the engine's which has come."""
        if with_engine:
            for cover in self._covered:
                cover.committed = True
            self._covered.clear()
        cut = Cut([], self._loose, [], [], [])
        self._loose = []
        changes: dict[str, dict[str, bytes | None]] = {}
        moved = True
        while moved:  # what is taken lets that be taken which it has started, of whatever handler
            moved = False
            for function, waiting in self._completions.items():
                while waiting and waiting[0].invocation.is_storable:
                    self._take(waiting.popleft(), cut, changes.setdefault(function, {}))
                    moved = True
        for function, change in changes.items():
            if (part := self._memory(function).part(change)) is not None:
                cut.parts.append(part)
            if not self._completions[function]:
                del self._completions[function], self._weight[function]
        for invocation in list(self._unwritten.values()):
            if invocation.is_storable:
                del self._unwritten[invocation.id]
                cut.parts.append(CheckpointPart(invocation.owner, "snapshot", invocation.row()))
                if not invocation.stored:
                    cut.parts.extend(invocation.parts)
                cut.rows.append(invocation)
        self.changed.clear()
        return cut

    def _take(self, completion: Completion, cut: Cut, change: dict[str, bytes | None]) -> None:
        invocation = completion.invocation
        invocation.end.taken = True
        if not invocation.durable:
            self._weight[invocation.function] -= completion.size
        if invocation.stored:
            cut.parts.append(CheckpointPart(invocation.owner, "drop"))
        else:
            cut.parts.extend(invocation.parts)
        cut.items.extend(completion.items)
        change.update(completion.change)
        if completion.letter is not None:
            cut.letters.append(completion.letter)
        cut.done.append(invocation)

    def stored(self, cut: Cut) -> None:
        for invocation in cut.rows:
            invocation.stored = True
        for invocation in cut.done:
            if self._known.pop(invocation.id, None) is not None:
                self._finished[invocation.id] = None
        while len(self._finished) > FINISHED:
            self._finished.popitem(last=False)

    @property
    def waiting(self) -> Mapping[str, Invocation]:
        """Durable invocations that are not stored as done, by id."""
        return self._known
