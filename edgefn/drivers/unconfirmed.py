"""Events of one source that the broker has acknowledged, until the gateway has confirmed that they are in its store.

The broker acknowledges before it writes anything down, so one that is killed takes them with it. They are sent again

- after each reconnect, since the broker may have been restarted, also from an old database that claims to know us;
- when the same confirmation comes twice: the gateway says by it, as TCP by a repeated ACK, that newer events came and
  the next one did not (the engine subscribed later than we sent, for one);
- as a safety net, when nothing was confirmed for longer than `patience`: first the oldest alone, and the others when that
  is answered.

A source of which nothing is ever confirmed has no handler: nothing is kept of it, and nobody else sees its events twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import takewhile

from edgefn.clock import NS

LONGEST_PAUSE = 3600 * NS


@dataclass(slots=True)
class Outgoing:
    """An event on its way. (src, seq) is what its receiver knows it by."""

    topic: str
    payload: bytes
    qos: int
    src: str = ""
    seq: int = 0
    acknowledged: bool = False  # by the broker, at least once


@dataclass(slots=True)
class Unconfirmed:
    """What one source has sent. Times are monotonic, in nanoseconds.

    The gateway confirms once in a commit interval: `patience` should be several of them. The pause doubles with each time
    that it does not answer, since it may be down.
    """

    patience: int = 30 * NS
    confirmed: int = -1
    wants: bool = False  # the gateway waits for what is here
    _lost: int = 0  # nothing below this number will come again
    _events: dict[int, Outgoing] = field(default_factory=dict)  # in their order
    _answered: int = -2  # the confirmation whose repetition was answered
    _since: int = 0  # when the silence began
    _pause: int = 0
    _probed: bool = False
    _heard: bool = True  # as far as one can tell, somebody confirms

    def __post_init__(self) -> None:
        self._pause = self.patience

    def __len__(self) -> int:
        return len(self._events)

    @property
    def floor(self) -> int:
        """All below is given up or confirmed; 0 where the gateway has no need to be told, since it has confirmed it."""
        return self._lost if self._heard and self._lost > self.confirmed + 1 else 0

    def keep(self, event: Outgoing, now: int) -> bool:
        """Keeps an event that the broker has acknowledged; False where there is no need to."""
        event.acknowledged = True
        if event.seq <= self.confirmed:
            return False
        if not self._heard:
            self.lost(event)
            return False
        if not self._events:
            self._since = now
        in_order = event.seq > next(reversed(self._events), -1)
        self._events[event.seq] = event
        if not in_order:
            self._events = dict(sorted(self._events.items()))
        return True

    def confirm(self, seq: int, now: int) -> list[Outgoing]:
        """The gateway has everything up to `seq`: these events need not be kept any more. See also `wants`."""
        self.wants = self._probed or (seq == self.confirmed != self._answered)
        if self.wants:
            self._answered = seq
        self._probed, self._heard = False, True
        if seq <= self.confirmed:
            return []
        self.confirmed, self._since, self._pause = seq, now, self.patience
        return [self._events.pop(one) for one in list(takewhile(lambda one: one <= seq, self._events))]

    def take(self) -> list[Outgoing]:
        """Gives all events away, in order, to be sent again."""
        self.wants = False
        events = list(self._events.values())
        self._events.clear()
        return events

    def reconnected(self) -> list[Outgoing]:
        """As `take`; whatever was sent on the connection before may be lost."""
        self._answered = -2
        return self.take()

    def due(self) -> int | None:
        """When the silence is too long."""
        return self._since + self._pause if self._events else None

    def probe(self, now: int) -> tuple[list[Outgoing], list[Outgoing]]:
        """Once that is due: what to send again, and what need not be kept any more since nobody ever confirms."""
        due = self.due()
        if due is None or now < due:
            return [], []
        if self.confirmed < 0 or self._pause > LONGEST_PAUSE:
            self._heard = False
            return [], [self.give_up() for _ in range(len(self))]
        self._since, self._pause, self._probed = now, self._pause * 2, True
        return [self._events.pop(next(iter(self._events)))], []

    def give_up(self) -> Outgoing:
        """Takes the oldest out for want of room."""
        event = self._events.pop(next(iter(self._events)))
        self.lost(event)
        return event

    def lost(self, event: Outgoing) -> None:
        """This event will not come again."""
        self._lost = max(self._lost, event.seq + 1)
