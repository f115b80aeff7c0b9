"""Another network: a namespace behind a line that loses packets and takes 64 kbit/s, as far as this kernel can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NEAR, FAR = "10.213.77.1", "10.213.77.2"
PORT = 1883

# Classic BPF, since many kernels have no netem: drop (2, TC_ACT_SHOT) where a random word is below the limit, else pass.
_RANDOM = 0xFFFFF038  # SKF_AD_OFF + SKF_AD_RANDOM
_LOSE = "4,32 0 0 {random},53 1 0 {limit},6 0 0 2,6 0 0 0"

# Inside the namespace: what comes by TCP goes on to the broker's Unix socket, which belongs to no network.
_RELAY = """
import asyncio, sys
async def carry(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.transport.abort()
async def take(reader, writer):
    far = await asyncio.open_unix_connection(sys.argv[3])
    await asyncio.gather(carry(reader, far[1]), carry(far[0], writer))
async def main():
    server = await asyncio.start_server(take, sys.argv[1], int(sys.argv[2]))
    print("listening", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


class Network:
    """`degrade` and `heal` the line to what listens at `FAR`."""

    def __init__(self, name: str, near: str, far: str) -> None:
        self._inside = ("ip", "netns", "exec", name)
        self._ends = (((), near), (self._inside, far))

    def degrade(self, *, loss: float, rate: str) -> None:
        """Both ways: so many packets are lost, and `rate` as tc writes it is all there is."""
        lose = _LOSE.format(random=_RANDOM, limit=round(loss * (1 << 32)))
        for where, device in self._ends:
            shape = ("tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", rate, "burst", "4kb")
            _run(*where, *shape, "latency", "400ms")
            _run(*where, "tc", "qdisc", "replace", "dev", device, "ingress")
            _run(
                *where, "tc", "filter", "replace", "dev", device, "ingress", "prio", "1", "bpf", "da", "bytecode", lose
            )

    def heal(self) -> None:
        for where, device in self._ends:
            for which in ("root", "ingress"):
                _run(*where, "tc", "qdisc", "del", "dev", device, which)


@contextmanager
def network(broker_socket: Path) -> Iterator[Network]:
    """A namespace in which the broker of that Unix socket is found at FAR:PORT. Skips where this cannot be had."""
    if os.geteuid() or not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("needs root, ip and tc: network namespaces are made")
    name = f"edgefn-{os.getpid()}"
    near, far = f"ef{os.getpid() % 100000}n", f"ef{os.getpid() % 100000}f"
    one = Network(name, near, far)
    try:
        try:
            _run("ip", "netns", "add", name)
            _run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
            for where, device, address in (((), near, NEAR), (one._inside, far, FAR)):
                _run(*where, "ip", "addr", "add", f"{address}/24", "dev", device)
                _run(*where, "ip", "link", "set", device, "up")
            one.degrade(loss=0.0, rate="64kbit")
            one.heal()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this kernel cannot: {' '.join(error.cmd)}: {error.stderr.strip()}")
        command = [*one._inside, sys.executable, "-c", _RELAY, FAR, str(PORT), str(broker_socket)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as relay:
            try:
                assert relay.stdout is not None
                assert relay.stdout.readline() == b"listening\n"
                yield one
            finally:
                relay.kill()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
