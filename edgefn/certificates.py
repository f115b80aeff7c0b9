"""From PEM files to what is wrong with them: missing, not a pair, not valid yet, expired, or soon to expire."""

from __future__ import annotations

import calendar
import os
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

from edgefn.address import TlsFiles
from edgefn.clock import NS, SystemClock, is_plausible
from edgefn.errors import ConfigError, Trouble

SOON = 14 * 86_400 * NS  # a fortnight: a delivery and somebody who drives out to the device

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.S)
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18  # tags of ASN.1 (X.690, 8.1.2)


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate is valid, in ns since the epoch."""

    begin: int
    end: int


def validities(pem: bytes) -> list[Validity]:
    """Of each certificate in the file. Raises ValueError for one that cannot be read."""
    return [_validity(ssl.PEM_cert_to_DER_cert(match[0].decode("ascii"))) for match in _PEM.finditer(pem)]


def check_tls(tls: TlsFiles, now: int) -> Iterator[Trouble]:
    """All that is known to be wrong at the time `now` (ns) with the files of a TLS connection."""
    files = [(key, path) for key, path in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)) if path]
    unreadable = [trouble for key, path in files if (trouble := check_readable(f"tls.{key}", path))]
    if unreadable:
        yield from unreadable
        return
    if tls.key and not tls.cert:
        yield Trouble(f"tls.key = {tls.key!r} without tls.cert: a key alone is no client certificate; set tls.cert")
    try:
        tls.context()
    except ConfigError as error:
        yield Trouble(str(error))
        return
    for key, path in files:
        if key != "key":
            yield from _check_validity(key, path, now)


def check_readable(key: str, path: str) -> Trouble | None:
    """A file that is missing is fatal. One of another user is not: the gateway may run as that one."""
    try:
        with open(path, "rb"):
            return None
    except PermissionError:
        return Trouble(
            f"{key} = {path!r} cannot be read by this user (uid {os.geteuid()}); see that the one who runs edgefn can",
            fatal=False,
        )
    except OSError as error:
        return Trouble(f"{key} = {path!r} cannot be read: {error.strerror}")


def why_untrusted(error: ssl.SSLCertVerificationError) -> str:
    """What to do about a far side whose certificate is not trusted. OpenSSL asks the clock of the machine, and so does this."""
    said = error.verify_message
    if "expired" in said or "not yet valid" in said:
        now = SystemClock().now()
        if not is_plausible(now):
            return (
                f"{said}: the clock of this machine says {_date(now)}, which is wrong; set it, or wait until it is set"
            )
        return f"{said}; renew the certificate there (the clock of this machine says {_date(now)})"
    if "mismatch" in said or "doesn't match" in said or "not valid for" in said:
        return f"{said}; connect by a name that the certificate has"
    return f"{said}; set tls.ca to the CA that signed it"


def _check_validity(key: str, path: str, now: int) -> Iterator[Trouble]:
    try:
        with open(path, "rb") as file:
            found = validities(file.read())
    except (OSError, ValueError):
        return  # OpenSSL took it a moment ago, and it decides when it comes to connecting
    if not found:
        return  # a CA file may hold trust in another form
    # Of a client's file the first certificate is its own; of a CA file each may be the one that is needed.
    counted = found[:1] if key == "cert" else found
    end, begin = max(one.end for one in counted), min(one.begin for one in counted)
    doubt = f"; or the clock of this machine is wrong, which says {_date(now)}" if not is_plausible(now) else ""
    if now < begin:
        yield Trouble(
            f"tls.{key} = {path!r} is not valid before {_date(begin)}{doubt or '; see that the clock is right'}"
        )
    elif now >= end:
        yield Trouble(f"tls.{key} = {path!r} has expired on {_date(end)}; renew it{doubt}")
    elif end - now < SOON:
        yield Trouble(f"tls.{key} = {path!r} expires on {_date(end)}; renew it before", fatal=False)


def _date(ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(ns // NS))


# X.509 (RFC 5280, 4.1) without a library for it: ssl tells the dates of CA certificates only.


def _validity(der: bytes) -> Validity:
    try:
        certificate = _Der(der).enter()
        body = certificate.enter()
        if body.tag() == _VERSION:
            body.skip()
        for _ in ("serialNumber", "signature", "issuer"):
            body.skip()
        times = body.enter()
        return Validity(times.time(), times.time())
    except (IndexError, ValueError) as error:
        raise ValueError("not an X.509 certificate") from error


class _Der:
    """Reads values of ASN.1 one after the other (X.690, DER)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def tag(self) -> int:
        return self._data[self._at]

    def skip(self) -> bytes:
        length = self._data[self._at + 1]
        start = self._at + 2
        if length & 0x80:  # the long form: so many bytes of length
            start += length & 0x7F
            length = int.from_bytes(self._data[self._at + 2 : start], "big")
        if start + length > len(self._data):
            raise ValueError("cut off")
        self._at = start + length
        return self._data[start : self._at]

    def enter(self) -> _Der:
        if self.tag() != _SEQUENCE:
            raise ValueError("no sequence")
        return _Der(self.skip())

    def time(self) -> int:
        tag = self.tag()
        text = self.skip().decode("ascii")
        if tag == _UTC_TIME:  # two figures for the year: 50 and above are of the last century (RFC 5280, 4.1.2.5.1)
            text = ("19" if text[:2] >= "50" else "20") + text
        elif tag != _GENERALIZED_TIME:
            raise ValueError("no time")
        return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ")) * NS
