"""What a Python handler may do besides returning a value: publish, forward, invoke, remember, log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import msgspec

from edgefn.credentials import read_secret
from edgefn.errors import EdgefnError
from edgefn.functions.event import Event
from edgefn.functions.protocol import Forward, Invoke
from edgefn.timestamps import NS_MAX
from edgefn.topics import check_topic
from edgefn.triggers import FUNCTION

MAX_EFFECTS = 1000  # of each kind, that one invocation may have
MAX_PAYLOAD = 1 << 20
MAX_STATE = 64 << 10  # bytes that one handler may keep


class EffectError(EdgefnError, ValueError):
    """A handler asked for something that cannot be done. The message says what and why."""


class UnfitError(EffectError, TypeError):
    """A value that JSON has no word for. Trying again does not help."""


class _Done:
    """What has happened already: handlers may wait for it, since that is how it reads in async code."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


DONE = _Done()


def to_json(value: Any, what: str) -> bytes:
    """Raises UnfitError with `what` it was."""
    try:
        if hasattr(value, "_asdict"):
            value = value._asdict()
        return msgspec.json.encode(value, enc_hook=_plain)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UnfitError(f"{what} cannot be written as JSON: {error}; use numbers, text, lists and dicts") from error


def _plain(value: Any) -> Any:
    """A `Key` as the text that it is; numpy's numbers and arrays, without importing numpy here."""
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no plain value")


def to_payload(value: Any, what: str) -> bytes:
    """Bytes and text as they are, everything else as JSON."""
    data = value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else to_json(value, what)
    if len(data) > MAX_PAYLOAD:
        raise EffectError(f"{what} has {len(data)} bytes; {MAX_PAYLOAD} are allowed")
    return data


class State(MutableMapping[str, Any]):
    """What a handler keeps from one invocation to the next: names and JSON values. Kept when the invocation is done.

    A value that is read is a copy: `state["seen"] = seen` stores a change.
    """

    def __init__(self, stored: Mapping[str, bytes]) -> None:
        self._stored = stored
        self.changes: dict[str, bytes | None] = {}

    def __getitem__(self, name: str) -> Any:
        raw = self.changes[name] if name in self.changes else self._stored.get(name)
        if raw is None:
            raise KeyError(name)
        return msgspec.json.decode(raw)

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise EffectError(f"state[{name!r}]: a name is a text")
        raw = to_json(value, f"state[{name!r}]")
        size = sum(len(one) + len(self._raw(one)) for one in self if one != name) + len(name) + len(raw)
        if size > MAX_STATE:
            raise EffectError(f"state[{name!r}]: the state would have {size} bytes; {MAX_STATE} are allowed")
        self.changes[str(name)] = raw

    def _raw(self, name: str) -> bytes:
        raw = self.changes[name] if name in self.changes else self._stored[name]
        assert raw is not None
        return raw

    def __delitem__(self, name: str) -> None:
        self[name]
        self.changes[str(name)] = None

    def __iter__(self) -> Iterator[str]:
        yield from (name for name in self._stored if name not in self.changes)
        yield from (name for name, raw in self.changes.items() if raw is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


Publish = Callable[[str, bytes, int, bool], None]


class Context:
    """The second argument of a handler. Everything here acts at once; in async handlers it may be awaited as well.

    What is published goes out at once. What is forwarded, invoked and kept counts when the handler returns: an attempt
    that fails has none of these effects.
    """

    def __init__(
        self,
        event: Event,
        state: State,
        publish: Publish,
        *,
        name: str,
        gateway: str,
        deadline: int,
        secrets: Path,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.state = state
        self.gateway = gateway
        self.log = logging.getLogger(f"edgefn.handler.{name}")
        self.forwards: list[Forward] = []
        self.invokes: list[Invoke] = []
        self.event = event
        self._publish = publish
        self._published = 0
        self._deadline = deadline
        self._secrets = secrets
        self._monotonic = monotonic

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, at which the attempt is ended."""
        return max(0.0, (self._deadline - self._monotonic()) / 1e9)

    def publish(self, topic: str, payload: Any = b"", *, qos: int = 0, retain: bool = False) -> _Done:
        """Publishes on the local broker: bytes and text as they are, everything else as JSON.

        When the invocation is tried again, what it has published already is not published a second time.
        """
        check_topic(topic)
        if qos not in (0, 1):
            raise EffectError(f"publish to {topic}: qos={qos!r}; 0 or 1 is allowed")
        self._published = self._counted(self._published + 1, "publications")
        self._publish(str(topic), to_payload(payload, f"what is published to {topic}"), qos, bool(retain))
        return DONE

    def forward(self, values: Any, *, key: str | None = None, ts: int | None = None) -> _Done:
        """Sends values to the cloud, by way of the outbox: at least once, in order, with a key that never repeats."""
        self._counted(len(self.forwards) + 1, "forwarded rows")
        if key is not None and not isinstance(key, str):
            raise EffectError(f"forward(key={key!r}): a text is expected, such as {str(key)!r}")
        if ts is not None and (type(ts) is not int or not 0 <= ts <= NS_MAX):
            raise EffectError(f"forward(ts={ts!r}): whole ns since the epoch are expected, such as time.time_ns()")
        data = to_json(values, "what is forwarded")
        if len(data) > MAX_PAYLOAD // 2:
            raise EffectError(f"what is forwarded has {len(data)} bytes; {MAX_PAYLOAD // 2} are allowed")
        self.forwards.append(Forward(data, None if key is None else str(key), ts))  # a `Key` is no message
        return DONE

    def invoke(self, handler: Any, data: Any = None) -> _Done:
        """Invokes another Python handler, a function of this file or one by its name, with `data` as its event's data."""
        spec = getattr(handler, FUNCTION, None)
        name = handler if isinstance(handler, str) else getattr(spec, "name", None)
        if not name:
            raise EffectError(f"invoke({handler!r}): name a Python handler, or give its function")
        self._counted(len(self.invokes) + 1, "invocations")
        payload = to_json(data, f"the data for {name}")
        if len(payload) > MAX_PAYLOAD:
            raise EffectError(f"the data for {name} has {len(payload)} bytes; {MAX_PAYLOAD} are allowed")
        self.invokes.append(Invoke(str(name), payload))
        return DONE

    def secret(self, name: str) -> str:
        """A password or token by its name: a systemd credential, or a file in the folder of secrets."""
        if "/" in name or name in ("", ".", ".."):
            raise EffectError(f"secret({name!r}): a name without / is expected")
        try:
            return read_secret(self._secrets / name)
        except FileNotFoundError as error:
            raise EffectError(
                f"secret({name!r}): there is no file {self._secrets / name}, nor such a credential"
            ) from error
        except (OSError, ValueError) as error:
            raise EffectError(f"secret({name!r}): {self._secrets / name}: {error}") from error

    def _counted(self, n: int, what: str) -> int:
        if n > MAX_EFFECTS:
            raise EffectError(f"more than {MAX_EFFECTS} {what} in one invocation")
        return n
