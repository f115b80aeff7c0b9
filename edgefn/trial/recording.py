"""Recordings: messages of a broker as lines of a file, which people can read, write and cut, and programs can replay.

NDJSON, a message a line: {"ts": "2026-11-25T06:00:00.250Z", "topic": "sensors/attic/climate", "payload": {"temperature": 21.5}}

`ts` is ISO 8601 or a number of s, ms, µs or ns; `payload` any JSON, a text standing for its characters; or `payload_b64`, bytes;
`qos` and `retain` where they are not 0 and false. CSV, with a header: ts, topic where it is not one for all, and fields.
"""

from __future__ import annotations

import base64
import binascii
import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from edgefn.errors import EdgefnError, TopicError
from edgefn.timestamps import to_ns
from edgefn.topics import check_topic

MAX_LINE = 4 << 20  # bytes: a payload of 1 MB as base64, with room
_KNOWN = ("ts", "topic", "payload", "payload_b64", "qos", "retain")


class RecordingError(EdgefnError, ValueError):
    """A recording cannot be read at all. The message names the file."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message, and when it came."""

    ts: int  # ns since the epoch
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that holds no message."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class _WrongError(ValueError):
    """What is wrong with a line."""


class Recording:
    """An open recording: an iterator over its messages and its bad lines, which holds one line at a time.

    `line` is that of what was given last. Raises RecordingError where the file is none.
    """

    def __init__(self, path: Path, topic: str | None = None) -> None:
        """`topic`: of all messages, for a CSV file without that column."""
        self.path = path
        self.line = 0
        self._topic = topic
        self._is_csv = path.suffix == ".csv"
        if path.suffix not in (".csv", ".ndjson", ".jsonl"):
            raise RecordingError(f"{path}: a recording is called .ndjson or .csv")
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror}") from error
        self.size = os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Twice is harmless."""
        self._file.close()

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._file.tell()

    def __iter__(self) -> Iterator[Recorded | BadLine]:
        return self._csv() if self._is_csv else self._ndjson()

    def _bad(self, message: str) -> BadLine:
        return BadLine(str(self.path), self.line, message)

    def _lines(self) -> Iterator[bytes]:
        while line := self._file.readline(MAX_LINE + 1):
            self.line += 1
            whole = line
            while len(line) > MAX_LINE and not line.endswith(b"\n"):
                line = self._file.readline(MAX_LINE + 1)
            yield whole

    def _ndjson(self) -> Iterator[Recorded | BadLine]:
        for line in self._lines():
            if not line.strip():
                continue
            try:
                yield _message(line.removeprefix(b"\xef\xbb\xbf") if self.line == 1 else line, self._topic)
            except _WrongError as error:
                yield self._bad(str(error))

    def _csv(self) -> Iterator[Recorded | BadLine]:
        # A byte that is no UTF-8 must cost its line only, so it is let through here and found there.
        texts = (
            line.decode("utf-8-sig" if self.line == 1 else "utf-8", errors="surrogateescape") for line in self._lines()
        )
        reader = csv.reader(texts, strict=True)
        try:
            header = [name.strip() for name in next(reader)]
        except (StopIteration, csv.Error) as error:
            raise RecordingError(f"{self.path}: no header; it names the columns: ts,topic,temperature") from error
        self._check_header(header)
        while True:
            try:
                cells = next(reader)
                if cells:
                    yield _row(header, cells, self._topic)
            except StopIteration:
                return
            except (_WrongError, csv.Error) as error:
                yield self._bad(str(error))

    def _check_header(self, header: list[str]) -> None:
        if "ts" not in header:
            raise RecordingError(f"{self.path}:1: no column is called ts; there are {', '.join(header)}")
        if "topic" not in header and self._topic is None:
            raise RecordingError(f"{self.path}:1: no column is called topic; name the topic of all rows with --topic")
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice or "" in header:
            raise RecordingError(
                f"{self.path}:1: each column needs a name of its own; look at {', '.join(twice) or header}"
            )


def _message(line: bytes, topic: str | None) -> Recorded:
    if len(line) > MAX_LINE:
        raise _WrongError(f"longer than {MAX_LINE} bytes")
    try:
        # Raw: the payload goes on byte for byte, whatever a JSON library makes of its numbers.
        fields: dict[str, msgspec.Raw] = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _WrongError(f"no JSON object: {error}") from error
    qos, retain = _value(fields, "qos", 0), _value(fields, "retain", False)
    if qos not in (0, 1, 2) or not isinstance(retain, bool):
        raise _WrongError("qos is 0, 1 or 2, and retain true or false")
    return Recorded(
        _time(_value(fields, "ts", None)), _topic(_value(fields, "topic", topic)), _payload(fields), int(qos), retain
    )


def _value(fields: dict[str, msgspec.Raw], name: str, default: Any) -> Any:
    try:
        return msgspec.json.decode(fields[name]) if name in fields else default
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _WrongError(f"{name}: {error}") from error


def _time(value: object) -> int:
    if value is None:
        raise _WrongError("no ts")
    ns = to_ns(value)
    if ns is None:
        raise _WrongError(f"ts {value!r} is no time; write ISO 8601, or s, ms, µs or ns since the epoch")
    return ns


def _topic(value: object) -> str:
    if not isinstance(value, str):
        raise _WrongError("no topic" if value is None else f"topic {value!r} is no text")
    try:
        return check_topic(value)
    except (TopicError, UnicodeEncodeError) as error:
        raise _WrongError(str(error)) from error


def _payload(fields: dict[str, msgspec.Raw]) -> bytes:
    if ("payload" in fields) == ("payload_b64" in fields):
        missing = "payload" not in fields
        unknown = ", ".join(sorted(fields.keys() - set(_KNOWN)))
        raise _WrongError(
            ("no payload" + (f"; what is {unknown}?" if unknown else "")) if missing else "both payload and payload_b64"
        )
    if "payload" in fields:
        raw = bytes(fields["payload"])
        return str(_value(fields, "payload", "")).encode(errors="surrogatepass") if raw.startswith(b'"') else raw
    try:
        return base64.b64decode(_value(fields, "payload_b64", ""), validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise _WrongError(f"payload_b64: {error}") from error


def _row(header: list[str], cells: list[str], topic: str | None) -> Recorded:
    if len(cells) != len(header):
        raise _WrongError(f"{len(cells)} cells under {len(header)} columns")
    try:
        "".join(cells).encode()
    except UnicodeEncodeError as error:
        raise _WrongError("not UTF-8") from error
    values = {name: text.strip() for name, text in zip(header, cells, strict=True)}
    ts, named = values.pop("ts"), values.pop("topic", "") or topic
    fields = {name: _cell(text) for name, text in values.items() if text}
    return Recorded(_time(_cell(ts) if ts else None), _topic(named), msgspec.json.encode(fields))


def _cell(text: str) -> Any:
    """A number or a truth value where it reads like one."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        # `1_000` and `nan` are numbers for Python, and for nobody's spreadsheet.
        return value if "_" not in text and value - value == 0 else text
    return text


def line_of(message: Recorded) -> bytes:
    """A message as a line that is read back byte for byte."""
    ns = message.ts % 1_000_000_000
    second = datetime.fromtimestamp(message.ts // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fields: dict[str, Any] = {"ts": f"{second}.{ns // 1000:06d}Z", "topic": message.topic, **_written(message.payload)}
    if message.qos:
        fields["qos"] = message.qos
    if message.retain:
        fields["retain"] = True
    return msgspec.json.encode(fields) + b"\n"


def _written(payload: bytes) -> dict[str, Any]:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return {"payload_b64": base64.b64encode(payload).decode()}
    try:
        value = msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return {"payload": text}
    # A text is written as one in any case; and a line has no second line.
    plain = not isinstance(value, str) and b"\n" not in payload and b"\r" not in payload
    return {"payload": msgspec.Raw(payload)} if plain else {"payload": text}
