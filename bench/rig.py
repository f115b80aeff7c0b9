"""A whole gateway under measurement: a broker, a cloud broker, `edgefn run` on a temporary folder, and a listener."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import proc, workload
from bench.wire import Connection, Message, publish
from edgefn.broker import PrivateBroker

GATEWAY = "bench"
START_TIMEOUT = 180.0  # seconds; a first run compiles
LISTEN = f"edgefn/{GATEWAY}/"

# With a limit the broker drops QoS 0 silently once a subscriber lags behind; a measurement wants to see the lag.
UNLIMITED = ("max_queued_messages 0",)

SETTINGS = """\
version = 1
{drivers}
[gateway]
id = "{gateway}"
state = "state"
[broker]
port = {broker}
private = "never"
[store]
max_size = "1GB"
[monitor]
interval = "{interval}"
{settings}
[[uplink]]
name = "cloud"
type = "mqtt"
host = "127.0.0.1"
port = {cloud}
"""

NO_DRIVERS = "driver = []"


class Rig:
    """`with Rig({"file.py": source}) as rig`: inside, the gateway has processed a first mark.

    `settings` are more sections of edgefn.toml. `prepare` is called with the state folder before the gateway starts; with
    `wait=False` the block is entered at once.
    """

    def __init__(
        self,
        handlers: Mapping[str, str],
        *,
        drivers: str = NO_DRIVERS,
        interval: str = "1s",
        settings: str = "",
        prepare: Callable[[Path], None] | None = None,
        wait: bool = True,
    ) -> None:
        self.samples: Counter[str] = Counter()  # by handler, summed over its summaries
        self.summaries: Counter[str] = Counter()
        self.metrics: dict[str, Any] = {}
        self.marks: dict[int, int] = {}  # number → monotonic ns of its alert
        self.states: dict[str, dict[str, Any]] = {}
        self.kept: set[str] = set()  # handlers whose summaries are kept, as `rows`
        self.rows: list[dict[str, Any]] = []
        self.fresh_alerts = 0  # of the handler that the start benchmark drops into the folder
        self.started = 0
        self._handlers = {**handlers, "mark.py": workload.MARK}
        self._drivers = drivers
        self._interval = interval
        self._settings = settings
        self._prepare = prepare
        self._wait = wait
        self._number = 0

    def __enter__(self) -> Rig:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgefn-bench-")))
            others = proc.family(os.getpid())
            self.broker = stack.enter_context(PrivateBroker(config=UNLIMITED))
            (self.broker_pid,) = proc.family(os.getpid()).keys() - others.keys()
            self.cloud = stack.enter_context(PrivateBroker(config=UNLIMITED))
            (self.folder / "handlers").mkdir()
            (self.folder / "state").mkdir(mode=0o700)
            for name, source in self._handlers.items():
                (self.folder / "handlers" / name).write_text(source)
            settings = SETTINGS.format(
                drivers=self._drivers,
                gateway=GATEWAY,
                broker=self.broker.port,
                cloud=self.cloud.port,
                interval=self._interval,
                settings=self._settings,
            )
            (self.folder / "edgefn.toml").write_text(settings)
            if self._prepare is not None:
                self._prepare(self.folder / "state")
            self.connection = stack.enter_context(Connection(self.broker.port, "bench-listener"))
            self.connection.subscribe(LISTEN + "#")
            self._log = stack.enter_context(open(self.folder / "gateway.log", "wb"))
            self.started = time.monotonic_ns()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edgefn", "run", str(self.folder)],
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
            stack.callback(self._stop)
            if self._wait:
                self.wait_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def log(self) -> str:
        return (self.folder / "gateway.log").read_text(errors="replace")

    def wait_ready(self, every: float = 0.02) -> int:
        """Sends marks until one comes back; returns when it did, in monotonic ns."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self.marks:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"the gateway does not start; the end of its log:\n{self.log[-3000:]}")
            self.send_mark(self.next_mark())
            self.listen(every)
        return min(self.marks.values())

    def next_mark(self) -> int:
        self._number += 1
        return self._number

    def send_mark(self, number: int) -> None:
        self.connection.send(workload.mark(number))

    def clear_mark(self) -> None:
        """Afterwards the mark's alert is known to be cleared, so that the next 1 raises it."""
        before, after = self.next_mark(), self.next_mark()
        self.send("mark/end", b'{"n":%d,"value":1}' % before)
        self.send("mark/end", b'{"n":%d,"value":0}' % after)
        self.wait_mark(after)

    def send(self, topic: str, payload: bytes) -> None:
        self.connection.send(publish(topic, payload))

    def listen(self, seconds: float) -> None:
        """Takes in what comes for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for message in self.connection.receive(left):
                self._take(message)

    def wait(self, what: str, done: Callable[[], bool], timeout: float) -> None:
        """Takes in what comes until `done`. Raises TimeoutError that says `what` did not come."""
        end = time.monotonic() + timeout
        while not done():
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{what} did not come within {timeout:g} s; the log ends:\n{self.log[-2000:]}")
            for message in self.connection.receive(min(left, 0.5)):
                self._take(message)

    def wait_mark(self, number: int, timeout: float = 60.0) -> int:
        self.wait(f"mark {number}", lambda: number in self.marks, timeout)
        return self.marks[number]

    def _take(self, message: Message) -> None:
        kind, _, name = message.topic.removeprefix(LISTEN).partition("/")
        if kind == "summary":
            handler = name.split("/", 1)[0]
            self.summaries[handler] += 1
            row = json.loads(message.payload)
            self.samples[handler] += row.get("samples", 0)
            if handler in self.kept:
                self.rows.append(row)
        elif kind == "alert" and name.startswith("mark/"):
            self.marks.setdefault(int(json.loads(message.payload)["values"]["value"]), message.at)
        elif kind == "alert" and name.startswith("fresh/"):
            self.fresh_alerts += 1
        elif kind == "handler":
            self.states[name] = json.loads(message.payload) if message.payload else {}
        elif kind == "metrics":
            self.metrics = json.loads(message.payload)

    @property
    def gateway(self) -> int:
        return self.process.pid

    @property
    def engine(self) -> int:
        """Its process id, as the gateway tells it."""
        self.wait("an engine in the metrics", lambda: bool(self.metrics.get("processes", {}).get("engine")), 30)
        return int(self.metrics["processes"]["engine"])

    def family(self) -> dict[str, int]:
        """All processes of the gateway by name; two of one name get a number."""
        names: dict[str, int] = {}
        for pid, name in proc.family(self.process.pid).items():
            names[name if name not in names else f"{name} {pid}"] = pid
        return names
