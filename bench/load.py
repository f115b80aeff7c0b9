"""The load generator, a process of its own: frames made beforehand go to the broker as fast as it reads, or at a rate.

    python -m bench.load '{"port": 1883, "kind": "json", "topic": "bench/{}/climate", "n": 1000, "qos": 0, "rate": 0, "mark": 1}'

says "ready", waits for a line on standard input, sends, and prints what it did as JSON. mosquitto_pub loses lines at QoS 1.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate
from types import TracebackType

from bench import workload
from bench.wire import Connection

WINDOW = 1000  # unacknowledged messages of QoS 1; what the broker is set up to take
TICK = 0.001  # seconds between two writes where there is a rate


@dataclass(frozen=True, slots=True)
class Spec:
    port: int
    topic: str  # {} is the key
    n: int
    kind: str = "json"  # or "batch", or "sized"
    qos: int = 0
    rate: float = 0.0  # events a second; 0: as fast as the broker reads
    mark: int = 0  # ends with a mark of this number
    start: int = 0  # sensor time of the first event, in ns
    keys: int = workload.KEYS
    step: int = 10 * workload.US  # ns of sensor time from one JSON event to the next
    size: int = 0  # bytes of each payload, where the kind is "sized"


@dataclass(frozen=True, slots=True)
class Sent:
    started: int  # monotonic ns
    ended: int
    bytes: int  # of PUBLISH frames
    cpu: float  # seconds that sending took of the generator's own CPU


class Generator:
    """The process, made ready by `with`; `go` may be called once."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec

    def __enter__(self) -> Generator:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load", json.dumps(asdict(self._spec))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the load generator does not start; its status is {self._process.wait(5)}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> Sent:
        """Waits until all is sent, and acknowledged where it is QoS 1."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator died; its traceback is above")
        return Sent(**json.loads(line))


def _send_paced(connection: Connection, data: memoryview, ends: list[int], rate: float) -> None:
    started, sent, at = time.monotonic(), 0, 0
    while sent < len(ends):
        due = min(len(ends), int((time.monotonic() - started) * rate) + 1)
        if due > sent:
            connection.send(data[at : ends[due - 1]])
            sent, at = due, ends[due - 1]
        time.sleep(max(TICK, 1 / rate))


def _send_acknowledged(connection: Connection, data: memoryview, ends: list[int]) -> None:
    """Writes while the window is open and counts PUBACKs: four bytes each, and nothing else comes on this connection."""
    sock = connection.sock
    sock.setblocking(False)
    at, acknowledged, n = 0, 0, len(ends)
    while acknowledged < 4 * n:
        may = min(n, acknowledged // 4 + WINDOW)
        stop = ends[may - 1]
        readable, writable, _ = select.select([sock], [sock] if at < stop else [], [], 30)
        if readable:
            got = sock.recv(1 << 16)
            if not got:
                raise ConnectionError("the broker closed the load generator's connection")
            acknowledged += len(got)
        elif writable:
            at += sock.send(data[at:stop])
        else:
            raise TimeoutError("the broker has acknowledged nothing for 30 s")
    sock.setblocking(True)


def _frames(spec: Spec) -> Iterator[bytes]:
    if spec.kind == "batch":
        return workload.batch_frames(spec.topic, spec.n, spec.start)
    if spec.kind == "sized":
        return workload.sized_frames(spec.topic, spec.n, spec.size)
    return workload.json_frames(spec.topic, spec.n, spec.qos, keys=spec.keys, start=spec.start, step=spec.step)


def main() -> None:
    spec = Spec(**json.loads(sys.argv[1]))
    frames = list(_frames(spec))
    ends = list(accumulate(map(len, frames)))
    data = memoryview(b"".join(frames))
    del frames
    with Connection(spec.port, "bench-load") as connection:
        print("ready", flush=True)
        sys.stdin.readline()
        started, cpu = time.monotonic_ns(), time.process_time()
        if spec.qos:
            _send_acknowledged(connection, data, ends)
        elif spec.rate:
            _send_paced(connection, data, ends, spec.rate)
        else:
            connection.send(data)
        if spec.mark:
            connection.send(workload.mark(spec.mark))
        sent = Sent(started, time.monotonic_ns(), len(data), time.process_time() - cpu)
        print(json.dumps(asdict(sent)), flush=True)
        sys.stdin.readline()  # a connection closed now could take the end with it


if __name__ == "__main__":
    main()
