"""One load through the gateway and the same load through mosquitto_sub, on one broker and in turns."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from statistics import median

from bench import proc
from bench.load import Generator, Sent, Spec
from bench.rig import Rig

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

    @property
    def account(self) -> str:
        """What became of the events, for the note."""
        sent = sum(run.n for run in self.ours)
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
    try:
        rig.wait("summaries of all", lambda: rig.samples[aggregate] - before >= expected, 12)
    except TimeoutError:
        pass  # the difference is the result
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


def in_turns(
    rig: Rig, n: int, repeats: int, *, topic: str = "climate", kind: str = "json", qos: int = 0, samples: int = 1
) -> Pair:
    """The two ways one after the other, `repeats` times, after a short run that warms both up."""
    pair = Pair([], [])
    port = rig.broker.port
    through_gateway(rig, Spec(port, f"bench/{{}}/{topic}", n // 10, kind, qos, mark=rig.next_mark()), samples=samples)
    for _ in range(repeats):
        pair.theirs.append(through_mosquitto_sub(Spec(port, f"peers/{{}}/{topic}", n, kind, qos)))
        ours = Spec(port, f"bench/{{}}/{topic}", n, kind, qos, mark=rig.next_mark())
        pair.ours.append(through_gateway(rig, ours, samples=samples))
    return pair
