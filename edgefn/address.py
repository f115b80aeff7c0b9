"""Where a broker listens and who we are to it."""

from __future__ import annotations

import ssl
from dataclasses import asdict, dataclass, field
from typing import Any

from edgefn.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. Without `ca` the certificates of the system decide; `cert` and `key` are for client certificates."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def context(self) -> ssl.SSLContext:
        """Raises ConfigError that names the file which cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise ConfigError(f"tls.ca = {self.ca!r} cannot be used: {error}; give a PEM file") from error
        if self.cert:
            try:
                context.load_cert_chain(self.cert, self.key)
            except OSError as error:
                raise ConfigError(
                    f"tls.cert = {self.cert!r} with tls.key = {self.key!r} cannot be used: {error}; "
                    "give two PEM files that belong together"
                ) from error
        return context


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker listens and who we are to it. With `unix`, a socket's path, host and port are not used."""

    host: str = "localhost"
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TlsFiles | None = None
    unix: str | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BrokerAddress:
        """What `asdict` made: an address on its way to another process."""
        tls = data.get("tls")
        return cls(**{**data, "tls": TlsFiles(**tls) if tls else None})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return self.unix or f"{self.host}:{self.port}"
