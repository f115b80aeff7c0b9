"""The scheduler: takes invocations in, starts them when it is their turn, and settles how each has ended."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from edgefn.clock import Clock
from edgefn.errors import PayloadError
from edgefn.functions import failures
from edgefn.functions.invocation import FUNCTION, Cover, Invocation, from_row, id_of, new_id
from edgefn.functions.journal import Completion, Journal
from edgefn.functions.lane import Deployment, Lane, Running
from edgefn.functions.memory import Memory
from edgefn.functions.pool import Pool
from edgefn.functions.protocol import Call, Forward, FromWorker, Outcome, Published, Ready
from edgefn.functions.workers import Program, Worker
from edgefn.metrics import Metrics
from edgefn.store import CALL, NewItem

log = logging.getLogger(__name__)

NS = 1_000_000_000
BEGIN = 30.0  # seconds that a worker may take to import its file
GRACE = 0.25  # seconds after its deadline that an async handler has to end by itself
LONGEST_BACKOFF = 3600 * NS
MAX_BYTES = 32 << 20  # of all invocations that wait, of all handlers
BYSTANDER = 3  # times that an invocation is started again for free because another one had its worker killed
ASYNC_CALLS = 64  # at once in one worker


class Outlet(Protocol):
    """Where the effects of invocations go. Called in the event loop; must not block."""

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """A handler has published."""

    def returned(self, deployment: Deployment, invocation: Invocation, value: bytes) -> Sequence[NewItem]:
        """A handler has returned a value (JSON): publishes it where it goes, and returns what of it goes to the cloud."""

    def forwarded(self, deployment: Deployment, invocation: Invocation, forward: Forward) -> NewItem:
        """What a handler sends to the cloud."""


class Scheduler:
    """All Python handlers of a gateway. One event loop; nothing here waits."""

    def __init__(
        self, outlet: Outlet, clock: Clock, metrics: Metrics, *, gateway: str, workers: int, secrets: Path
    ) -> None:
        self.lanes: dict[str, Lane] = {}
        self.journal = Journal(self._memory, clock.monotonic, metrics)
        self.pool = Pool(workers, metrics, gateway=gateway, secrets=secrets, heard=self._heard, ended=self._ended)
        self._outlet = outlet
        self._drivers = f"edgefn/{gateway}/event/"  # topics of edgefn's own drivers, which stamp by gateway time
        self._clock = clock
        self._metrics = metrics
        self._order: deque[Lane] = deque()  # who is next where workers are few
        self._bytes = 0
        self._listeners: dict[str, list[str]] = {}  # handler → handlers that its output starts
        self._stopping = False
        self.on_room: Callable[[], None] = lambda: None  # a queue that was found full has room again
        self._found_full: set[str] = set()

    # What runs

    def deploy(self, deployments: Iterable[Deployment]) -> None:
        """From now on these run, in these versions. What runs ends in its own; what waits goes to the new one."""
        wanted = {one.manifest.name: one for one in deployments}
        memory: dict[tuple[str, bool], int] = {}
        for one in wanted.values():
            key = (one.source, one.manifest.is_async)
            memory[key] = max(memory.get(key, 0), one.manifest.policy.memory)
        for name in wanted.keys() - self.lanes.keys():
            self._lane(name)
        for name, lane in self.lanes.items():
            lane.deployment = wanted.get(name)
            lane.program = None
            if lane.deployment is not None:
                key = (lane.deployment.source, lane.deployment.manifest.is_async)
                lane.program = lane.deployment.program(memory[key])
        for lane in self.lanes.values():
            self._take_back(lane)
        programs = {lane.program for lane in self.lanes.values()}
        self.pool.retire(lambda program: program in programs)
        self._listeners = {}
        for name, one in wanted.items():
            for trigger in one.manifest.triggers:
                if trigger.__struct_config__.tag == "output":
                    self._listeners.setdefault(trigger.handler, []).append(name)  # type: ignore[union-attr]
        if wanted:
            self.pool.want()
        self._pump()

    def _take_back(self, lane: Lane) -> None:
        """What waits for a worker of another version has not begun, and the worker would leave without it."""
        for running in reversed(list(lane.running.values())):
            if not running.deadline and running.worker.program != lane.program:
                self.pool.returned(running.worker, running.invocation.id)
                self._put_back(lane, running)

    def _put_back(self, lane: Lane, running: Running) -> None:
        """An attempt that does not count: its invocation is the next one again."""
        del lane.running[running.invocation.id]
        if running.timer is not None:
            running.timer.cancel()
        self._bytes += running.invocation.size
        lane.put_back(running.invocation)

    def _lane(self, name: str) -> Lane:
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane(name)
            self._order.append(lane)
        return lane

    def _memory(self, name: str) -> Memory:
        return self._lane(name).memory

    def restore(self, saved: Mapping[str, list[bytes]]) -> None:
        """Takes up what the store has of invocations that wait and of what handlers keep. Again is harmless."""
        for owner, parts in saved.items():
            if owner.startswith(FUNCTION) and owner.removeprefix(FUNCTION) not in self.lanes:
                name = owner.removeprefix(FUNCTION)
                try:
                    self._lane(name).memory.restore(parts)
                except msgspec.DecodeError as error:
                    log.error("%s: what it had kept cannot be read and begins afresh: %s", name, error)
        for owner, parts in saved.items():
            id = owner.removeprefix(CALL)
            if owner.startswith(CALL) and not self.journal.holds(id):
                try:
                    invocation = from_row(id, parts[-1])
                except PayloadError as error:
                    log.error("invocation %s cannot be read and is lost: %s", id, error)
                    self._metrics.count("functions.dropped", reason="unreadable")
                    continue
                invocation.arrived = self._clock.monotonic()
                self.journal.add(invocation)
                self._lane(invocation.function).queue.append(invocation)
                self._bytes += invocation.size
        self._pump()

    # In

    def invoke(self, invocation: Invocation) -> bool:
        """Takes an invocation in. False where it is known already, or was not taken: that is counted."""
        if self.journal.knows(invocation.id):
            self._metrics.count("functions.redelivered")
            return False
        lane = self._lane(invocation.function)
        invocation.arrived = self._clock.monotonic()
        if lane.deployment is not None:
            policy = lane.deployment.manifest.policy
            what = policy.on_overflow or ("dead-letter" if invocation.durable else "drop-oldest")
            while lane.waiting >= policy.max_queue or self._bytes + invocation.size > MAX_BYTES:
                if not self._overflow(lane, invocation, what):
                    return False
        self.journal.add(invocation)
        lane.queue.append(invocation)
        self._bytes += invocation.size
        self._pump()
        return True

    def _overflow(self, lane: Lane, new: Invocation, what: str) -> bool:
        """Gives the oldest or the new one up; returns whether the new one may still be taken in."""
        self._metrics.count("functions.dropped", reason="queue_full")
        lane.meter.dropped["queue_full"] += 1
        if what == "drop-oldest" and lane.queue:
            oldest = lane.queue.popleft()
            self._bytes -= oldest.size
            self.journal.complete(Completion(oldest))
            return True
        if what == "dead-letter":
            if new.durable:
                self.journal.add(new)
            self._bury(lane, new, "overflow", f"{lane.waiting} invocations wait already")
        elif new.durable:
            self.journal.add(new)
            self.journal.complete(Completion(new))
        return False

    def has_room(self, function: str) -> bool:
        """Whether an invocation that must not be lost can be taken in now."""
        lane = self._lane(function)
        policy = lane.deployment.manifest.policy if lane.deployment else None
        has_room = policy is not None and lane.waiting < policy.max_queue and self._bytes < MAX_BYTES // 2
        if not has_room:
            self._found_full.add(function)
        return has_room

    def _tell_room(self, lane: Lane) -> None:
        if lane.name in self._found_full and not lane.waiting:
            self._found_full.discard(lane.name)
            self.on_room()

    def output(self, handler: str, key: str, ts: int, payload: bytes, *, durable: bool, engine: int = 0) -> None:
        """Another handler has put a row out: starts those that listen to it."""
        for name in self._listeners.get(handler, ()):
            id = id_of(name, handler, key, ts, payload) if durable else new_id()
            self.invoke(
                Invocation(id, name, f"output/{handler}", payload, key, ts=ts, durable=durable, cover=Cover(engine))
            )

    def listens(self, handler: str) -> bool:
        return handler in self._listeners

    # Turns

    def _pump(self) -> None:
        """Starts whatever can start: in turns, so that none who has much to do keeps the workers from the others."""
        moved = not self._stopping
        while moved:
            moved = False
            for _ in range(len(self._order)):
                lane = self._order[0]
                self._order.rotate(-1)
                if lane.is_ready() and lane.program is not None:
                    worker = self.pool.find(lane.program, ASYNC_CALLS if lane.program.is_async else 1)
                    if worker is not None:
                        self._start(lane, lane.take(), worker)
                        moved = True

    def _start(self, lane: Lane, invocation: Invocation, worker: Worker) -> None:
        assert lane.deployment is not None
        running = Running(invocation, worker, lane.deployment, self._clock.monotonic())
        lane.running[invocation.id] = running
        self._bytes -= invocation.size
        self.pool.begin(worker, invocation.id, lane.name)
        loop = asyncio.get_running_loop()
        if worker.is_ready:
            self._call(lane, running)
        else:
            running.timer = loop.call_later(
                BEGIN, worker.kill, "timeout", f"its file was not imported within {BEGIN:g} s"
            )

    def _call(self, lane: Lane, running: Running) -> None:
        """Now the time counts."""
        invocation, worker, manifest = running.invocation, running.worker, running.deployment.manifest
        if running.timer is not None:
            running.timer.cancel()
        timeout = manifest.policy.timeout
        running.deadline = self._clock.monotonic() + timeout
        memory = lane.memory
        known = worker.knows.get(lane.name) == memory.version
        worker.knows[lane.name] = memory.version
        if not known:
            for other in lane.running.values():
                other.is_behind |= other.worker is worker and other is not running
        worker.send(
            Call(
                invocation.id, manifest.function, lane.name, manifest.takes, invocation.topic, invocation.key,
                invocation.captures, invocation.payload, invocation.ts, invocation.attempt, invocation.retained,
                running.deadline, None if known else dict(memory.values),
            )
        )  # fmt: skip
        running.timer = asyncio.get_running_loop().call_later(
            timeout / NS + (GRACE if manifest.is_async else 0.0),
            worker.kill, "timeout", f"it took longer than its timeout of {timeout / NS:g} s",
        )  # fmt: skip

    # Out

    def _heard(self, worker: Worker, message: FromWorker) -> None:
        if isinstance(message, Ready):
            for call, whose in list(worker.calls.items()):
                begun = self.lanes[whose].running.get(call)
                if begun is not None and not begun.deadline:
                    self._call(self.lanes[whose], begun)
        elif isinstance(message, Published):
            name = worker.calls.get(message.id)
            if name is not None and (running := self.lanes[name].running.get(message.id)) is not None:
                self._publish(running, message)
        elif isinstance(message, Outcome):
            name = worker.calls.get(message.id)
            if name is not None:
                self._settle(self.lanes[name], message.id, message)
                self._look_after(worker, message)
                self._pump()
                self._tell_room(self.lanes[name])

    def _publish(self, running: Running, message: Published) -> None:
        """At once; but not what an earlier attempt has published already."""
        digest = hashlib.blake2b(message.topic.encode() + b"\0" + message.payload, digest_size=8).digest()
        running.published[digest] += 1
        if running.published[digest] > running.invocation.published[digest]:
            running.invocation.published[digest] += 1
            self._outlet.publish(message.topic, message.payload, message.qos, message.retain)

    def _look_after(self, worker: Worker, outcome: Outcome) -> None:
        """Lets a worker go that has grown: what it leaks does not come back."""
        if outcome.result == "memory":
            worker.kill("recycled", "it wanted more memory than its limit")
        elif outcome.memory > worker.program.memory // 2 and not worker.leaving:
            self._metrics.count("functions.workers_recycled")
            log.info("%s: its worker has grown to %d MB and is replaced", worker.program.file, outcome.memory >> 20)
            self.pool.let_go(worker)

    def _settle(self, lane: Lane, id: str, outcome: Outcome) -> None:
        running = lane.running.pop(id, None)
        if running is None:
            return
        invocation, worker = running.invocation, running.worker
        if running.timer is not None:
            running.timer.cancel()
        self.pool.returned(worker, id)
        lane.meter.note(outcome.result, running.started - invocation.arrived, outcome.wall, outcome.cpu, outcome.peak)
        self._metrics.count("functions.invocations", reason=outcome.result)
        if outcome.result == "done":
            self._done(lane, running, outcome)
        else:
            self._failed(lane, running, outcome)

    def _done(self, lane: Lane, running: Running, outcome: Outcome) -> None:
        invocation, deployment = running.invocation, running.deployment
        lane.release(invocation)
        if outcome.ts is not None:
            invocation.ts, invocation.own_clock = outcome.ts, invocation.topic.startswith(self._drivers)
        items = [self._outlet.forwarded(deployment, invocation, one) for one in outcome.forwards]
        if outcome.value is not None:
            items += self._outlet.returned(deployment, invocation, outcome.value)
        before = lane.memory.version
        self.journal.complete(Completion(invocation, items, outcome.state))
        if running.worker.knows.get(lane.name) == before and not running.is_behind:  # it has made the change itself
            running.worker.knows[lane.name] = lane.memory.version
        for number, one in enumerate(outcome.invokes):
            if one.name not in self.lanes or self.lanes[one.name].deployment is None:
                log.error("%s: it invoked %r, and no Python handler of that name runs", lane.name, one.name)
                self._metrics.count("functions.dropped", reason="unknown_handler")
                continue
            self._child(invocation, one.name, f"invoke/{lane.name}", one.payload, number)
        if outcome.value is not None:
            for number, name in enumerate(self._listeners.get(lane.name, ())):
                self._child(invocation, name, f"output/{lane.name}", outcome.value, -1 - number)

    def _child(self, parent: Invocation, name: str, topic: str, payload: bytes, number: int) -> None:
        """What an invocation starts is durable where it is, and starts once for each of its ids."""
        id = id_of(name, parent.id, number) if parent.durable else new_id()
        self.invoke(parent.child(id, name, topic, payload))

    def _failed(self, lane: Lane, running: Running, outcome: Outcome) -> None:
        """Where its handler is paused or gone, what is tried again waits for it."""
        invocation, policy = running.invocation, (lane.deployment or running.deployment).manifest.policy
        lane.last_error = failures.last_error(invocation, outcome, self._clock.now())
        again = outcome.result != "unfit" and invocation.attempt <= policy.retries
        if (untold := lane.may_tell(self._clock.monotonic())) is not None:
            log.warning("%s", failures.told(invocation, outcome, policy, again=again, untold=untold))
        if not again:
            lane.release(invocation)
            self._bury(lane, invocation, outcome.result, f"{outcome.error}\n{outcome.traceback}".strip())
            return
        ceiling = min(LONGEST_BACKOFF, policy.backoff << min(invocation.attempt - 1, 30))
        invocation.attempt += 1
        self.journal.retried(invocation)
        timer = asyncio.get_running_loop().call_later(
            random.uniform(0, ceiling) / NS, self._try_again, lane, invocation
        )
        lane.delayed[invocation.id] = (invocation, timer)
        self._bytes += invocation.size

    def _try_again(self, lane: Lane, invocation: Invocation) -> None:
        del lane.delayed[invocation.id]
        lane.put_back(invocation)
        self._pump()

    def _bury(self, lane: Lane, invocation: Invocation, reason: str, detail: str) -> None:
        self._metrics.count("functions.dead", reason=reason)
        lane.meter.dropped["dead_letter"] += 1
        letter = failures.letter(invocation, reason, detail, self._clock.now())
        self.journal.complete(Completion(invocation, letter=letter))

    def _ended(self, worker: Worker) -> None:
        """A worker is gone, with all that ran in it."""
        now = self._clock.monotonic()
        for call, whose in list(worker.calls.items()):
            lane = self.lanes[whose]
            running = lane.running.get(call)
            if running is None:
                continue
            guilty = worker.cause != "timeout" or not running.deadline or now >= running.deadline
            innocent = worker.cause in ("template", "stop", "idle", "recycled") or not guilty
            if innocent and running.invocation.bystander < BYSTANDER:
                running.invocation.bystander += worker.cause != "stop"
                self._put_back(lane, running)
                self._metrics.count("functions.bystanders")
                continue
            self._settle(lane, call, failures.obituary(worker, call, now - (running.started or now)))
        self._pump()

    def report(self) -> dict[str, Any]:
        """The meter of each handler."""
        return {name: lane.report() for name, lane in self.lanes.items() if lane.deployment is not None or lane.waiting}

    async def stop(self, patience: float) -> None:
        """Gives what runs a moment. What does not end in time runs again after the next start, where it is durable."""
        self._stopping = True
        for lane in self.lanes.values():
            for _, timer in lane.delayed.values():
                timer.cancel()
        await self.pool.stop(patience)


__all__ = ["Deployment", "Outlet", "Program", "Scheduler"]
