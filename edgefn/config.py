"""From edgefn.toml to typed settings, with every finding at once: wrong values are fatal, unknown keys are only told."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import socket
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from edgefn import durations, policies
from edgefn.address import BrokerAddress, TlsFiles
from edgefn.credentials import read_secret
from edgefn.errors import ConfigError

VERSION = 1
FILE = "edgefn.toml"
STORE = "edgefn.db"  # in the folder of the state


class Duration(int):
    """Nanoseconds, written as "10s" or "1m30s"."""


class Size(int):
    """Bytes, written as "64MB" or "1GB" (powers of 1024)."""


class OnFull(tuple[str, ...]):
    """What is tried when there is no room: a word, or several in their order."""


class GatewaySettings(msgspec.Struct, frozen=True):
    id: str = ""  # empty: made from /etc/machine-id
    state: str = ""  # empty: $STATE_DIRECTORY under systemd, else ~/.local/state/edgefn
    handlers: str = ""  # empty: handlers/ beside the file; without a file, the ones that ship
    drivers: str = ""  # empty: hw/ beside the file; the drivers that ship are always there


class TlsSettings(msgspec.Struct, frozen=True):
    ca: str = ""
    cert: str = ""
    key: str = ""


class BrokerSettings(msgspec.Struct, frozen=True):
    host: str = "127.0.0.1"
    port: int = 1883
    unix: str = ""
    username: str = ""
    password_file: str = ""
    tls: TlsSettings | None = None
    private: Literal["auto", "always", "never"] = "auto"


class EngineSettings(msgspec.Struct, frozen=True):
    commit_interval: Duration = Duration(durations.UNITS["s"])
    deadline: Duration = Duration(durations.UNITS["s"])
    memory: Size = Size(512 << 20)


class FunctionsSettings(msgspec.Struct, frozen=True):
    workers: int = 8
    secrets: str = "secrets"


class StoreSettings(msgspec.Struct, frozen=True):
    max_size: Size = Size(256 << 20)
    ballast: Size = Size(8 << 20)
    daily_writes: Size = Size(2 << 30)  # 0: no budget


class ClockSettings(msgspec.Struct, frozen=True):
    patience: Duration = Duration(60 * durations.UNITS["s"])


class MonitorSettings(msgspec.Struct, frozen=True):
    interval: Duration = Duration(10 * durations.UNITS["s"])


class DriverSettings(msgspec.Struct, frozen=True):
    name: str
    use: str = ""  # empty: the driver of this name
    qos: Literal[0, 1] | None = None
    options: dict[str, Any] = {}


class UplinkSettings(msgspec.Struct, frozen=True):
    name: str
    type: str = "mqtt"
    options: dict[str, Any] = {}


class StreamSettings(msgspec.Struct, frozen=True):
    """What holds for the streams that match, whatever their handlers say."""

    match: str
    priority: Literal["low", "normal", "high"] | None = None
    ttl: Duration | None = None
    quota: Size | None = None
    on_full: OnFull | None = None


class Config(msgspec.Struct, frozen=True):
    """All settings of one gateway. Paths are absolute by the time anybody sees them."""

    gateway: GatewaySettings = GatewaySettings()
    broker: BrokerSettings = BrokerSettings()
    engine: EngineSettings = EngineSettings()
    functions: FunctionsSettings = FunctionsSettings()
    store: StoreSettings = StoreSettings()
    clock: ClockSettings = ClockSettings()
    monitor: MonitorSettings = MonitorSettings()
    driver: tuple[DriverSettings, ...] = (DriverSettings("host"),)
    uplink: tuple[UplinkSettings, ...] = ()
    stream: tuple[StreamSettings, ...] = ()
    file: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where relative paths begin: that of the file, or where edgefn was started."""
        return Path(self.file).resolve().parent if self.file else Path.cwd()

    @property
    def store_path(self) -> Path:
        return Path(self.gateway.state) / STORE

    @property
    def secrets_path(self) -> Path:
        """Where `ctx.secret` looks, after the credentials of systemd."""
        return self.folder / self.functions.secrets

    def address(self) -> BrokerAddress:
        """Raises ConfigError where the password file cannot be read."""
        broker = self.broker
        tls = broker.tls
        return BrokerAddress(
            host=broker.host,
            port=broker.port,
            username=broker.username or None,
            password=_password(broker.password_file, self.file),
            tls=TlsFiles(*(self._beside(path) for path in (tls.ca, tls.cert, tls.key))) if tls else None,
            unix=broker.unix or None,
        )

    def _beside(self, path: str) -> str | None:
        return str(self.folder / path) if path else None


