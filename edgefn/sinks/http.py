"""Items to a web service: each batch is one POST, sent again until it is answered, under a key that stays the same."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import re
import ssl
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar
from urllib.parse import SplitResult, urlsplit

import aiohttp
import msgspec

import edgefn
from edgefn.address import TlsFiles
from edgefn.certificates import check_tls, why_untrusted
from edgefn.clock import Clock, SystemClock
from edgefn.errors import AccessError, ConfigError, NotConnectedError, PayloadError, Trouble
from edgefn.metrics import Metrics
from edgefn.sinks import LOCAL, FilePath, Refusal
from edgefn.sinks.envelope import MEDIA_TYPES, Encoding, envelope, join
from edgefn.sinks.http_answer import Answer, BatchRefusedError, read_answer
from edgefn.sinks.secrets import check_secret, secret
from edgefn.sinks.template import check_template, fill

if TYPE_CHECKING:
    from edgefn.store import Item

CONNECT_TIMEOUT = 10.0  # seconds from the look-up of the name to a connection
SLOWEST = 1000  # bytes a second at which a batch still arrives in time: GPRS at its worst
COMPRESS_FROM = 512  # bytes; below, gzip's own 20 bytes and the work are not worth it
LONGEST_ANSWER = 64 << 10  # bytes, of which more are not read
IN_THREAD = 64 << 10  # bytes that are compressed beside the event loop: 1 ms on a PC, 4 to 8 times that on a Pi

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token (RFC 9110, 5.6.2)
_OURS = frozenset(
    {"accept", "connection", "content-encoding", "content-length", "content-type", "host", "idempotency-key"}
    | {"transfer-encoding", "user-agent"}
)


class HttpOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str
    encoding: Encoding = "json"
    compress: bool = True
    token_file: FilePath | None = None
    headers: dict[str, str] = {}
    ca: FilePath | None = None
    cert: FilePath | None = None
    key: FilePath | None = None
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0  # for an answer; a second more for each SLOWEST bytes


class HttpSink:
    """Posts `{"items": […]}`. What the status and the body of the answer mean is in `http_answer`.

    A batch that is refused as a whole is sent again in halves, until what is refused is one item. Redirects are not
    followed and proxies of the environment are not used: items go where the settings say, or nowhere.
    """

    Options: ClassVar[type[msgspec.Struct]] = HttpOptions

    def __init__(
        self, options: HttpOptions, *, gateway: str, metrics: Metrics | None = None, clock: Clock | None = None
    ) -> None:
        check_template("url", options.url, ("gateway",))
        self._url = fill(options.url, {"gateway": gateway})
        self._where = _check_url(self._url)
        self._shown = self._url.partition("?")[0]  # some services want their key in the query
        _check_headers(options)
        self._options = options
        self._tls = TlsFiles(options.ca, options.cert, options.key) if self._where.scheme == "https" else None
        self._clock = clock or SystemClock()
        self._metrics = metrics or Metrics()
        self._session: aiohttp.ClientSession | None = None
        self.bytes_sent = 0

    def check(self, now: int) -> Iterator[Trouble]:
        options = self._options
        if self._tls:
            yield from check_tls(self._tls, now)
        elif options.ca or options.cert or options.key:
            yield Trouble(
                f"url = {self._shown!r}: ca, cert and key are for https:// only; change the address or remove them"
            )
        if options.token_file:
            yield from check_secret("token_file", options.token_file)
        if not self._tls and self._where.hostname not in LOCAL and (options.token_file or options.headers):
            yield Trouble(
                f"url = {self._shown!r}: the token and the headers travel unencrypted; use https://", fatal=False
            )

    async def connect(self) -> None:
        """Reads the token and the certificates anew, and sees whether anybody listens there."""
        if self._session:
            return
        where = self._where
        port = where.port or (443 if self._tls else 80)
        try:
            headers = self._make_headers()
            context = self._tls.context() if self._tls else None
        except ConfigError as error:
            raise AccessError(str(error)) from error
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _, writer = await asyncio.open_connection(where.hostname, port)
            writer.close()
        except (OSError, TimeoutError) as error:
            raise NotConnectedError(f"{self._shown}: {_why(error)}; is the service running there?") from error
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context or True, limit=1),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def send(self, items: Sequence[Item]) -> Sequence[Refusal]:
        if self._session is None:
            raise NotConnectedError(f"{self._shown}: not connected; call connect first")
        encoded: list[tuple[Item, bytes]] = []
        refused: list[Refusal] = []
        for item in items:
            try:
                encoded.append((item, envelope(item, self._options.encoding)))
            except PayloadError as error:
                refused.append(Refusal(item.id, error.reason, str(error)))
        if encoded:
            try:
                refused += await self._deliver(self._session, encoded)
            except AccessError:
                await self.close()  # the next connect looks at the files again, which somebody may have mended
                raise
        return refused

    async def close(self) -> None:
        session, self._session = self._session, None
        if session:
            await session.close()

    async def _deliver(self, session: aiohttp.ClientSession, batch: Sequence[tuple[Item, bytes]]) -> list[Refusal]:
        try:
            answer = await self._post(session, [data for _, data in batch])
            refused = read_answer(self._shown, answer, len(batch), self._clock.now())
        except BatchRefusedError as error:
            if len(batch) == 1:
                return [Refusal(batch[0][0].id, error.reason, error.detail)]
            self._metrics.count("sink.http.split", reason=error.reason)
            half = len(batch) // 2
            return [*await self._deliver(session, batch[:half]), *await self._deliver(session, batch[half:])]
        ids = {item.key: item.id for item, _ in batch}
        if unknown := refused.keys() - ids.keys():
            raise NotConnectedError(
                f"{self._shown}: the service refuses {min(unknown)!r}, which was not sent; `id` in `results` is that of the item"
            )
        return [Refusal(ids[key], one.reason, one.detail) for key, one in refused.items()]

    async def _post(self, session: aiohttp.ClientSession, envelopes: Sequence[bytes]) -> Answer:
        body = join(envelopes, self._options.encoding)
        # The same items give the same key, whenever they are sent again; items that have changed give another.
        headers = {"Idempotency-Key": hashlib.sha256(body).hexdigest()[:32]}
        if self._options.compress and len(body) >= COMPRESS_FROM:
            headers["Content-Encoding"] = "gzip"
            if len(body) >= IN_THREAD:
                body = await asyncio.to_thread(gzip.compress, body, 6, mtime=0)
            else:
                body = gzip.compress(body, 6, mtime=0)
        self.bytes_sent += (
            len(body)
            + len(self._url)
            + sum(len(name) + len(value) + 4 for name, value in (*session.headers.items(), *headers.items()))
        )
        timeout = self._options.timeout_s + len(body) / SLOWEST
        try:
            async with session.post(
                self._url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT),
            ) as response:
                content, whole = await _read(response.content)
                return Answer(response.status, response.headers, content, whole)
        except aiohttp.ClientConnectorCertificateError as error:
            cause = error.certificate_error
            why = why_untrusted(cause) if isinstance(cause, ssl.SSLCertVerificationError) else str(cause)
            raise AccessError(f"{self._shown}: its certificate is not trusted: {why}") from error
        except TimeoutError as error:
            await self.close()
            raise NotConnectedError(f"{self._shown}: no whole answer within {timeout:.0f} s") from error
        except (aiohttp.ClientError, OSError) as error:
            await self.close()
            # A far side that does not take our certificate ends the connection, and hardly ever says why.
            if wrong := [one for one in self.check(self._clock.now()) if one.fatal]:
                raise AccessError(f"{self._shown}: {_why(error)}; {wrong[0]}") from error
            raise NotConnectedError(
                f"{self._shown}: connection lost before the whole answer came: {_why(error)}"
            ) from error

    def _make_headers(self) -> dict[str, str]:
        options = self._options
        headers = {
            "Content-Type": MEDIA_TYPES[options.encoding],
            "Accept": "application/json",
            "User-Agent": f"edgefn/{edgefn.__version__}",
            **options.headers,
        }
        if options.token_file:
            headers["Authorization"] = f"Bearer {secret('token_file', options.token_file)}"
        return headers


def _check_url(url: str) -> SplitResult:
    try:
        where = urlsplit(url)
        port = where.port
    except ValueError as error:
        raise ConfigError(f"url = {url!r}: {error}") from error
    if where.scheme not in ("http", "https") or not where.hostname or port == 0:
        raise ConfigError(f"url = {url!r}: an address such as https://example.com/ingest is expected")
    if where.username is not None or where.password is not None:
        hidden = url.replace(where.netloc, "…@" + where.netloc.rpartition("@")[2])
        raise ConfigError(f"url = {hidden!r}: no user and password there; use token_file or headers")
    if where.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"url = {url!r}: a fragment (#), a space or a letter beyond ASCII; write them as %23, %20 …")
    return where


def _check_headers(options: HttpOptions) -> None:
    for name, value in options.headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigError(f"headers: {name!r} is not the name of a header")
        if name.lower() in _OURS or (name.lower() == "authorization" and options.token_file):
            raise ConfigError(f"headers: {name!r} is set by edgefn itself; remove it")
        if not value.isprintable():
            raise ConfigError(f"headers: the value of {name!r} has a line break or another control character")


async def _read(content: aiohttp.StreamReader) -> tuple[bytes, bool]:
    parts: list[bytes] = []
    room = LONGEST_ANSWER
    while room > 0:
        part = await content.read(room)
        if not part:
            return b"".join(parts), True
        parts.append(part)
        room -= len(part)
    return b"".join(parts), content.at_eof()


def _why(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer was cut off"
    if isinstance(error, TimeoutError):
        return f"no connection within {CONNECT_TIMEOUT:g} s"
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
