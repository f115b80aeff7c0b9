"""A private MQTT broker as a child process on loopback: for the demo, for a first try, and for the tests."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from edgefn.errors import ConfigError, EdgefnError
from edgefn.processes import die_with_parent

log = logging.getLogger(__name__)

START_TIMEOUT = 10.0  # seconds until the broker accepts a connection; amqtt needs 2 of them on a Pi
STOP_TIMEOUT = 5.0  # seconds between SIGTERM and SIGKILL


class BrokerStartError(EdgefnError, RuntimeError):
    """The broker does not start. The message says why and what to do."""


def find_mosquitto() -> str | None:
    """Its path, or None. Debian keeps it in /usr/sbin, which is not on everybody's PATH."""
    return shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class PrivateBroker:
    """A broker on 127.0.0.1 that lives as long as the `with` block, and dies with this process at the latest.

    `config` is further lines of mosquitto.conf, `persistence` the directory that it keeps its database in,
    `passwords` a file made by mosquitto_passwd. Where mosquitto is missing and amqtt is installed, amqtt takes its
    place: slow, 3.1.1 only, and with nothing kept over a restart.
    """

    def __init__(
        self,
        port: int | None = None,
        *,
        config: Sequence[str] = (),
        persistence: Path | None = None,
        passwords: Path | None = None,
    ) -> None:
        """Takes a free port unless one is given. Raises BrokerStartError where there is no broker to start."""
        self.host = "127.0.0.1"
        self._given_port = port
        self.port = port or _free_port()
        self._config = tuple(config)
        self._persistence = persistence
        self._passwords = passwords
        self._mosquitto = find_mosquitto()
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        if self._mosquitto is None:
            if importlib.util.find_spec("amqtt") is None:
                raise BrokerStartError("no MQTT broker found; install one: sudo apt install mosquitto")
            if config or passwords:
                raise ConfigError("a broker with passwords or lines of mosquitto.conf: sudo apt install mosquitto")
            log.warning("no mosquitto: amqtt is slow and keeps nothing over a restart; sudo apt install mosquitto")

    def __enter__(self) -> PrivateBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns when the broker accepts connections; does nothing where it already runs. Raises BrokerStartError."""
        attempts = 1 if self._given_port else 3
        while not self.running:
            attempts -= 1
            try:
                self._start()
            except _PortInUseError:
                # Between finding a free port and the broker's listen another process may take it.
                if not attempts:
                    raise
                self.port = _free_port()

    def stop(self) -> None:
        """SIGTERM, which makes mosquitto save its database. Twice is harmless."""
        self._end(signal.SIGTERM)
        if self._directory:
            self._directory.cleanup()
            self._directory = None

    def kill(self) -> None:
        """SIGKILL: what only the broker held is gone."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stops it if it runs, and starts it again on the same port."""
        self._given_port = self.port
        self._end(signal.SIGTERM)
        self.start()

    def _start(self) -> None:
        self._directory = self._directory or tempfile.TemporaryDirectory(prefix="edgefn-broker-")
        directory = Path(self._directory.name)
        if _accepts(self.host, self.port):
            raise self._in_use()
        command = self._prepare_mosquitto(directory) if self._mosquitto else self._prepare_amqtt(directory)
        with (directory / "log").open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who stop it when those that need it have stopped
                preexec_fn=die_with_parent,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not _accepts(self.host, self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end(signal.SIGKILL)
                said = (directory / "log").read_text(errors="replace").strip()[-2000:]
                if "ddress already in use" in said:
                    raise self._in_use()
                raise BrokerStartError(f"{command[0]} does not start on {self.host}:{self.port}; it said:\n{said}")
            time.sleep(0.01)

    def _in_use(self) -> _PortInUseError:
        return _PortInUseError(
            f"{self.host}:{self.port} is in use by another process; stop it (ss -ltnp 'sport = :{self.port}'), "
            "or choose another port"
        )

    def _prepare_mosquitto(self, directory: Path) -> list[str]:
        lines = [
            f"listener {self.port} {self.host}",
            f"allow_anonymous {'false' if self._passwords else 'true'}",
            "set_tcp_nodelay true",  # else an alert waits up to 40 ms for the acknowledgement of the one before
            "max_inflight_messages 1000",  # 0, no limit, ended fast QoS 1 publishers with 'out of memory' in 2.0.11
            "max_queued_messages 100000",  # past it messages are acknowledged and dropped; the default is 1000
        ]
        if os.geteuid() == 0:
            lines.append("user root")  # else it becomes user mosquitto, who cannot read or write in our directories
        if self._passwords:
            lines.append(f"password_file {self._passwords}")
        if self._persistence:
            self._persistence.mkdir(parents=True, exist_ok=True)
            lines += ["persistence true", f"persistence_location {self._persistence}/"]
        path = directory / "mosquitto.conf"
        path.write_text("\n".join([*lines, *self._config]) + "\n")
        return [str(self._mosquitto), "-c", str(path)]

    def _prepare_amqtt(self, directory: Path) -> list[str]:
        path = directory / "amqtt.yaml"  # JSON is YAML as well
        path.write_text(
            json.dumps(
                {
                    "listeners": {"default": {"type": "tcp", "bind": f"{self.host}:{self.port}"}},
                    "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
                }
            )
        )
        return [sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(path)]

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(how)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            log.warning("the broker on port %d did not stop within %g s: killed", self.port, STOP_TIMEOUT)
            process.kill()
            process.wait()


class _PortInUseError(BrokerStartError):
    pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True
