"""One load through the gateway and the same load through mosquitto_sub, on one broker and in turns."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from statistics import median

from bench import proc
from bench.load import Generator, Sent, Spec
from bench.null_reader import null_rate
from bench.rig import Rig
from bench.rows import Row, sign
from bench.workload import SECOND, batch_span

SUBSCRIBED = 0.3  # seconds that mosquitto_sub gets to subscribe: it does not tell when it has
MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Run:
    """`n` messages from the first write to the end of the work on the last, in seconds."""

    n: int
    seconds: float
    sent: Sent
    used: Mapping[str, float] = field(default_factory=dict)  # seconds of CPU by process, until the last event is done
    cpu_closed: float = 0.0  # of the engine, with the summaries of all
    lost: int = 0  # samples that are in no summary; negative: counted twice

    @property
    def rate(self) -> float:
        return self.n / self.seconds

    @property
    def cpu(self) -> float:
        """Seconds of the engine."""
        return self.used["engine"]


@dataclass(frozen=True, slots=True)
class Pair:
    ours: list[Run] = field(default_factory=list)
    theirs: list[Run] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)  # bytes by process
    alone: float = 0.0  # messages a second that the load generator makes into a null reader

    @property
    def rate(self) -> float:
        return median(run.rate for run in self.ours)

    @property
    def peer_rate(self) -> float:
        return median(run.rate for run in self.theirs)

    @property
    def cpu(self) -> float:
        """µs of the engine for each message."""
        return median(run.cpu / run.n for run in self.ours) * MILLION

    @property
    def lost(self) -> int:
        return sum(abs(run.lost) for run in self.ours)

    def account(self, samples: int = 1) -> str:
        """What became of the events, for the note; `samples` are in each."""
        sent = sum(run.n for run in self.ours) * samples
        return f"{self.lost:,} of {sent:,} not counted once" if self.lost else f"all of {sent:,} counted once"

    @property
    def margin(self) -> str:
        """How far the generator is from being what limits the rate, for the note."""
        faster = max(self.rate, self.peer_rate)
        return f"the load generator alone makes {self.alone:,.0f}/s, {self.alone / faster:.1f} times as much"

    def costs(self, what: str) -> list[Row]:
        """Rows of what the processes took for these runs."""
        ours, theirs = per_million(self.ours), per_million(self.theirs)
        return [
            Row(
                f"{what}: CPU of gateway and broker for a million",
                sum(ours.values()) - ours["generator"],
                "s",
                f"for mosquitto_sub: {_parts(theirs)}",
                note=_parts(ours),
                lost=bool(self.lost),
            ),
            Row(
                f"{what}: memory after the load",
                (self.memory["engine"] + self.memory["edgefn run"]) / 2**20,
                "MB",
                note=", ".join(f"{name} {size / 2**20:.0f}" for name, size in self.memory.items()),
            ),
        ]


def per_million(runs: list[Run]) -> dict[str, float]:
    """Seconds of CPU by process for a million messages: of each the median of the runs."""
    return {name: median(run.used[name] / run.n for run in runs) * MILLION for name in runs[0].used}


def _parts(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {sign(value)}" for name, value in seconds.items())


def through_gateway(
    rig: Rig, spec: Spec, *, aggregate: str = "second", samples: int = 1, counted: Callable[[], int] | None = None
) -> Run:
    """Sends, waits for the alert of the mark behind the last event, then for summaries of everything.

    `counted` tells how many samples have been accounted for, where that is more than those in the summaries of `aggregate`.
    """
    count = counted or (lambda: rig.samples[aggregate])
    pids = {"engine": rig.engine, "edgefn run": rig.gateway, "broker": rig.broker_pid}
    before, cpu = count(), {name: proc.cpu_seconds(pid) for name, pid in pids.items()}
    with Generator(spec) as generator:
        generator.go()
        at = rig.wait_mark(spec.mark)
        used = {name: proc.cpu_seconds(pid) - cpu[name] for name, pid in pids.items()}
        sent = generator.result()
    expected = spec.n * samples
    with suppress(TimeoutError):  # the difference is the result
        rig.wait("summaries of all", lambda: count() - before >= expected, 20)
    closed = proc.cpu_seconds(rig.engine) - cpu["engine"]
    lost = expected - (count() - before)
    return Run(spec.n, (at - sent.started) / 1e9, sent, {**used, "generator": sent.cpu}, closed, lost)


def through_mosquitto_sub(spec: Spec, broker_pid: int) -> Run:
    """Returns when mosquitto_sub has written the last message to /dev/null. Raises TimeoutExpired where it never does."""
    command = ["mosquitto_sub", "-p", str(spec.port), "-t", spec.topic.format("+"), "-q", str(spec.qos)]
    with subprocess.Popen([*command, "-C", str(spec.n)], stdout=subprocess.DEVNULL) as subscriber:
        try:
            with Generator(spec) as generator:
                time.sleep(SUBSCRIBED)
                broker, own = proc.cpu_seconds(broker_pid), _children()
                generator.go()
                subscriber.wait(120)
                ended = time.monotonic_ns()
                used = {"mosquitto_sub": _children() - own, "broker": proc.cpu_seconds(broker_pid) - broker}
                sent = generator.result()
        finally:
            subscriber.kill()
    return Run(spec.n, (ended - sent.started) / 1e9, sent, {**used, "generator": sent.cpu})


def _children() -> float:
    """Seconds of CPU of the children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def peer_of(spec: Spec) -> Spec:
    """The same load on topics that the gateway does not hear."""
    return replace(spec, topic=spec.topic.replace("bench/", "peers/", 1), mark=0)


def in_turns(rig: Rig, load: Spec, repeats: int, *, samples: int = 1) -> Pair:
    """The two ways one after the other, `repeats` times; before several, a short run that warms the gateway up."""
    pair = Pair(alone=null_rate(load, repeats))
    # Sensors run faster than real time here: their time begins in the past, and each run goes on where the last ended.
    start = (time.time_ns() - batch_span(load.n) * (repeats + 2)) // SECOND * SECOND
    for number in range(-1 if repeats > 1 else 0, repeats):
        spec = replace(load, n=load.n // 10 if number < 0 else load.n, mark=rig.next_mark())
        if load.kind == "batch":
            spec = replace(spec, start=start)
            start += batch_span(spec.n)
        if number >= 0:
            pair.theirs.append(through_mosquitto_sub(peer_of(spec), rig.broker_pid))
        ours = through_gateway(rig, spec, samples=samples)
        if number >= 0:
            pair.ours.append(ours)
    pair.memory.update({"engine": proc.pss(rig.engine), "edgefn run": proc.pss(rig.gateway)})
    pair.memory["broker at most"] = proc.peak(rig.broker_pid)
    return pair
