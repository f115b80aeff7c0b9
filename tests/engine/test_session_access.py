"""How the engine's session gets to a real mosquitto, and what it says where it is not let in: TLS, passwords, a Unix socket."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from edgefn.address import BrokerAddress, TlsFiles
from edgefn.broker import PrivateBroker
from edgefn.engine import session as sessions
from edgefn.engine.session import SECOND
from tests.broker import make_broker, write_passwords
from tests.engine.other_brokers import free_port
from tests.engine.test_session_broker import Client, send

pytestmark = pytest.mark.integration

CA, STRANGER = trustme.CA(), trustme.CA()


@pytest.fixture
def slow_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance always chooses the longest pause, so that a test can say how long it may get."""
    monkeypatch.setattr(sessions.random, "uniform", lambda low, high: high)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    issued = CA.issue_cert("localhost")  # and not 127.0.0.1
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    CA.cert_pem.write_to_path(folder / "ca.pem")
    STRANGER.cert_pem.write_to_path(folder / "stranger.pem")
    mine = CA.issue_cert("gateway@example.org")
    mine.private_key_pem.write_to_path(folder / "my-key.pem")
    mine.cert_chain_pems[0].write_to_path(folder / "my-cert.pem")
    return folder


@pytest.fixture(scope="module")
def behind_tls(files: Path) -> Iterator[tuple[PrivateBroker, int]]:
    """A broker, and the port of its listener with TLS; others publish without."""
    plain = free_port()
    config = [
        f"certfile {files}/cert.pem", f"keyfile {files}/key.pem", f"cafile {files}/ca.pem",
        f"listener {plain} 127.0.0.1",
    ]  # fmt: skip
    with make_broker(config=config) as broker:
        yield broker, plain


def to(port: int, files: Path, ca: str = "ca.pem", host: str = "localhost", **more: str) -> BrokerAddress:
    return BrokerAddress(host, port, tls=TlsFiles(str(files / ca), **more))


def why(client: Client) -> str:
    """What it says the first time that it is not let in."""
    client.until(lambda: client.told != [])
    return client.told[0][1]


def test_events_come_whole_through_tls_with_a_private_ca(behind_tls: tuple[PrivateBroker, int], files: Path) -> None:
    broker, plain = behind_tls
    client = Client(broker.port, "tls", "tls/+", address=to(broker.port, files))
    client.until(client.subscribed)
    payloads = [b"%d" % n * 700 for n in range(200)] + [b"x" * 300_000, b"last"]  # more than one record of TLS holds
    send(plain, "tls/a", *payloads)
    client.until(lambda: len(client.got) == len(payloads))
    assert client.got == payloads
    client.session.acknowledge(1)
    client.until(lambda: len(client.session.deliveries) == 0)
    client.session.close()


@pytest.mark.parametrize(
    ("ca", "host", "said"),
    [
        ("stranger.pem", "localhost", "; set tls.ca to the CA that signed it"),
        ("ca.pem", "127.0.0.1", "not valid for '127.0.0.1'.; connect by a name that the certificate has"),
    ],
)
def test_a_broker_that_is_not_who_it_should_be_is_refused_with_what_to_do(
    behind_tls: tuple[PrivateBroker, int], files: Path, slow_retries: None, ca: str, host: str, said: str
) -> None:
    broker, _ = behind_tls
    client = Client(broker.port, "stranger", "t", address=to(broker.port, files, ca, host))
    assert "its certificate is not trusted" in why(client)
    assert said in client.told[0][1]
    assert f"{host}:{broker.port}" in client.told[0][1]
    assert not client.session.connected


def test_a_listener_without_tls_is_told_as_such(behind_tls: tuple[PrivateBroker, int], files: Path) -> None:
    _, plain = behind_tls
    assert "is that a listener with TLS?" in why(Client(plain, "plain", "t", address=to(plain, files)))


def test_a_ca_file_that_is_not_there_is_named(behind_tls: tuple[PrivateBroker, int], files: Path) -> None:
    broker, _ = behind_tls
    assert "none.pem" in why(Client(broker.port, "none", "t", address=to(broker.port, files, "none.pem")))


def test_a_broker_that_asks_for_our_certificate_gets_it(files: Path) -> None:
    config = [
        f"certfile {files}/cert.pem", f"keyfile {files}/key.pem", f"cafile {files}/ca.pem", "require_certificate true",
    ]  # fmt: skip
    with make_broker(config=config) as broker:
        mine = {"cert": str(files / "my-cert.pem"), "key": str(files / "my-key.pem")}
        client = Client(broker.port, "known", "t", address=to(broker.port, files, **mine))
        client.until(client.subscribed)
        client.session.close()
        stranger = Client(broker.port, "unknown", "t", address=to(broker.port, files))
        assert why(stranger)
        assert not stranger.session.connected


def test_a_wrong_password_is_told_once_and_tried_again_ever_more_slowly(tmp_path: Path, slow_retries: None) -> None:
    with make_broker(passwords=write_passwords(tmp_path / "passwords", {"me": "right"})) as broker:
        client = Client(broker.port, "locked", "t", password="wrong")
        for _ in range(3):
            client.session.keep(max(time.monotonic_ns(), client.session.due()))
            client.until(lambda: client.session.sock is None)
            assert client.session.due() - time.monotonic_ns() > 25 * SECOND
        assert [state for state, _ in client.told] == ["refused"]
        assert "refuses us: not authorized; see [broker] in edgefn.toml" in client.told[0][1]
        welcome = Client(broker.port, "locked", "t", password="right")
        welcome.until(welcome.subscribed)
        welcome.session.close()


def test_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "mqtt.sock"
    with make_broker(config=[f"listener 0 {path}"]) as broker:
        client = Client(broker.port, "unix", "unix/+", address=BrokerAddress(unix=str(path)))
        client.until(client.subscribed)
        send(broker.port, "unix/a", b"1")
        client.until(lambda: client.got == [b"1"])
        client.session.close()


def test_a_unix_socket_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.sock"
    assert why(Client(0, "unix", "t", address=BrokerAddress(unix=str(path)))) == (
        f"{path} cannot be reached: No such file or directory"
    )
