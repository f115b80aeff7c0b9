"""Coverage-guided fuzzing of scanner and decoder as one: `python -m tests.fuzz --guided --seconds 600`.

Without numba's compiler the kernels are plain Python. atheris, which is libFuzzer for Python, changes inputs so that they reach
new lines and comparisons of them, and keeps those that do. Each input is held against the plain parser and the library, and an
index out of bounds, which machine code would not notice, is an IndexError here. What was kept then goes through the compiled
kernels in the same way, and through a whole plan.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MAX_INPUT = (
    256  # bytes: plain Python takes a few microseconds for each, and the kernels' limits have tests of their own
)
NUMBER = re.compile(rb"\d+")
MISSING = "needs atheris, which is not among the locked packages: .venv/bin/pip install atheris\n"


def stream_of(data: bytes) -> tuple[bytes, bool, list[int]]:
    """An input as a stream of frames, whether it is MQTT 5, and where it is cut."""
    head, stream = data[:2].ljust(2, b"\0"), data[2:]
    return stream, bool(head[0] & 2), [min(head[1], len(stream))] if head[1] else []


def load() -> SimpleNamespace:
    """What is looked at: imported here, where atheris can see the import."""
    from edgefn.engine import frames, mark_kernels
    from edgefn.engine.decode import fields_of
    from tests.engine import test_frames, test_payload_kernels

    return SimpleNamespace(
        scan=test_frames.scan, reference=test_frames.reference, quick=test_payload_kernels.quick,
        general=test_payload_kernels.general, frames=frames, marks=mark_kernels, fields_of=fields_of,
    )  # fmt: skip


def examine(parts: SimpleNamespace, data: bytes) -> None:
    """Raises where kernels and references differ. The first bit says whether the input is a payload, or a stream of frames.

    With the fifth bit nothing stands behind the input: to look there is out of bounds.
    """
    head = data[0] if data else 0
    is_last = bool(head & 16)
    if head & 1:
        _examine_payload(parts, data[2:], ("auto", "s", "ns", "arrival")[head >> 1 & 3], is_last)
        return
    stream, v5, _ = stream_of(data)
    scanned = parts.scan(stream, v5, guard=0 if is_last else 64)
    assert scanned == parts.reference(stream, v5), scanned
    for message in scanned[1]:
        _examine_payload(parts, message.payload, "auto", is_last)


def _examine_payload(parts: SimpleNamespace, payload: bytes, unit: str, is_last: bool) -> None:
    behind = b"" if is_last else b'9,"}]'
    quick = parts.quick(payload, unit, behind=behind)
    assert quick is None or quick == parts.general(payload, unit), quick
    has, at, length, seq, floor = _marks(parts, payload, behind)
    if has != parts.marks.UNCERTAIN:
        fields = parts.fields_of(payload)  # it is a whole and valid object, or this raises
        src = payload[at : at + length].decode() if has & 1 else None
        assert src == fields.get("src"), src
        assert (seq if has & 2 else None) == fields.get("seq"), seq
        assert (floor if has & 4 else None) == fields.get("seq_floor"), floor


def _marks(parts: SimpleNamespace, payload: bytes, behind: bytes) -> list[int]:
    import numpy as np

    data = np.frombuffer(payload + behind or b"\0", np.uint8).copy()
    rows, out = np.zeros((1, parts.frames.WORDS), np.int64), np.zeros((1, parts.marks.WORDS), np.int64)
    rows[0, parts.frames.PAYLOAD_LENGTH] = len(payload)
    parts.marks.read_marks(data, rows, np.zeros(1, np.int64), out)
    found: list[int] = out[0].tolist()
    return found


def seeds(make: SimpleNamespace) -> list[bytes]:
    """Where it begins: the hostile inputs that have a name, and what the other fuzzer makes of payloads and streams."""
    from tests.engine.hostile import FRAMES, PAYLOADS

    found = [b"\x02\0" + frame for frame in FRAMES.values()] + [b"\x01\0" + payload for payload, _ in PAYLOADS.values()]
    for case in range(200):
        choose = random.Random(case)
        found += [bytes([choose.choice([0x01, 0x11]), 0]) + payload(choose) for payload in make.payloads]
        stream, v5 = make.stream(choose)
        found.append(bytes([2 * v5, 0]) + stream[: MAX_INPUT - 2])
    return [one for one in found if len(one) <= MAX_INPUT]


def mutate(data: bytes, choose: random.Random) -> bytes:
    """Another number in the place of one: bytes that change one by one seldom come to a limit of several digits."""
    found = list(NUMBER.finditer(data))
    if not found:
        return data
    at = choose.choice(found)
    number = choose.choice([choose.randrange(400), 10 ** choose.randrange(25), 2 ** choose.randrange(70) - 1])
    text = b"%d" % number
    if choose.random() < 0.5:
        text = b"%d" % choose.randrange(10 ** choose.randrange(1, 20))
        dot = choose.randrange(1, 2 * len(text))
        text = text[:dot] + b"." + text[dot:] if dot < len(text) else text
    return (data[: at.start()] + text + data[at.end() :])[:MAX_INPUT]


def guide(folder: Path, seconds: int, make: SimpleNamespace) -> int:
    """Explores in a process without the compiler; leaves what it has kept in the folder. Returns 0 where nothing was found."""
    if find_spec("atheris") is None:
        sys.stderr.write(MISSING)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(make)):
        (folder / f"seed-{number}").write_bytes(seed)
    command = [sys.executable, "-W", "ignore::RuntimeWarning", "-m", "tests.guided", str(folder)]
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT}",
        f"-artifact_prefix={folder}/found-",
        "-timeout=60",
    ]
    told = subprocess.Popen(
        [*command, *options], env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, stderr=subprocess.PIPE, text=True,
        errors="replace",
    )  # fmt: skip
    assert told.stderr is not None
    last = ""
    for line in told.stderr:
        if re.match(r"#\d+\s", line):
            last = line
        elif not line.startswith(("INFO", "\n")):
            sys.stderr.write(line)
    status = told.wait()
    sys.stdout.write(f"guided: {' '.join(last.split())}\n")
    return 1 if status else 0


def replay(folder: Path, compare: Callable[[bytes, bool, list[int]], Any]) -> int:
    """All that was kept, through the compiled kernels and through a whole plan; returns how many."""
    parts, files = load(), sorted(folder.iterdir())
    for file in files:
        data = file.read_bytes()
        try:
            examine(parts, data)
            compare(*stream_of(data))
        except BaseException:
            sys.stderr.write(f"{file}:\n")
            raise
    return len(files)


def main() -> None:
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["edgefn.engine", "edgefn.events", "edgefn.timestamps"]):
        parts = load()

    def change(data: bytes, most: int, seed: int) -> bytes:
        made: bytes = mutate(data, random.Random(seed)) if seed & 1 else atheris.Mutate(data, most)
        return made

    atheris.Setup(sys.argv, lambda data: examine(parts, data), custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
