"""What each sink says when a certificate is not right, and that it goes on once it is."""

from __future__ import annotations

import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trustme

from edgefn.errors import AccessError, NotConnectedError
from edgefn.sinks import Sink, load_sink
from tests.broker import make_broker
from tests.sinks.helpers import stored
from tests.sinks.service import Service

CA, STRANGER = trustme.CA(), trustme.CA()
LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
FAR_AWAY = datetime.datetime(2060, 1, 1, tzinfo=datetime.UTC)


class Files:
    """A CA that both sides trust, the far side's certificate, and ours."""

    def __init__(self, folder: Path, **server: Any) -> None:
        self.folder = folder
        self.ca = str(folder / "ca.pem")
        CA.cert_pem.write_to_path(self.ca)
        self.server = self._write("server", CA.issue_cert("127.0.0.1", **server))

    def client(self, name: str = "client", ca: trustme.CA = CA, **options: Any) -> dict[str, str]:
        cert, key = self._write(name, ca.issue_cert("gateway-7.example", **options))
        return {"cert": cert, "key": key}

    def _write(self, name: str, issued: trustme.LeafCert) -> tuple[str, str]:
        cert, key = str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
        return cert, key


@contextlib.asynccontextmanager
async def a_service(files: Files, ask: bool) -> AsyncIterator[Callable[..., Sink]]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.ca)
    context.load_cert_chain(*files.server)
    context.verify_mode = ssl.CERT_REQUIRED if ask else ssl.CERT_NONE
    async with Service(context) as service:
        yield lambda **options: load_sink("http", {"url": service.url, "timeout_s": 5.0, **options}, gateway="gw-1")


@contextlib.asynccontextmanager
async def a_broker(files: Files, ask: bool) -> AsyncIterator[Callable[..., Sink]]:
    cert, key = files.server
    lines = [f"cafile {files.ca}", f"certfile {cert}", f"keyfile {key}", f"require_certificate {str(ask).lower()}"]
    with make_broker(config=lines) as broker:
        where = {"host": broker.host, "port": broker.port, "tls": True, "timeout_s": 1.0}
        yield lambda **options: load_sink("mqtt", {**where, **options}, gateway="gw-1")


Far = Callable[[Files, bool], AbstractAsyncContextManager[Callable[..., Sink]]]


@pytest.fixture(params=[a_service, pytest.param(a_broker, marks=pytest.mark.integration)], ids=["http", "mqtt"])
def far(request: pytest.FixtureRequest) -> Far:
    found: Far = request.param
    return found


async def deliver(sink: Sink) -> None:
    try:
        await sink.connect()
        assert await sink.send([stored(1)]) == []
    finally:
        await sink.close()


async def test_items_arrive_over_tls_with_a_client_certificate(far: Far, tmp_path: Path) -> None:
    files = Files(tmp_path)
    async with far(files, True) as a_sink:
        await deliver(a_sink(ca=files.ca, **files.client()))


async def test_a_far_side_that_is_not_trusted_is_sent_nothing(far: Far, tmp_path: Path) -> None:
    files = Files(tmp_path)
    async with far(files, False) as a_sink:
        with pytest.raises(AccessError, match=r"not trusted: .*; set tls\.ca to the CA that signed it"):
            await deliver(a_sink())


async def test_an_expired_far_side_is_told_with_the_date_of_our_clock(far: Far, tmp_path: Path) -> None:
    files = Files(tmp_path, not_before=LONG_AGO, not_after=LONG_AGO + datetime.timedelta(days=1))
    async with far(files, False) as a_sink:
        with pytest.raises(AccessError, match=r"certificate has expired; renew .*the clock of this machine says 20"):
            await deliver(a_sink(ca=files.ca))


async def test_a_far_side_from_the_future_is_told_too(far: Far, tmp_path: Path) -> None:
    files = Files(tmp_path, not_before=FAR_AWAY, not_after=FAR_AWAY + datetime.timedelta(days=1))
    async with far(files, False) as a_sink:
        with pytest.raises(AccessError, match=r"certificate is not yet valid; .*the clock of this machine says 20"):
            await deliver(a_sink(ca=files.ca))


async def test_our_own_expired_certificate_is_told_and_its_successor_taken_up(far: Far, tmp_path: Path) -> None:
    files = Files(tmp_path)
    expired = files.client(not_before=LONG_AGO, not_after=LONG_AGO + datetime.timedelta(days=1))
    async with far(files, True) as a_sink:
        sink = a_sink(ca=files.ca, **expired)
        with pytest.raises(AccessError, match=r"tls\.cert = .*client\.pem' has expired on 2001-01-02"):
            await deliver(sink)
        files.client()
        await deliver(sink)


async def test_a_certificate_that_the_far_side_does_not_know_is_not_taken_for_delivered(
    far: Far, tmp_path: Path
) -> None:
    files = Files(tmp_path)
    async with far(files, True) as a_sink:
        with pytest.raises(NotConnectedError):
            await deliver(a_sink(ca=files.ca, **files.client(ca=STRANGER)))


async def test_files_that_are_missing_stop_the_uplink_only_until_they_are_there(far: Far, tmp_path: Path) -> None:
    files = Files(tmp_path)
    async with far(files, True) as a_sink:
        client = {"cert": str(tmp_path / "client.pem"), "key": str(tmp_path / "client.key")}
        sink = a_sink(ca=files.ca, **client)
        with pytest.raises(AccessError, match=r"tls\.cert = .*client\.pem'.*No such file"):
            await sink.connect()
        files.client()
        await deliver(sink)
