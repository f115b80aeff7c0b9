"""From the messages of one read to rows in the tables of their sources.

Most messages are plain: their topic and key are known, they come for the first time, and their payload is an object of numbers.
Runs of those are routed and decoded by kernels. Every other message goes one by one, in its turn, so that the rows of a source
stand in the order in which its events came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefn.engine import mark_kernels, payload_kernels
from edgefn.engine.decode import MAX_SKEW, fields_of
from edgefn.engine.deliveries import Deliveries
from edgefn.engine.forwarding import OF_DRIVER, Forwarding
from edgefn.engine.frames import FLAGS, HASH, PACKET_ID, PAYLOAD, PAYLOAD_LENGTH, TOPIC, TOPIC_LENGTH
from edgefn.engine.names import Names
from edgefn.engine.number_kernels import UNCERTAIN
from edgefn.engine.plan import Plan
from edgefn.engine.sequences import Sequences, belongs
from edgefn.engine.session import Arrived, Sample
from edgefn.engine.sources import MAX_TOPIC_BYTES, MAX_TOPICS, Source
from edgefn.engine.timeline import Timeline
from edgefn.engine.topic_numbers import UNKNOWN, TopicNumbers
from edgefn.errors import PayloadError, TopicError
from edgefn.metrics import Metrics
from edgefn.topics import topic_of

RETAIN, QOS, DUP = 1, 6, 8

FEW = 8  # messages that are not worth a run: it costs as much as four of them
ENOUGH = 1 << 15  # rows that are run before more are decoded: more would not stay in the cache of a core
NOT_WANTED, UNNUMBERED = -1, -2
NO_TOPIC = 0  # the number that all topics share which are none: they are as many as somebody likes to make up


class _Feed:
    """One source as topics see it: the key that each topic's events belong to."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.keys = np.zeros(0, np.int32)  # by topic
        self.since = np.zeros(0, np.int64)  # by topic: the generation of its key; an older one is somebody else's
        self.names = Names(source.table.fields)
        # A time that is always text is left to the general decoder.
        self.compiled = self.names.fit and source.ts in (*payload_kernels.UNITS, "arrival")
        self.unit = (
            payload_kernels.UNITS.index(source.ts) if source.ts in payload_kernels.UNITS else payload_kernels.ARRIVAL
        )

    def key(self, topics: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """The keys of these topics, NOT_WANTED or UNNUMBERED."""
        keys = self.keys[topics]
        known = keys >= 0
        if _some(known):
            known[known] = self.source.keys.generation[keys[known]] != self.since[topics[known]]
            keys[known] = UNNUMBERED
        return keys

    def note(self, topic: int, label: str) -> None:
        """The key of a topic's label, where it has one by now."""
        keys = self.source.keys
        if (key := keys.find(label)) is not None:
            self.keys[topic], self.since[topic] = key, keys.generation[key]


class Ingest:
    """Takes what a session has read. One for each plan, since its tables are those of the plan's sources."""

    def __init__(
        self,
        plan: Plan,
        metrics: Metrics,
        sequences: Sequences,
        timeline: Timeline,
        driver_topics: bytes,
        sample: Sample,
        run: Callable[[], object] = lambda: None,
        forwarding: Forwarding | None = None,
    ) -> None:
        """`run` is called where many rows have been collected: it runs the plan over them."""
        self._plan = plan
        self._run = run
        self._metrics = metrics
        self._sequences = sequences
        self._timeline = timeline
        self._driver_topics = driver_topics
        self._sample = sample
        self._forwarding = forwarding or Forwarding(metrics)
        self._status = np.zeros(4, np.int64)
        self._marked = np.zeros(0, np.int64)  # by message: its row in `_marks`
        self._marks = np.zeros((0, mark_kernels.WORDS), np.int64)
        self._forget()

    def _forget(self) -> None:
        self._topics = TopicNumbers()
        self._topics.add(b"")
        self._feeds = [_Feed(source) for source in self._plan.sources.values()]
        self._by_name = {feed.source.name: feed for feed in self._feeds}
        self._wanted = np.zeros(0, np.bool_)  # by topic: there is a source for it
        self._alone = np.zeros(0, np.bool_)  # by topic: its messages never go in a run
        self._of_drivers = np.zeros(0, np.bool_)
        self._grow()
        self._alone[NO_TOPIC] = True
        self._forwarded: set[int] = set()  # topics that Python handlers listen to

    def take(self, arrived: Arrived, deliveries: Deliveries, commit: int, now: int) -> bool:
        """Decodes all messages; `commit` is the number of the next commit, now: monotonic ns.

        Returns whether one of them was durable.
        """
        arrival = self._timeline.arrival()
        rows = arrived.rows
        topics = self._number(arrived)
        flags = rows[:, FLAGS]
        at, n = 0, len(rows)
        unclear = self._read_marks(arrived, topics, flags, now) if n > FEW else topics
        evicted = -1
        while at < n:
            if evicted != (evicted := self._evicted()):
                # A key that gave way is another's now. Where that happens all the time, runs are not worth looking for.
                odd = _where(self._odd(topics[at:], flags[at:], unclear[at:])) + at if n > FEW else np.arange(n)
                if 4 * odd.size > n - at:
                    odd = np.arange(at, n)
                nth = 0
            stop = int(odd[nth]) if nth < odd.size else n
            if stop > at:
                self._take_run(arrived, at, stop, topics, deliveries, commit, arrival)
            if stop < n:
                self._take_one(arrived, stop, int(topics[stop]), deliveries, commit, arrival, now)
                nth += 1
            at = stop + 1
        return _some(flags & QOS)

    def _evicted(self) -> int:
        return sum(feed.source.keys.evicted for feed in self._feeds)

    def _number(self, arrived: Arrived) -> npt.NDArray[np.int32]:
        if len(self._topics) >= MAX_TOPICS or self._topics.size > MAX_TOPIC_BYTES:
            self._forget()
        topics = self._topics.look_up(arrived.bytes, arrived.rows)
        if unknown := _where(topics == UNKNOWN).tolist():
            new: dict[bytes, int] = {}
            for i in unknown:
                topic = _topic(arrived, i)
                if (number := new.get(topic)) is None:
                    number = new[topic] = self._add(topic)
                topics[i] = number
        return topics

    def _grow(self) -> None:
        more = max(64, self._wanted.size)
        self._wanted, self._alone, self._of_drivers = (
            np.concatenate([one, np.zeros(more, np.bool_)]) for one in (self._wanted, self._alone, self._of_drivers)
        )
        for feed in self._feeds:
            feed.keys = np.concatenate([feed.keys, np.full(more, NOT_WANTED, np.int32)])
            feed.since = np.concatenate([feed.since, np.zeros(more, np.int64)])

    def _add(self, topic: bytes) -> int:
        if _why_no_topic(topic):
            return NO_TOPIC
        number = self._topics.add(topic)
        if number >= self._wanted.size:
            self._grow()
        sources = {source.name for source, _ in self._plan.router.route(topic)}
        self._wanted[number] = bool(sources)
        if self._forwarding.wants(topic):
            self._forwarded.add(number)
        self._alone[number] = self._plan.latest.wants(topic) or number in self._forwarded
        self._of_drivers[number] = topic.startswith(self._driver_topics)
        for feed in self._feeds:
            if feed.source.name in sources:
                feed.keys[number] = UNNUMBERED
                self._alone[number] |= not feed.compiled
        return number

    def _odd(self, topics: Any, flags: Any, unclear: Any) -> npt.NDArray[np.bool_]:
        """Which messages cannot go in a run."""
        odd: npt.NDArray[np.bool_] = flags & (RETAIN | DUP) != 0
        odd |= self._alone[topics] | unclear
        for feed in self._feeds:
            odd |= feed.key(topics) == UNNUMBERED
        return odd

    def _read_marks(self, arrived: Arrived, topics: Any, flags: Any, now: int) -> npt.NDArray[np.bool_]:
        """Keeps the marks of drivers' events for `_new`; returns which of them have to go one by one."""
        own: npt.NDArray[np.bool_] = self._of_drivers[topics]
        if not _some(own):
            return own
        if not self._timeline.has_settled(now):
            return own
        which = _where(own & (flags & QOS != 0) & self._wanted[topics])
        self._marked = np.full(len(topics), -1)
        self._marked[which] = np.arange(which.size)
        self._marks = np.zeros((which.size, mark_kernels.WORDS), np.int64)
        mark_kernels.read_marks(arrived.bytes, arrived.rows, which, self._marks)
        unclear = np.zeros(len(topics), np.bool_)
        unclear[which] = self._marks[:, mark_kernels.HAS] == UNCERTAIN
        return unclear

    # Many at a time

    def _new(self, arrived: Arrived, picked: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of these durable events of drivers come for the first time."""
        new = np.ones(picked.size, np.bool_)
        data = arrived.bytes
        for i, (has, at, length, seq, floor) in enumerate(self._marks[self._marked[picked]].tolist()):
            if has & 3 == 3:
                src = data[at : at + length].tobytes().decode()
                new[i] = not belongs(src, seq, floor) or self._sequences.take(src, seq, floor)
        return new

    def _take_run(
        self, arrived: Arrived, start: int, stop: int, topics: Any, deliveries: Deliveries, commit: int, arrival: int
    ) -> None:
        rows, topics = arrived.rows[start:stop], topics[start:stop]
        durable = rows[:, FLAGS] & QOS != 0
        if some_durable := _some(durable):
            deliveries.processed(rows[durable, PACKET_ID].tolist(), rows[durable, HASH].tolist(), commit)
        wanted = int(np.count_nonzero(self._wanted[topics]))
        if wanted < len(rows):
            self._metrics.count("events.unrouted", len(rows) - wanted)
        own = self._of_drivers[topics]
        again = np.zeros(len(rows), np.bool_)
        if _some(own) and (numbered := _where(own & durable & self._wanted[topics])).size:
            again[numbered] = ~self._new(arrived, numbered + start)
            self._metrics.count("events.duplicate", int(np.count_nonzero(again)))
        failed: set[int] = set()
        samples = 0
        for feed in self._feeds:
            keys = feed.keys[topics]
            picked = _where((keys >= 0) & ~again)
            if not picked.size:
                continue
            samples += self._decode(
                arrived, feed, picked + start, keys[picked].astype(np.int64), own[picked], arrival, failed
            )
            if some_durable and _some(durable[picked]):
                self._plan.urgent.add(feed.source.name)
        self._metrics.count("events.in", wanted)
        self._metrics.count("events.samples", samples)

    def _decode(
        self, arrived: Arrived, feed: _Feed, picked: Any, keys: Any, own: Any, arrival: int, failed: set[int]
    ) -> int:
        """Decodes messages into the table of one source; returns the number of rows."""
        source, table, status = feed.source, feed.source.table, self._status
        by_gateway = np.zeros(picked.size, np.uint8)
        at = rows = 0
        table.reserve(picked.size)
        while True:
            first = at
            payload_kernels.decode(
                arrived.bytes, arrived.rows, picked, at, keys, feed.names.text, feed.names.where, feed.unit, arrival,
                arrival + MAX_SKEW, table.ts, table.key, table.present, table.columns, by_gateway, table.n, ENOUGH, status,
            )  # fmt: skip
            at, written = int(status[payload_kernels.STOPPED]), int(status[payload_kernels.WRITTEN])
            table.n += written
            rows += written
            if status[payload_kernels.NOT_FINITE]:
                self._metrics.count("fields.unusable", int(status[payload_kernels.NOT_FINITE]), reason="not_finite")
            source.keys.note_clocks(keys[first:at], by_gateway[first:at] | own[first:at])
            if table.latest and written:
                self._plan.latest.fill(table, written)
            if table.n >= ENOUGH:
                self._run()
            if at == picked.size:
                return rows
            if short := int(status[payload_kernels.SHORT]):
                table.reserve(short)
                continue
            i = int(picked[at])
            try:
                fields = fields_of(_payload(arrived, i))
                rows += self._plan.add(source, source.keys.labels[keys[at]], fields, arrival, by_gateway=bool(own[at]))
                self._sample_part(arrived, i)
            except PayloadError as error:
                if i not in failed:
                    self._fail(arrived, i, error)
                    failed.add(i)
            at += 1

    # One by one

    def _take_one(
        self, arrived: Arrived, i: int, number: int, deliveries: Deliveries, commit: int, arrival: int, now: int
    ) -> None:
        count, plan = self._metrics.count, self._plan
        _, _, _, _, flags, packet_id, digest = arrived.rows[i].tolist()
        durable, dup, retained = flags & QOS, flags & DUP, bool(flags & RETAIN)
        if durable and dup and deliveries.came_again(packet_id, digest):
            count("events.redelivered")
            return
        if durable:
            deliveries.processed([packet_id], [digest], commit, new=not dup)
        topic = _topic(arrived, i)
        if number == NO_TOPIC:
            self._fail(arrived, i, PayloadError("bad_topic", _why_no_topic(topic)))
            return
        sources, asked_for = plan.router.route(topic), plan.latest.wants(topic)
        forwarded = number in self._forwarded
        if not sources and not asked_for and not forwarded:
            count("events.unrouted")
            return
        if retained:
            count("events.retained")
        count("events.in")
        is_own, fields = bool(self._of_drivers[number]), dict[str, Any]()
        try:
            fields = fields_of(_payload(arrived, i)) if sources or asked_for or is_own else {}
            if is_own and durable and self._came_before(fields):
                count("events.duplicate")
                return
            if is_own:
                self._timeline.put_right(fields, now)
            if asked_for:
                for reason in plan.latest.update(topic, fields):
                    count("fields.unusable", reason=reason)
        except PayloadError as error:  # of no use to compiled handlers; Python handlers read it themselves
            if sources or asked_for:
                self._fail(arrived, i, error)
        else:
            failed: PayloadError | None = None
            for source, label in sources:
                try:
                    rows = plan.add(source, label, fields, arrival, retained=retained, by_gateway=is_own)
                    count("events.samples", rows)
                    self._sample_part(arrived, i)
                except PayloadError as error:  # an array that this source wants; another may not
                    failed = failed or error
                if durable:
                    plan.urgent.add(source.name)
            if failed is not None:
                self._fail(arrived, i, failed)
        if forwarded:
            self._forwarding.add(
                topic, _payload(arrived, i), retained=retained, digest=digest,
                place=self._place(fields, is_own, deliveries) if durable else "",
            )  # fmt: skip
        for source, label in sources:
            self._by_name[source.name].note(number, label)

    def _place(self, fields: dict[str, Any], is_own: bool, deliveries: Deliveries) -> str:
        """A driver sends again under another packet id what was not confirmed: its events are told by what is in them."""
        numbered = is_own and belongs(fields.get("src", ""), fields.get("seq", -1), fields.get("seq_floor", 0))
        return OF_DRIVER if numbered else f"{deliveries.epoch}/{deliveries.position}"

    def _came_before(self, fields: dict[str, Any]) -> bool:
        """Whether this is an event of a driver of ours that the broker, or the driver, has sent again."""
        src, seq, floor = fields.get("src", ""), fields.get("seq", -1), fields.get("seq_floor", 0)
        return belongs(src, seq, floor) and not self._sequences.take(src, seq, floor)

    def _fail(self, arrived: Arrived, i: int, error: PayloadError) -> None:
        self._metrics.count("events.failed", reason=error.reason)
        self._sample(_topic(arrived, i), error, _payload(arrived, i)[:64])

    def _sample_part(self, arrived: Arrived, i: int) -> None:
        """Of what was just added a part may have been left out, which is counted already."""
        if (error := self._plan.decoder.unusable) is not None:
            self._sample(_topic(arrived, i), error, _payload(arrived, i)[:64])


def _why_no_topic(topic: bytes) -> str:
    try:
        topic_of(topic)
    except TopicError as error:
        return str(error)
    return ""


def _some(flags: npt.NDArray[Any]) -> bool:
    """What numpy's `any` says, in a tenth of its time: most of these arrays are short."""
    return bool(np.count_nonzero(flags))


def _where(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The same of `flatnonzero`."""
    return flags.nonzero()[0]


def _topic(arrived: Arrived, i: int) -> bytes:
    at, length = arrived.rows[i, TOPIC : TOPIC_LENGTH + 1].tolist()
    return arrived.bytes[at : at + length].tobytes()


def _payload(arrived: Arrived, i: int) -> bytes:
    at, length = arrived.rows[i, PAYLOAD : PAYLOAD_LENGTH + 1].tolist()
    return arrived.bytes[at : at + length].tobytes()
