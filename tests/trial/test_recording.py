"""Recordings are read line by line, and what is wrong with a line is said and costs that line."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from edgefn.trial.recording import BadLine, Recorded, Recording, RecordingError, line_of

TS = 1_795_586_400_123_456_000


def read(path: Path, topic: str | None = None) -> list[Recorded | BadLine]:
    with Recording(path, topic) as recording:
        return list(recording)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"temperature":21.5}',
        b'{"a": 1.0, "b": 1e3, "big": 123456789012345678901234567890}',
        b"21.50",
        b"on",
        b'"on"',
        b"",
        b"null",
        b'{\n  "pretty": true\n}',
        "Küche".encode(),
        b"\x81\xa5value\x01",
        b"\xff\xfe",
        b" 1 ",
        b"NaN",
    ],
)
def test_what_is_written_is_read_back_byte_for_byte(tmp_path: Path, payload: bytes):
    file = tmp_path / "a.ndjson"
    messages = [Recorded(TS, "a/b", payload), Recorded(TS + 1_000_000, "a/b", payload, 1, True)]
    file.write_bytes(b"".join(map(line_of, messages)))
    assert file.read_bytes().count(b"\n") == 2
    got = read(file)
    assert got[0] == Recorded(TS, "a/b", payload if payload != b" 1 " else b"1")  # space around a number says nothing
    assert isinstance(got[1], Recorded)
    assert (got[1].qos, got[1].retain) == (1, True)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "no JSON object"),
        ("[1]", "no JSON object"),
        ('{"topic": "a", "payload": 1}', "no ts"),
        ('{"ts": "yesterday", "topic": "a", "payload": 1}', "ts 'yesterday' is no time"),
        ('{"ts": 12, "topic": "a", "payload": 1}', "ts 12 is no time"),
        ('{"ts": 1790000000, "payload": 1}', "no topic"),
        ('{"ts": 1790000000, "topic": "a/#", "payload": 1}', "contains a wildcard"),
        ('{"ts": 1790000000, "topic": "a", "paylod": 1}', "no payload; what is paylod?"),
        ('{"ts": 1790000000, "topic": "a", "payload": 1, "payload_b64": "AA=="}', "both payload and payload_b64"),
        ('{"ts": 1790000000, "topic": "a", "payload_b64": "?"}', "payload_b64"),
        ('{"ts": 1790000000, "topic": "a", "payload_b64": 7}', "payload_b64"),
        ('{"ts": 1790000000, "topic": "a", "payload": 1, "qos": 7}', "qos is 0, 1 or 2"),
        ('{"ts": 1790000000, "topic": "a", "payload": ' + "[" * 5000, "no JSON object"),
    ],
)
def test_a_bad_line_is_named_and_the_others_go_on(tmp_path: Path, line: str, told: str):
    file = tmp_path / "a.ndjson"
    good = '{"ts": 1790000000.5, "topic": "a", "payload": 1}'
    file.write_text(f"{good}\n\n{line}\n{good}\n")
    first, bad, last = read(file)
    assert first == last == Recorded(1_790_000_000_500_000_000, "a", b"1")
    assert isinstance(bad, BadLine)
    assert str(bad).startswith(f"{file}:3: ")
    assert told in str(bad)


def test_bytes_that_are_no_text_and_a_line_without_end_cost_their_line(tmp_path: Path):
    file = tmp_path / "a.ndjson"
    good = b'{"ts": 1790000000, "topic": "a", "payload": 1}\n'
    file.write_bytes(b'{"ts": "\xff"}\n' + b"x" * (9 << 20) + b"\n" + good)
    first, long, last = read(file)
    assert isinstance(first, BadLine)
    assert "longer than" in str(long)
    assert isinstance(last, Recorded)


def test_a_table_s_cells_become_fields(tmp_path: Path):
    file = tmp_path / "a.csv"
    file.write_text(
        "\ufeffts,topic,temperature,open,name\n"
        '2026-11-25T06:00:00Z,a/1,21.5,true,"x, y"\n'
        "1795586401,a/2,,FALSE,1_0\n"
        "1795586402,a/3\n"
        "soon,a/3,1,true,\n"
        ",a/3,1,true,\n"
        "1795586403,,1,true,nan\n"
    )
    got = read(file)
    assert got[:2] == [
        Recorded(1_795_586_400_000_000_000, "a/1", b'{"temperature":21.5,"open":true,"name":"x, y"}'),
        Recorded(1_795_586_401_000_000_000, "a/2", b'{"open":false,"name":"1_0"}'),
    ]
    assert [str(one).partition(f"{file}:")[2] for one in got[2:]] == [
        "4: 2 cells under 5 columns",
        "5: ts 'soon' is no time; write ISO 8601, or s, ms, µs or ns since the epoch",
        "6: no ts",
        "7: no topic",
    ]


def test_a_table_may_have_one_topic_for_all(tmp_path: Path):
    file = tmp_path / "a.csv"
    file.write_bytes(b"ts,value\n1795586400,7\n1795586401,\xff\n")
    got = read(file, "meter")
    assert got[0] == Recorded(1_795_586_400_000_000_000, "meter", b'{"value":7}')
    assert str(got[1]).endswith(":3: not UTF-8")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "", "no header"),
        ("a.csv", "time,topic,x\n", "no column is called ts; there are time, topic, x"),
        ("a.csv", "ts,x\n", "--topic"),
        ("a.csv", "ts,topic,x,x\n", "each column needs a name of its own; look at x"),
        ("a.txt", "", "a recording is called .ndjson or .csv"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, name: str, text: str, told: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(RecordingError, match=r"a\.(csv|txt)") as caught:
        read(tmp_path / name)
    assert told in str(caught.value)
    with pytest.raises(RecordingError, match="No such file"):
        read(tmp_path / "none.csv")


def test_a_long_recording_takes_no_memory(tmp_path: Path):
    file = tmp_path / "a.ndjson"
    line = line_of(Recorded(TS, "a", b'{"value":1}'))
    file.write_bytes(line * 50_000)
    tracemalloc.start()
    try:
        with Recording(file) as recording:
            assert sum(1 for _ in recording) == 50_000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