_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "gateway": GatewaySettings,
    "broker": BrokerSettings,
    "engine": EngineSettings,
    "functions": FunctionsSettings,
    "store": StoreSettings,
    "clock": ClockSettings,
    "monitor": MonitorSettings,
}
_LISTS: dict[str, type[msgspec.Struct]] = {
    "driver": DriverSettings,
    "uplink": UplinkSettings,
    "stream": StreamSettings,
}


def load(path: Path | None) -> Config:
    """Reads the file, or gives what holds without one. Raises ConfigError with all findings, a line each."""
    if path is None:
        return read({}, "")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file; `edgefn init DIR` makes one") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return read(data, str(path))


def read(data: Mapping[str, Any], file: str) -> Config:
    """Settings of parsed TOML; `file` is for messages and for relative paths."""
    reader = _Reader(file)
    version = data.get("version", VERSION)
    if type(version) is not int or version < 1:
        raise ConfigError(f"{file}: version = {version!r}: the number of a version is expected, such as {VERSION}")
    if version > VERSION:
        raise ConfigError(
            f"{file}: version = {version!r} is newer than this edgefn, which reads version {VERSION}; "
            "update edgefn, or write the file for this one"
        )
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key in _SECTIONS:
            values[key] = reader.section(key, _SECTIONS[key], value)
        elif key in _LISTS:
            values[key] = reader.entries(key, _LISTS[key], value)
        elif key != "version":
            reader.unknown("", key, [*_SECTIONS, *_LISTS, "version"])
    reader.finish()
    gateway = values.get("gateway", GatewaySettings())
    values["gateway"] = _resolve(gateway, Path(file).resolve().parent if file else None)
    return Config(**values, file=file, warnings=tuple(reader.warnings))


_MS, _MINUTE = durations.UNITS["ms"], durations.UNITS["m"]
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "gateway.id": (
        lambda name: re.fullmatch(r"[a-z0-9-]{0,64}", name) is not None,
        "only a-z, 0-9 and - are allowed, 64 of them at the most",
    ),
    "broker.port": (lambda port: 0 < port < 65536, "a port is between 1 and 65535"),
    "engine.commit_interval": (lambda ns: 10 * _MS <= ns <= 10 * _MINUTE, "between 10ms and 10m is allowed"),
    "engine.deadline": (lambda ns: ns >= 10 * _MS, "10ms or more is allowed"),
    "engine.memory": (lambda size: size >= 16 << 20, "16MB or more is allowed"),
    "functions.workers": (lambda n: 1 <= n <= 64, "1 to 64 are allowed"),
    "store.max_size": (lambda size: size >= 64 << 10, "64kB or more is allowed"),
    "store.ballast": (lambda size: size == 0 or size >= 256 << 10, "256kB or more is allowed, or 0 for none"),
    "clock.patience": (lambda ns: ns <= 60 * _MINUTE, "up to 1h is allowed"),
    "stream.quota": (
        lambda size: size >= policies.MIN_QUOTA,
        f"{policies.MIN_QUOTA} bytes or more are allowed: less would hold a few rows only",
    ),
    "monitor.interval": (lambda ns: 100 * _MS <= ns <= 60 * _MINUTE, "between 100ms and 1h is allowed"),
}


