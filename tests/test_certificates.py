"""What is told about certificates before anybody connects."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefn.address import TlsFiles
from edgefn.certificates import SOON, check_tls, validities, why_untrusted
from edgefn.clock import EARLIEST, NS, SystemClock

DAY = 86_400 * NS
END = 1_800_000_000 * NS
CA = trustme.CA()


def files(folder: Path, end: int = END) -> TlsFiles:
    """A CA, and a client certificate of it that is valid until `end`."""
    certificate = CA.issue_cert(
        "gateway-7.example",
        not_before=datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC),
        not_after=datetime.datetime.fromtimestamp(end // NS, datetime.UTC),
    )
    CA.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    return TlsFiles(str(folder / "ca.pem"), str(folder / "cert.pem"), str(folder / "key.pem"))


def told(tls: TlsFiles, now: int) -> list[tuple[str, bool]]:
    return [(str(trouble), trouble.fatal) for trouble in check_tls(tls, now)]


@settings(max_examples=40, deadline=None)
@given(
    st.datetimes(datetime.datetime(1960, 1, 1), datetime.datetime(2090, 1, 1)),
    st.timedeltas(datetime.timedelta(0), datetime.timedelta(days=30_000)),
)
def test_dates_are_those_that_a_library_for_them_reads(begin: datetime.datetime, lasting: datetime.timedelta) -> None:
    issued = trustme.CA().issue_cert(
        "x.example",
        not_before=begin.replace(tzinfo=datetime.UTC),
        not_after=(begin + lasting).replace(tzinfo=datetime.UTC),
    )
    pem = issued.cert_chain_pems[0].bytes()
    reference = x509.load_pem_x509_certificate(pem)
    [found] = validities(pem)
    assert found.begin == int(reference.not_valid_before_utc.timestamp()) * NS
    assert found.end == int(reference.not_valid_after_utc.timestamp()) * NS


@given(st.integers(0, 10_000), st.binary(max_size=8))
def test_a_damaged_certificate_is_an_error_and_no_surprise(at: int, junk: bytes) -> None:
    der = x509.load_pem_x509_certificate(CA.cert_pem.bytes()).public_bytes(Encoding.DER)
    at %= len(der)
    pem = ssl.DER_cert_to_PEM_cert(der[:at] + junk + der[at + len(junk) :])
    try:
        [found] = validities(pem.encode())
    except ValueError:
        return
    assert isinstance(found.end, int)


def test_nothing_is_wrong_with_what_is_valid(tmp_path: Path) -> None:
    assert told(files(tmp_path), END - SOON) == []
    assert told(TlsFiles(), END) == []


def test_one_that_expires_soon_is_a_warning(tmp_path: Path) -> None:
    [(message, fatal)] = told(files(tmp_path), END - 13 * DAY)
    assert "cert.pem' expires on 2027-01-15 08:00 UTC; renew it before" in message
    assert not fatal


def test_one_that_has_expired_is_named(tmp_path: Path) -> None:
    [(message, fatal)] = told(files(tmp_path), END)
    assert "tls.cert = " in message
    assert "has expired on 2027-01-15 08:00 UTC; renew it" in message
    assert fatal


def test_of_a_chain_the_first_counts_and_of_authorities_the_last_to_expire(tmp_path: Path) -> None:
    tls = files(tmp_path)
    assert tls.cert is not None
    assert tls.ca is not None
    chain = Path(tls.cert).read_bytes() + CA.cert_pem.bytes()
    Path(tls.cert).write_bytes(chain)
    assert [fatal for _, fatal in told(tls, END)] == [True]
    assert told(TlsFiles(ca=tls.cert), END) == []


def test_one_that_is_not_valid_yet_casts_a_doubt_on_a_clock_of_1970(tmp_path: Path) -> None:
    [first, second] = told(files(tmp_path), 60 * NS)
    for key, (message, fatal) in zip(("ca", "cert"), (first, second), strict=True):
        assert message.startswith(f"tls.{key} = ")
        assert "is not valid before 2000-01-01" in message
        assert "the clock of this machine is wrong, which says 1970-01-01 00:01 UTC" in message
        assert fatal


def test_a_key_of_another_certificate_is_told(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    mine, other = files(tmp_path), files(tmp_path / "other")
    [(message, _)] = told(TlsFiles(None, mine.cert, other.key), END - SOON)
    assert "give two PEM files that belong together" in message


@pytest.mark.parametrize("key", ["ca", "cert", "key"])
def test_a_file_that_is_missing_or_nonsense_is_named(tmp_path: Path, key: str) -> None:
    tls = files(tmp_path)
    path = Path(getattr(tls, key))
    path.write_text("nonsense")
    [(message, fatal)] = told(tls, END - SOON)
    assert f"tls.{key} = {str(path)!r}" in message
    assert fatal
    path.unlink()
    assert told(tls, END - SOON) == [(f"tls.{key} = {str(path)!r} cannot be read: No such file or directory", True)]


@pytest.mark.parametrize(
    ("said", "now", "hint"),
    [
        ("certificate has expired", EARLIEST, "renew the certificate there"),
        ("certificate is not yet valid", 0, "the clock of this machine says 1970-01-01 00:00 UTC, which is wrong"),
        ("self-signed certificate", 0, "set tls.ca to the CA that signed it"),
        ("Hostname mismatch, certificate is not valid for 'x'.", 0, "connect by a name that the certificate has"),
    ],
)
def test_why_a_far_side_is_not_trusted(monkeypatch: pytest.MonkeyPatch, said: str, now: int, hint: str) -> None:
    monkeypatch.setattr(SystemClock, "now", lambda _: now)
    error = ssl.SSLCertVerificationError(1, "x")
    error.verify_message = said
    assert hint in why_untrusted(error)
