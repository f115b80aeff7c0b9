import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgefn import broker as broker_module
from edgefn.broker import BrokerStartError, PrivateBroker
from tests.broker import make_broker

pytestmark = pytest.mark.integration


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_it_accepts_connections_inside_the_block_and_not_after():
    with make_broker() as broker:
        assert accepts(broker.port)
        assert broker.running
    assert not accepts(broker.port)
    broker.stop()  # twice is harmless


def test_it_comes_back_on_the_same_port(mortal_mosquitto: PrivateBroker):
    port = mortal_mosquitto.port
    for end in (mortal_mosquitto.restart, mortal_mosquitto.kill):
        end()
        mortal_mosquitto.restart()
        assert mortal_mosquitto.port == port
        assert accepts(port)


def test_a_port_in_use_is_named_with_what_to_do():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BrokerStartError, match=rf"127.0.0.1:{port} is in use .* choose another port"):
            make_broker(port=port).start()


def test_a_wrong_configuration_line_is_shown():
    with pytest.raises(BrokerStartError, match="no_such_setting"):
        make_broker(config=["no_such_setting 1"]).start()


def test_without_any_broker_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(broker_module, "find_mosquitto", lambda: None)
    monkeypatch.setattr(broker_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BrokerStartError, match="apt install mosquitto"):
        PrivateBroker()


def test_a_parent_that_is_killed_leaves_no_broker(tmp_path: Path):
    make_broker()  # skips where there is none
    program = (
        "import time\n"
        "from edgefn.broker import PrivateBroker\n"
        "with PrivateBroker() as broker: print(broker.port, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        assert accepts(port)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while accepts(port):
        assert time.monotonic() < deadline, "the broker outlived its parent"
        time.sleep(0.01)
