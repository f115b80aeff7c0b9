"""From an address to a socket that a session can begin on, or to a message that says why there is none."""

from __future__ import annotations

import os
import socket
import ssl

from edgefn.address import BrokerAddress
from edgefn.certificates import why_untrusted
from edgefn.errors import ConfigError, NotConnectedError

TIMEOUT = 5.0  # seconds


def dial(address: BrokerAddress) -> socket.socket | ssl.SSLSocket:
    """Blocks for TIMEOUT at most at each step. Raises NotConnectedError."""
    sock: socket.socket | None = None
    hint = ""
    try:
        if address.unix:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(TIMEOUT)
            sock.connect(address.unix)
        else:
            sock = socket.create_connection((address.host, address.port), TIMEOUT)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.tls is not None:
            context = address.tls.context()
            hint = "; is that a listener with TLS?"
            sock = context.wrap_socket(sock, server_hostname=address.host)
        return sock
    except (OSError, ConfigError, ValueError) as error:
        if sock is not None:
            sock.close()
        if isinstance(error, ssl.SSLCertVerificationError):
            why = f"its certificate is not trusted: {why_untrusted(error)}"
        else:
            why = _why(error) + hint
        raise NotConnectedError(f"{address} cannot be reached: {why}") from error


def _why(error: Exception) -> str:
    # The number of a failed look-up of a name is negative, and of TLS it is none of the system's.
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return str(error)
