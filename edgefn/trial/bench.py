"""The bench that tests of handler files stand on: events, time and files go in, and what came out is kept."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgefn.metrics import Metrics
from edgefn.topics import check_topic
from edgefn.trial import loading
from edgefn.trial.calls import Here
from edgefn.trial.clock import ManualClock
from edgefn.trial.rows import Failed, Forwarded, Published, Row, Told
from edgefn.trial.trial import Trial
from edgefn.triggers import Occasion


class Bench:
    """Runs handler files over events of your making, as on the device, without broker, hardware or waiting.

    bench = Bench("handlers/rooms.py")
    bench.publish("sensors/attic/climate", {"temperature": 21.5})
    bench.advance("2m")
    assert bench.rows("minute")[0].values["mean"] == 21.5

    Compiled handlers run as machine code, Python handlers in this process: what one raises comes out of the verb that started
    it. The rows of compiled handlers start the Python handlers that listen to them, and what handlers publish is heard by
    the others. Raises HandlerError where a file cannot be used.
    """

    def __init__(
        self,
        *files: str | Path,
        cache: Path | None = None,
        clock: ManualClock | None = None,
        secrets: Mapping[str, str] | None = None,
        gateway: str = "gw",
    ) -> None:
        """`cache`: the folder for machine code. `secrets`: what `ctx.secret` gives, by its name."""
        manifests = loading.load(loading.files_of(map(Path, files)), cache)
        self.clock = clock or ManualClock()
        self.published: list[Published] = []  # by Python handlers, with ctx.publish or to="topic"
        self.forwarded: list[Forwarded] = []  # by Python handlers, with ctx.forward or to="uplink"
        self._rows: list[Row] = []
        caller = Here(self.clock, self._folder_of(secrets or {}), gateway)
        self._trial = Trial(manifests, caller, self.clock, self._keep, gateway=gateway)

    def _folder_of(self, secrets: Mapping[str, str]) -> Path:
        if not secrets:
            return Path("Bench(secrets=…)")
        folder = tempfile.mkdtemp(prefix="edgefn-secrets-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        for name, value in secrets.items():
            (Path(folder) / name).write_text(value)
        return Path(folder)

    @property
    def metrics(self) -> Metrics:
        """What the engine would have counted."""
        return self._trial.metrics

    # What happens

    def publish(self, topic: str, payload: Any = b"", *, retained: bool = False) -> None:
        """One event: fields, a bare number, or the text or bytes that a device would send.

        `retained`: it was published before the handler was there, and the broker had kept it.
        """
        self._trial.publish(check_topic(topic), _payload(payload), retained=retained)

    def advance(self, duration: str | float) -> None:
        """Lets time pass: windows close whose sources have fallen silent, `@every` and `@cron` start their handlers."""
        from edgefn import durations

        self._trial.go_on_to(self.clock.monotonic() + durations.parse(duration))

    def drop(self, file: str | Path) -> None:
        """A file has appeared: starts the `@watch` handlers whose pattern its name matches, whatever folder it is in."""
        path = Path(file).resolve()
        if not self._trial.on_file(path):
            raise AssertionError(f"no handler watches for a file of the name {path.name}")

    def occur(self, occasion: Occasion) -> None:
        """Something happens to the machine, such as "start" or "disk-low"."""
        if not self._trial.occur(occasion):
            raise AssertionError(f"no handler waits for {occasion}")

    def invoke(self, handler: str, data: Any = None) -> None:
        """Starts a Python handler, as another one does with ctx.invoke."""
        self._trial.start(handler, "invoke/test", msgspec.json.encode(data))

    # What came of it

    def rows(self, handler: str) -> list[Row]:
        """What the handler has put out so far, or returned."""
        return [row for row in self._rows if row.handler == handler]

    def returned(self, handler: str) -> list[Any]:
        """The values that a Python handler has returned so far, as JSON would carry them."""
        return [row.values for row in self.rows(handler)]

    def state(self, handler: str) -> dict[str, Any]:
        """What a Python handler keeps in ctx.state now."""
        stored = self._trial.functions[handler].state
        return {name: msgspec.json.decode(raw) for name, raw in stored.items()}

    def _keep(self, told: Told) -> None:
        if isinstance(told, Row):
            self._rows.append(told)
        elif isinstance(told, Published):
            self.published.append(told)
        elif isinstance(told, Forwarded):
            self.forwarded.append(told)
        elif isinstance(told, Failed):
            raise AssertionError(f"{told.handler}: {told.error}")


def _payload(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, Mapping):
        from edgefn.events import encode

        return encode(value)
    return msgspec.json.encode(value)
