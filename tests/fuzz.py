"""Spoilt streams of frames, through scanner and decoder as one: `python -m tests.fuzz --seconds 300`.

Each case is a stream of messages, spoilt at a few places and cut into pieces. It goes through kernels once, many messages at
a time, and once message by message through the library; rows, counters and failures have to be the same. The cases run in a
process of their own: a kernel that reads or writes where it must not ends that process, and the case is told.

    python -m tests.fuzz --case 1234567      that one again
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgefn import events
from edgefn.engine import frames
from edgefn.engine.session import Arrived
from tests import guided
from tests.engine.harness import compiled
from tests.engine.test_frames import publish
from tests.engine.test_ingest import SOURCE, Rig

TOPICS = [b"m/a/x", b"m/b/x", b"m/c", b"m/driver/x", b"other", b"set/point"]
NAMES = ["a", "b", "value", "ts", "dt", "src", "seq", "seq_floor", "other", "other:0", "n", "n", "o", "n.b", "\u00fc"]
NUMBERS = [
    "0",
    "-0",
    "1",
    "-1.5",
    "1e400",
    "1e-400",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e22",
    "9007199254740993",
    "0.1",
    "01",
    "1.",
    "true",
    "12345678901234567",
    "1.7976931348623157e308",
    "5e-324",
    "18446744073709551616",
    "1799999999",
    "1799999999123",
    "null",
    "false",
    "1800000300",
    "22.740000000000002",
    '"x"',
    '"\\n"',
    "[]",
    "{}",
    "[1,2]",
    "[1,null]",
    '{"a":[1]}',
    "[" * 70 + "]" * 70,
]
TOKENS = [
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b" ",
    b"\x00",
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"e",
    b"-",
    b".",
    b"0",
    b"\xc0\x80",
    b"\x80",
    b"\x81",
    b"\xde\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc7\x05\x01f",
    b"\xc9\xff\xff\xff\xff\x01f",
    b"\xdb\xff\xff\xff\xff",
    b"\xcb",
    b"\xc6\xff\xff\xff\xff",
    b"\xca\x7f\x80\x00\x00",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\xc1",
    b"\x91",
]


def _json(random: random.Random, levels: int = 3) -> bytes:
    """An object of anything; a few of its members are objects, too."""
    members = []
    for _ in range(random.randrange(5)):
        inner = _json(random, levels - 1).decode() if levels and random.random() < 0.3 else random.choice(NUMBERS)
        members.append(f'"{random.choice(NAMES)}":{inner}')
    if random.random() < 0.5:
        members.append('"a":[' + ",".join(random.choice(NUMBERS[:20]) for _ in range(random.randrange(6))) + "]")
    return ("{" + random.choice([",", ", ", ",\n"]).join(members) + "}").encode()


def _map(random: random.Random) -> bytes:
    return events.pack(_members(random, random.randrange(1, 20), 3))


def _members(random: random.Random, n: int, levels: int) -> dict[str, Any]:
    """Of a map, whose arrays have n elements; a few are maps, too."""
    members: dict[str, Any] = {}
    for _ in range(random.randrange(5)):
        inner = levels and random.random() < 0.3
        members[random.choice(NAMES)] = (
            _members(random, n, levels - 1)
            if inner
            else random.choice(
                [
                    0,
                    -1,
                    200,
                    -200,
                    70_000,
                    2**40,
                    2**63,
                    -(2**63),
                    1.5,
                    float("nan"),
                    float("inf"),
                    True,
                    None,
                    "text",
                    b"bytes",
                    [1, 2],
                    {},
                ]
                + [
                    np.frombuffer(random.randbytes(8 * n), chr(random.choice(sorted(events.ELEMENTS))))[:n]
                    for _ in range(6)
                ]
                + [1_799_999_999, 1_800_000_301, 1_799_999_999.5]
            )
        )
    return members


def _plain(random: random.Random) -> bytes:
    """What devices send, so that runs are long enough to be taken."""
    if random.random() < 0.2:
        return events.pack({"a": np.arange(random.randrange(1, 9), dtype=np.float32), "dt": 1000})
    if random.random() < 0.2:
        inner = {"o": {"a": random.random(), "x": [1, {"y": 2}]}, "b": random.randrange(99), "unit": "C"}
        fields = {"a": 1, "n": inner, "other:0": 5}
        return random.choice([lambda one: json.dumps(one).encode(), events.pack])(fields)
    marks = f',"src":"d","seq":{random.randrange(30)}' if random.random() < 0.3 else ""
    return f'{{"a":{random.choice(NUMBERS[:4])},"b":{random.random()}{marks}}}'.encode()


def _spoil(random: random.Random, data: bytes) -> bytes:
    made = bytearray(data)
    for _ in range(random.randrange(1, 4)):
        at = random.randrange(len(made) + 1)
        which = random.randrange(5)
        if which == 0 and made:
            made[at % len(made)] ^= 1 << random.randrange(8)
        elif which == 1:
            made[at:at] = random.choice(TOKENS)
        elif which == 2:
            del made[at : at + random.randrange(1, 9)]
        elif which == 3:
            token = random.choice(TOKENS)
            made[at : at + len(token)] = token
        else:
            made[at:at] = made[at : at + random.randrange(1, 30)]
    return bytes(made)


def _stream(random: random.Random) -> tuple[bytes, bool]:
    v5 = random.random() < 0.5
    share = random.choice([0.0, 0.02, 0.1, 0.5])  # of what is not plain
    alone = random.choice([0.0, 0.05, 0.3])  # of what goes in no run: where that is much, nothing does
    made = []
    for number in range(1, random.randrange(2, 80)):
        make = random.choice([_json, _map]) if random.random() < share else _plain
        payload = make(random)
        if random.random() < share:
            payload = _spoil(random, payload)
        is_alone = random.random() < alone
        flags = random.choice([1, 10] if is_alone else [0, 0, 2])
        made.append(
            publish(random.choice(TOPICS if is_alone else TOPICS[:-1]), payload, flags, number, b"" if v5 else None)
        )
    stream = b"".join(made)
    return (_spoil(random, stream) if random.random() < 0.2 else stream), v5


MAKE = SimpleNamespace(payloads=[_json, _map], stream=_stream)


def _scan(stream: bytes, v5: bool, pieces: list[int]) -> Any:
    """The messages in front of what is no PUBLISH, read piece by piece, as the session does."""
    room = np.frombuffer(stream + b"\0", np.uint8).copy()
    rows, status = np.empty((frames.BATCH, frames.WORDS), np.int64), np.zeros(3, np.int64)
    start, why = 0, frames.MORE
    for end in [*pieces, len(stream)]:
        if why == frames.MORE:
            # What has not come yet is not there: it is a copy up to `end`.
            part = np.zeros(end + 1, np.uint8)
            part[:end] = room[:end]
            frames.scan(part, start, end, v5, 1 << 21, rows, status)
            used, found, why = status.tolist()
            start += used
            yield Arrived(part, rows[:found].copy())


def check(manifest: Any, case: int) -> None:
    """Raises AssertionError where the two ways differ."""
    choose = random.Random(case)
    stream, v5 = _stream(choose)
    compare(manifest, stream, v5, sorted(choose.randrange(len(stream) + 1) for _ in range(choose.randrange(4))))


def compare(manifest: Any, stream: bytes, v5: bool, pieces: list[int]) -> None:
    whole, single = Rig(manifest), Rig(manifest)
    for rig in (whole, single):  # a topic that is not known goes no quick way
        rig.take(*((topic, b"{}", 0) for topic in TOPICS))
    for arrived in _scan(stream, v5, pieces):
        whole.ingest.take(arrived, whole.deliveries, 1, 0)
        for i in range(len(arrived.rows)):
            single.ingest.take(Arrived(arrived.bytes, arrived.rows[i : i + 1]), single.deliveries, 1, 0)
    for name in whole.plan.sources:
        ours, theirs = (
            [(label, {key: struct.pack("d", value) for key, value in row.items()}) for label, row in rig.rows(name)]
            for rig in (whole, single)
        )
        assert ours == theirs, name
        ts = [rig.plan.sources[name].table.ts[: len(ours)].tolist() for rig in (whole, single)]
        assert ts[0] == ts[1], name
    assert +whole.metrics.counters == +single.metrics.counters
    assert sorted(whole.failed) == sorted(single.failed)  # a run is decoded for one source after the other
    assert whole.sequences.checkpoint() == single.sequences.checkpoint()


def _work(at: mmap.mmap, seconds: float, first: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        manifest = compiled(Path(folder), "both", SOURCE)
        deadline, case = time.monotonic() + seconds, first
        while time.monotonic() < deadline:
            at[:8] = struct.pack("q", case)
            check(manifest, case)
            case += 1
        at[:8] = struct.pack("q", case)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=None, help="the first case; otherwise by the clock")
    parser.add_argument("--case", type=int, default=None, help="only this case")
    parser.add_argument("--guided", action="store_true", help="by coverage, with atheris (tests/guided.py)")
    parser.add_argument("--corpus", type=Path, default=None, help="where --guided keeps inputs; otherwise nowhere")
    arguments = parser.parse_args()
    if arguments.guided:
        with tempfile.TemporaryDirectory() as folder:
            corpus = arguments.corpus or Path(folder) / "corpus"
            status = guided.guide(corpus, int(arguments.seconds), MAKE)
            if status != 2:
                manifest = compiled(Path(folder), "both", SOURCE)
                n = guided.replay(corpus, lambda *what: compare(manifest, *what))
                sys.stdout.write(f"{n} inputs through the compiled kernels as well\n")
            return status
    if arguments.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            check(compiled(Path(folder), "both", SOURCE), arguments.case)
        return 0
    first = time.time_ns() // 1000 if arguments.seed is None else arguments.seed
    at = mmap.mmap(-1, 8)
    at[:8] = struct.pack("q", first)
    child = os.fork()
    if not child:
        _work(at, arguments.seconds, first)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    case = struct.unpack("q", at[:8])[0]
    sys.stdout.write(f"{case - first} cases\n")
    if status:
        how = signal.Signals(-status).name if status < 0 else "a difference"
        sys.stdout.write(f"case {case}: {how}; again with python -m tests.fuzz --case {case}\n")
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())
