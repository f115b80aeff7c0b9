"""The errors that edgefn raises: each names what it is about and what to do, and keeps the natural builtin as a base."""

from __future__ import annotations

from dataclasses import dataclass


class EdgefnError(Exception):
    """The base of all that edgefn raises on purpose."""


class ConfigError(EdgefnError, ValueError):
    """A setting is wrong. The message names the file, the key, the value and what is allowed."""


class TopicError(EdgefnError, ValueError):
    """A topic or a topic pattern is not a valid one."""


class PayloadError(EdgefnError, ValueError):
    """A payload cannot be decoded. `reason` is the short name it is counted under."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class StoreError(EdgefnError, OSError):
    """The store cannot be opened, read or written. The message names the file."""


class StoreDiskError(StoreError):
    """The disk is full, read-only or reports an error. The same call may succeed later."""


class StoreDamagedError(StoreError):
    """The file of the store is broken. Only a restart helps, which sets it aside and takes over what can be read."""


class StoreInUseError(StoreError):
    """Another process has the store open; `holder` says which."""

    def __init__(self, message: str, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


class LinkClosedError(EdgefnError, ConnectionError):
    """The other end of a link between two processes has gone."""


class NotConnectedError(EdgefnError, ConnectionError):
    """A broker or a cloud cannot be reached now. Trying again later is right.

    `retry_after` is how many seconds the far side asked us to wait; None: it said nothing.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AccessError(NotConnectedError):
    """A broker or a cloud answers but does not let us in. Trying again helps only once somebody mends the settings."""


class DriverError(EdgefnError, RuntimeError):
    """A driver cannot be loaded or has wrong parameters. The message names the driver."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong in a file that a person wrote: where it is, what is wrong, and what to write instead."""

    file: str
    line: int  # 0 where no line can be named
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.message}" + (f"\n    {self.hint}" if self.hint else "")


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong around the settings (a file, a certificate, a folder), and what to do about it."""

    message: str
    fatal: bool = True  # False: it works for now

    def __str__(self) -> str:
        return self.message


class HandlerError(EdgefnError, ValueError):
    """A handler file cannot be used. `findings` says everything that is wrong with it."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__("\n".join(str(finding) for finding in findings))
        self.findings = findings
