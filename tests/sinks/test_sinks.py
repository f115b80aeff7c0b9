"""How a sink is found and what is said about wrong options."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefn.errors import ConfigError
from edgefn.sinks import load_sink
from edgefn.sinks.file import FileSink
from edgefn.sinks.mqtt import MqttSink, TopicTemplate


def test_sinks_are_found_by_their_type(tmp_path: Path) -> None:
    assert isinstance(load_sink("file", {"folder": str(tmp_path)}, gateway="gw-1"), FileSink)
    assert isinstance(load_sink("mqtt", {"host": "example.org", "port": 8883, "tls": True}, gateway="gw-1"), MqttSink)


@pytest.mark.parametrize(
    ("type_name", "options", "says"),
    [
        ("pigeon", {}, r"sink type 'pigeon' is not installed; known types: file, mqtt"),
        ("mqtt", {}, r"sink mqtt: the key 'host' is missing"),
        ("mqtt", {"host": "x", "prot": 1}, r"sink mqtt: unknown key 'prot'; known keys: host, port, username"),
        ("mqtt", {"host": "x", "port": "1883"}, r"sink mqtt: port = '1883': Expected int, got str"),
        ("mqtt", {"host": "x", "port": 70000}, r"sink mqtt: port = 70000: Expected int <= 65535"),
        (
            "mqtt",
            {"host": "x", "protocol": "4"},
            r"sink mqtt: protocol = '4': Invalid enum value '4'; allowed: '3.1.1', '5'",
        ),
        ("mqtt", {"host": "x", "password": 12345}, r"sink mqtt: password = \(hidden\): Expected str \| null"),
        ("mqtt", {"host": "x", "ca": "/no/such.pem"}, r"tls\.ca = '/no/such\.pem'"),
        (
            "mqtt",
            {"host": "x", "topic": "a/{room}"},
            r"topic = 'a/\{room\}': \{room\} is not known; use \{gateway\}, \{stream\}",
        ),
        ("mqtt", {"host": "x", "topic": "a/{stream"}, r"a brace without its partner"),
        ("mqtt", {"host": "x", "topic": "a/#"}, r"topic = 'a/#': .*wildcard"),
        ("file", {"folder": "x", "rotate_bytes": 0}, r"sink file: rotate_bytes = 0: Expected int >= 1"),
    ],
)
def test_wrong_options_are_named(type_name: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_sink(type_name, options, gateway="gw-1")


def test_names_in_the_topic() -> None:
    template = TopicTemplate("fleet/{gateway}/{kind}/{handler}/all/{stream}", "gw-1")
    assert template.topic("alert/spike/attic") == "fleet/gw-1/alert/spike/all/alert/spike/attic"
    assert template.topic("status") == "fleet/gw-1/status/status/all/status"
    assert template.topic("summary/a+b#") == "fleet/gw-1/summary/a_b_/all/summary/a_b_"
