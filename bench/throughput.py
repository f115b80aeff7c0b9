"""One load through the gateway and the same load through mosquitto_sub, on one broker and in turns."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median

from bench import proc
from bench.load import Generator, Sent, Spec
from bench.rig import Rig
from bench.workload import SAMPLES, SECOND, batch_span

SUBSCRIBED = 0.3  # seconds that mosquitto_sub gets to subscribe: it does not tell when it has


@dataclass(frozen=True, slots=True)
class Run:
    """`n` messages from the first write to the end of the work on the last, in seconds."""

    n: int
    seconds: float
    sent: Sent
    cpu: float = 0.0  # seconds of the engine
    lost: int = 0  # samples that are in no summary; negative: counted twice

    @property
    def rate(self) -> float:
        return self.n / self.seconds


@dataclass(frozen=True, slots=True)
class Pair:
    ours: list[Run]
    theirs: list[Run]

    @property
    def rate(self) -> float:
        return median(run.rate for run in self.ours)

    @property
    def peer_rate(self) -> float:
        return median(run.rate for run in self.theirs)

    @property
    def lost(self) -> int:
        return sum(abs(run.lost) for run in self.ours)

    def account(self, samples: int = 1) -> str:
        """What became of the events, for the note; `samples` are in each."""
        sent = sum(run.n for run in self.ours) * samples
        return f"{self.lost:,} of {sent:,} not counted once" if self.lost else f"all of {sent:,} counted once"


def through_gateway(rig: Rig, spec: Spec, *, aggregate: str = "second", samples: int = 1) -> Run:
    """Sends, waits for the alert of the mark behind the last event, then for summaries of everything."""
    before, cpu = rig.samples[aggregate], proc.cpu_seconds(rig.engine)
    with Generator(spec) as generator:
        generator.go()
        at = rig.wait_mark(spec.mark)
        used = proc.cpu_seconds(rig.engine) - cpu
        sent = generator.result()
    expected = spec.n * samples
    with suppress(TimeoutError):  # the difference is the result
        rig.wait("summaries of all", lambda: rig.samples[aggregate] - before >= expected, 12)
    lost = expected - (rig.samples[aggregate] - before)
    return Run(spec.n, (at - sent.started) / 1e9, sent, used, lost)


def through_mosquitto_sub(spec: Spec) -> Run:
    """Returns when mosquitto_sub has written the last message to /dev/null. Raises TimeoutExpired where it never does."""
    command = ["mosquitto_sub", "-p", str(spec.port), "-t", spec.topic.format("+"), "-q", str(spec.qos)]
    with subprocess.Popen([*command, "-C", str(spec.n)], stdout=subprocess.DEVNULL) as subscriber:
        try:
            with Generator(spec) as generator:
                time.sleep(SUBSCRIBED)
                generator.go()
                subscriber.wait(120)
                ended = time.monotonic_ns()
                sent = generator.result()
        finally:
            subscriber.kill()
    return Run(spec.n, (ended - sent.started) / 1e9, sent)


def in_turns(rig: Rig, n: int, repeats: int, *, qos: int = 0, batch: bool = False) -> Pair:
    """The two ways one after the other, `repeats` times; before several, a short run that warms the gateway up."""
    pair = Pair([], [])
    topic, kind, samples = ("motor", "batch", SAMPLES) if batch else ("climate", "json", 1)
    # Sensors run faster than real time here: their time begins in the past, and each run goes on where the last ended.
    start = (time.time_ns() - batch_span(n) * (repeats + 2)) // SECOND * SECOND
    for number in range(-1 if repeats > 1 else 0, repeats):
        size = n // 10 if number < 0 else n
        spec = Spec(rig.broker.port, f"bench/{{}}/{topic}", size, kind, qos, mark=rig.next_mark(), start=start)
        start += batch_span(size)
        if number >= 0:
            pair.theirs.append(through_mosquitto_sub(replace(spec, topic=f"peers/{{}}/{topic}", mark=0)))
        ours = through_gateway(rig, spec, samples=samples)
        if number >= 0:
            pair.ours.append(ours)
    return pair