class _Reader:
    """Converts key by key, so that one wrong value does not hide the next."""

    def __init__(self, file: str) -> None:
        self.file = file or "the settings"
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def section(self, path: str, struct: type[msgspec.Struct], data: Any) -> Any:
        if not isinstance(data, dict):
            self.errors.append(f"{self.file}: {path} = {data!r}: a table is expected, written [{path}]")
            return None
        known = {field.name: field for field in msgspec.structs.fields(struct)}
        values: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        for key, value in data.items():
            where = f"{path}.{key}"
            if key == "tls" and struct is BrokerSettings:
                values[key] = self.section(where, TlsSettings, value)
            elif key in known and key != "options":
                values[key] = self._value(where, value, known[key].type)
            elif "options" in known and key != "options":
                rest[key] = value  # what a driver or a sink understands; they check it themselves
            elif key == "options":
                rest.update(value if isinstance(value, dict) else {})
            else:
                self.unknown(f"{path}.", key, list(known))
        if rest:
            values["options"] = rest
        missing = [field.name for field in known.values() if field.required and field.name not in values]
        for name in missing:
            self.errors.append(f"{self.file}: {path} has no {name}; give it one")
        return struct(**values) if not missing else None

    def entries(self, key: str, struct: type[msgspec.Struct], data: Any) -> tuple[Any, ...]:
        if not isinstance(data, list):
            self.errors.append(f"{self.file}: {key}: a list of tables is expected, each written [[{key}]]")
            return ()
        entries = [self.section(f"{key}[{number}]", struct, entry) for number, entry in enumerate(data)]
        own = "match" if struct is StreamSettings else "name"
        names = [name for entry in entries if (name := getattr(entry, own, None)) is not None]
        for name in sorted({name for name in names if names.count(name) > 1}):
            named = "are called" if own == "name" else "match"
            self.errors.append(f"{self.file}: two [[{key}]] {named} {name!r}; give each a {own} of its own")
        for name in names if own == "name" else ():
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
                self.errors.append(f"{self.file}: {key} name {name!r}: letters, digits, - and _ only; it is a topic")
        return tuple(entries)

    def _value(self, where: str, value: Any, kind: Any) -> Any:
        try:
            converted = msgspec.convert(value, kind, dec_hook=_convert)
        except (msgspec.ValidationError, ValueError) as error:
            self.errors.append(f"{self.file}: {where} = {value!r}: {error}{_allowed(kind)}")
            return None
        rule = re.sub(r"\[\d+\]", "", where)
        if rule in _RULES:
            holds, allowed = _RULES[rule]
            if not holds(converted):
                self.errors.append(f"{self.file}: {where} = {value!r}: {allowed}")
        return converted

    def unknown(self, path: str, key: str, known: list[str]) -> None:
        match = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {path}{match[0]}?" if match else f"known are {', '.join(known)}"
        self.warnings.append(f"{self.file}: {path}{key} is not a setting and is ignored; {hint}")

    def finish(self) -> None:
        if self.errors:
            raise ConfigError("\n".join(self.errors))


def _allowed(kind: Any) -> str:
    """The choices of a Literal, which msgspec's message leaves out."""
    literals = [kind, *get_args(kind)]
    choices = [repr(choice) for one in literals if get_origin(one) is Literal for choice in get_args(one)]
    return f"; allowed are {', '.join(choices)}" if choices else ""


def _convert(kind: type, value: Any) -> Any:
    if kind is Duration:
        return Duration(durations.parse(value))
    if kind is Size:
        return Size(parse_size(value))
    if kind is OnFull and (
        isinstance(value, str) or (isinstance(value, list) and all(type(one) is str for one in value))
    ):
        return OnFull(policies.chain(value))
    if kind is OnFull:
        raise ValueError(f"a word or a list of words is expected; allowed are {', '.join(policies.WORDS)}")
    raise NotImplementedError(f"no conversion to {kind}")


def parse_size(value: Any) -> int:
    """Bytes of 64MB, 1.5GB or of a plain number. Raises ValueError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)i?B?\s*", value) if isinstance(value, str) else None
    if match is None or float(match[1]) <= 0:
        raise ValueError("a size is expected, such as '64MB' or '1GB'")
    return int(float(match[1]) * 1024 ** " kMGT".index(match[2] or " "))


def gateway_id() -> str:
    """Stable for this installation and telling nothing of the machine: a hash of /etc/machine-id (see machine-id(5))."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            machine = Path(path).read_text().strip()
        except OSError:
            continue
        if machine:
            return "gw-" + hashlib.sha256(b"edgefn" + machine.encode()).hexdigest()[:8]
    return re.sub(r"[^a-z0-9-]", "-", socket.gethostname().lower()) or "gateway"


def cache_folder() -> Path:
    """Where compiled modules are kept: they can be made again, so not among the state. Nobody else may write it (0700)."""
    given = os.environ.get("CACHE_DIRECTORY", "").split(":")[0]
    folder = Path(given or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgefn")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _resolve(gateway: GatewaySettings, folder: Path | None) -> GatewaySettings:
    """Fills in what is empty and makes paths absolute."""
    state = gateway.state or os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if not state:
        state = str(Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "edgefn")

    def place(value: str, default: str) -> str:
        if folder is None:
            return value
        path = folder / (value or default)
        return str(path) if value or path.is_dir() else ""

    return GatewaySettings(
        id=gateway.id or gateway_id(),
        state=str((folder or Path.cwd()) / state),
        handlers=place(gateway.handlers, "handlers"),
        drivers=place(gateway.drivers, "hw"),
    )


def _password(file: str, config: str) -> str | None:
    if not file:
        return None
    try:
        return read_secret(Path(config).resolve().parent / file)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{config}: broker.password_file = {file!r} cannot be read: {why}") from error
