"""One worker: runs the Python handlers of one file, as the gateway calls them, until it is told to leave.

A worker for plain functions runs one call at a time, in the main thread; one for async functions runs many in one loop.
Deadlines of async functions are kept here, as long as they give the loop a chance; for everything else the gateway
kills this process.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from edgefn.errors import EdgefnError
from edgefn.functions import protocol
from edgefn.functions.context import MAX_PAYLOAD, Context, State, UnfitError, to_json
from edgefn.functions.event import Event
from edgefn.functions.output import CURRENT, Printed, install
from edgefn.functions.protocol import Broken, Call, Fork, Leave, Outcome, Published, Ready

MAX_TRACEBACK = 4000  # characters; the end says what went wrong
PAGE = resource.getpagesize()
OURS = (Path(__file__).parent, Path(__file__).parents[1])


class Connection:
    """The worker's end of its socket: whole messages, written at once."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._frames = protocol.Frames()

    def send(self, message: protocol.FromWorker) -> None:
        self.sock.sendall(protocol.frame(message))

    def receive(self) -> Iterator[protocol.ToWorker]:
        """What is whole after one read. Raises ConnectionError when the gateway has gone."""
        data = self.sock.recv(1 << 18)
        if not data:
            raise ConnectionError("the gateway has gone")
        for body in self._frames.feed(data):
            yield protocol.to_worker(body)


class Worker:
    """Runs calls. `states` holds what the gateway has said of each handler's state."""

    def __init__(self, fork: Fork, connection: Connection) -> None:
        self._fork = fork
        self._connection = connection
        self._states: dict[str, dict[str, bytes]] = {}
        self._module: ModuleType
        self._printed: tuple[Printed, ...] = ()
        self._base = resident()

    def run(self) -> None:
        """Returns when it is told to leave, or when the gateway has gone."""
        self._printed = install()
        started = time.perf_counter()
        try:
            from edgefn.loader import read_source, run

            self._module = run(Path(self._fork.file), read_source(Path(self._fork.source)))
        except (Exception, SystemExit) as error:
            self._connection.send(Broken(_told(error), _traceback(error)))
            return
        self._connection.send(Ready(time.perf_counter() - started))
        try:
            if self._fork.is_async:
                asyncio.run(self._serve())
            else:
                self._work()
        except ConnectionError:
            return

    # Plain functions

    def _work(self) -> None:
        while True:
            for message in self._connection.receive():
                if isinstance(message, Leave):
                    return
                self._connection.send(self._call(message))

    def _call(self, call: Call) -> Outcome:
        CURRENT.set(call.name)
        started, cpu = time.perf_counter_ns(), time.process_time_ns()
        context = self._context(call)
        try:
            value = self._function(call)(*self._arguments(call, context))
            outcome = self._done(call, context, value)
        except BaseException as error:
            outcome = _failed(call, error)
        return self._finish(outcome, started, cpu)

    # Async functions

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection(sock=self._connection.sock, limit=1 << 20)
        running: set[asyncio.Task[None]] = set()
        frames = protocol.Frames()
        leaving = False
        while not (leaving and not running):
            reading = loop.create_task(reader.read(1 << 18))
            while not reading.done():
                await asyncio.wait({reading, *running}, return_when=asyncio.FIRST_COMPLETED)
                running = {task for task in running if not task.done()}
                if leaving and not running:
                    reading.cancel()
                    writer.close()
                    return
            if not reading.result():
                raise ConnectionError("the gateway has gone")
            for body in frames.feed(reading.result()):
                message = protocol.to_worker(body)
                if isinstance(message, Leave):
                    leaving = True
                else:
                    running.add(loop.create_task(self._call_async(message, writer), name=message.id))

    async def _call_async(self, call: Call, writer: asyncio.StreamWriter) -> None:
        CURRENT.set(call.name)
        started, cpu = time.perf_counter_ns(), time.process_time_ns()
        context = self._context(call, lambda message: writer.write(protocol.frame(message)))
        limit = asyncio.timeout(max(0.0, (call.deadline - time.monotonic_ns()) / 1e9))
        try:
            async with limit:
                value = await self._function(call)(*self._arguments(call, context))
            outcome = self._done(call, context, value)
        except BaseException as error:
            if isinstance(error, TimeoutError) and limit.expired():
                outcome = Outcome(call.id, "timeout", "it took longer than its timeout", _traceback(error))
            else:
                outcome = _failed(call, error)
        writer.write(protocol.frame(self._finish(outcome, started, cpu)))

    # Both

    def _context(self, call: Call, send: Any = None) -> Context:
        send = send or self._connection.send
        if call.state is not None:
            self._states[call.name] = call.state
        event = Event(
            call.topic, call.payload, key=call.key, captures=call.captures, arrival=call.ts, id=call.id,
            attempt=call.attempt, retained=call.retained,
        )  # fmt: skip
        return Context(
            event,
            State(self._states.get(call.name, {})),
            lambda topic, payload, qos, retain: send(Published(call.id, topic, payload, qos, retain)),
            name=call.name,
            gateway=self._fork.gateway,
            deadline=call.deadline,
            secrets=Path(self._fork.secrets),
        )

    def _function(self, call: Call) -> Any:
        return getattr(self._module, call.function)

    def _arguments(self, call: Call, context: Context) -> tuple[Any, ...]:
        return (context.event, context)[: call.takes]

    def _done(self, call: Call, context: Context, value: Any) -> Outcome:
        data = None if value is None else to_json(value, "what it returned")
        if data is not None and len(data) > MAX_PAYLOAD:  # it may have to go to another handler
            raise UnfitError(f"what it returned has {len(data)} bytes; {MAX_PAYLOAD} are allowed")
        rows = data is not None or context.forwards
        outcome = Outcome(
            call.id,
            "done",
            value=data,
            ts=context.event.told_ts if rows else None,
            forwards=context.forwards,
            invokes=context.invokes,
            state=context.state.changes,
        )
        if len(protocol.encode(outcome)) > protocol.MAX_FRAME - 1000:
            raise UnfitError("what it returned and forwarded is too large together; 8 MB are allowed")
        if context.state.changes:  # not before it is certain that it is done
            kept = {**self._states.get(call.name, {}), **context.state.changes}
            self._states[call.name] = {name: raw for name, raw in kept.items() if raw is not None}
        return outcome

    def _finish(self, outcome: Outcome, started: int, cpu: int) -> Outcome:
        for printed in self._printed:
            printed.finish()
        return msgspec.structs.replace(
            outcome,
            wall=time.perf_counter_ns() - started,
            cpu=time.process_time_ns() - cpu,
            memory=max(0, resident() - self._base),
            peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        )


