"""Other brokers than mosquitto, started where they are installed: what the engine's session is tried against."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

START_TIMEOUT = 60.0  # seconds; Erlang is slow to start on a busy machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _running(command: list[str], folder: Path, port: int, env: dict[str, str] | None = None) -> Iterator[int]:
    """The process, in a group of its own, until the block ends; entered when it accepts connections on the port."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **(env or {})}, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                said = (folder / "log").read_text(errors="replace")[-2000:]
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.05)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def nats(folder: Path) -> Iterator[int]:
    server = shutil.which("nats-server", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if server is None:
        pytest.skip("needs NATS: sudo apt install nats-server")
    port = free_port()
    config = folder / "nats.conf"
    config.write_text(
        f'server_name: edgefn\nlisten: "127.0.0.1:{free_port()}"\njetstream {{ store_dir: "{folder}/data" }}\n'
        f'mqtt {{ listen: "127.0.0.1:{port}", ack_wait: "1s" }}\n'
    )
    with _running([server, "-c", str(config)], folder, port):
        yield port


@contextmanager
def rabbitmq(folder: Path) -> Iterator[int]:
    server = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    epmd = shutil.which("epmd")
    if not server.exists() or epmd is None:
        pytest.skip("needs RabbitMQ: sudo apt install rabbitmq-server")
    port, names = free_port(), free_port()
    (folder / "plugins").write_text("[rabbitmq_mqtt].\n")
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{free_port()}\nmqtt.listeners.tcp.1 = 127.0.0.1:{port}\n"
        "mqtt.allow_anonymous = true\n"
    )
    env = {
        "RABBITMQ_NODENAME": f"edgefn{port}@localhost",
        "RABBITMQ_MNESIA_BASE": f"{folder}/data",
        "RABBITMQ_LOG_BASE": f"{folder}/logs",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
        "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "HOME": str(folder),
    }
    try:
        with _running([str(server)], folder, port, env):
            yield port
    finally:
        subprocess.run([epmd, "-port", str(names), "-kill"], capture_output=True, check=False)


@contextmanager
def amqtt(folder: Path) -> Iterator[int]:
    if importlib.util.find_spec("amqtt") is None:
        pytest.skip("needs amqtt: pip install 'edgefn[broker]'")
    port = free_port()
    config = folder / "amqtt.yaml"
    config.write_text(
        f"listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{port}\n"
        "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n    allow_anonymous: true\n"
    )
    with _running([sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(config)], folder, port):
        yield port
