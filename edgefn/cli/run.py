"""edgefn run: the gateway, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click

from edgefn.address import BrokerAddress
from edgefn.broker import PrivateBroker
from edgefn.cli import common
from edgefn.config import Config
from edgefn.errors import ConfigError, StoreDamagedError
from edgefn.processes import FORMAT

log = logging.getLogger("edgefn")


@click.command(epilog="Example: edgefn run my-gateway")
@click.argument("where", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--verbose", "-v", is_flag=True, help="Say more on standard error.")
def run(where: Path | None, verbose: bool) -> None:
    """Run the gateway of a folder (or settings file) until Ctrl-C.

    Without a folder: the edgefn.toml of this one; without that, the host driver and the handlers that ship, on the broker at
    127.0.0.1:1883 or on a private one where none listens.

    Exit status 2: it cannot run. 3: the store is damaged, and the next start takes over what can be read of it.
    """
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format=FORMAT)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    settings = common.load(where)
    from edgefn import gateway

    try:
        with ExitStack() as stack:
            address = _broker(settings, stack)
            raise SystemExit(asyncio.run(gateway.run(settings, address)))
    except* OSError as errors:
        leaves = list(_leaves(errors))
        for error in leaves:
            log.error("%s", error)
        damaged = any(isinstance(error, StoreDamagedError) for error in leaves)
        raise SystemExit(common.STORE_DAMAGED if damaged else common.CANNOT_RUN) from None


def _leaves(errors: BaseException) -> Iterator[BaseException]:
    """The errors themselves, out of groups in groups."""
    if isinstance(errors, BaseExceptionGroup):
        for error in errors.exceptions:
            yield from _leaves(error)
    else:
        yield errors


def _broker(settings: Config, stack: ExitStack) -> BrokerAddress:
    """The broker of the settings, or a private one on loopback where that is wanted."""
    address = settings.address()
    if settings.broker.private == "never" or (settings.broker.private == "auto" and _listens(address)):
        return address
    if settings.broker.private == "auto" and (address.unix or address.host not in ("127.0.0.1", "localhost", "::1")):
        return address  # somebody else's machine: it will come back, and a broker of our own would not be it
    if address.username or address.tls:
        raise ConfigError(
            f"{settings.file}: nothing listens at {address}, and a private broker knows no users and no TLS; "
            'start that broker, or set broker.private = "never" to wait for it'
        )
    state = Path(settings.gateway.state) / "broker"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    broker = stack.enter_context(PrivateBroker(address.port, persistence=state))
    log.info("no broker listens at %s: a private one is started there, for this machine only", address)
    return replace(address, port=broker.port)


def _listens(address: BrokerAddress) -> bool:
    try:
        if address.unix:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(address.unix)
        else:
            socket.create_connection((address.host, address.port), 1.0).close()
    except OSError:
        return False
    return True