def resident() -> int:
    """Bytes of anonymous memory; with what it shares with the template, since the kernel does not tell that apart cheaply."""
    try:
        with open("/proc/self/statm", "rb") as file:
            _, rss, shared = file.read().split()[:3]
    except (OSError, ValueError):  # a handler may have closed or used up its descriptors
        return 0
    return (int(rss) - int(shared)) * PAGE


def _failed(call: Call, error: BaseException) -> Outcome:
    result: protocol.Result = (
        "memory" if isinstance(error, MemoryError) else "unfit" if isinstance(error, UnfitError) else "failed"
    )
    return Outcome(call.id, result, _told(error), _traceback(error))


def _told(error: BaseException) -> str:
    """Whatever it is: the gateway has to hear of it."""
    try:
        return _utf8(_in_words(error))
    except Exception as another:  # of its own __str__
        return f"{type(error).__name__}, and {type(another).__name__} when it was to be told"


def _utf8(text: str) -> str:
    """Without what no message can hold: half a character, such as of a file name in another encoding."""
    return text.encode(errors="backslashreplace").decode()


def _in_words(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r}); a handler returns, or raises an exception"
    if isinstance(error, MemoryError):
        return "it wanted more memory than its limit"
    if isinstance(error, KeyError) and error.args and " is not in the event " in str(error.args[0]):
        return f"KeyError: {error.args[0]}"
    return f"{type(error).__name__}: {error}"[:1000]


def _traceback(error: BaseException) -> str:
    """Without edgefn's own frames; of its own errors, without what was behind them: the message says it."""
    told = traceback.TracebackException.from_exception(error)
    part: traceback.TracebackException | None = told
    raised: BaseException | None = error
    while part is not None and raised is not None:
        part.stack = traceback.StackSummary.from_list([one for one in part.stack if not _is_ours(one.filename)])
        if isinstance(raised, EdgefnError):
            part.__cause__ = part.__context__ = None
        part, raised = (
            (part.__cause__, raised.__cause__) if part.__cause__ is not None else (part.__context__, raised.__context__)
        )
    if not told.stack and told.__cause__ is None and told.__context__ is None:
        return ""
    return _utf8("".join(told.format())[-MAX_TRACEBACK:])


def _is_ours(file: str) -> bool:
    return Path(file).parent in OURS


def serve(fork: Fork, sock: socket.socket) -> None:
    """The whole life of a worker process. Never returns."""
    status = 0
    try:
        Worker(fork, Connection(sock)).run()
    except BaseException:
        os.write(2, traceback.format_exc().encode(errors="replace"))
        status = 1
    finally:
        os._exit(status)


__all__ = ["Connection", "Worker", "resident", "serve"]
