"""How a sink is found and what is said about wrong options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgefn.errors import ConfigError
from edgefn.sinks import load_sink
from edgefn.sinks.file import FileSink
from edgefn.sinks.mqtt import MqttSink, TopicTemplate
from tests.store.helpers import START


def test_sinks_are_found_by_their_type(tmp_path: Path) -> None:
    assert isinstance(load_sink("file", {"folder": str(tmp_path)}, gateway="gw-1"), FileSink)
    assert isinstance(load_sink("mqtt", {"host": "example.org", "port": 8883, "tls": True}, gateway="gw-1"), MqttSink)


@pytest.mark.parametrize(
    ("type_name", "options", "says"),
    [
        ("pigeon", {}, r"sink type 'pigeon' is not installed; known types: file, http, mqtt"),
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
        ("mqtt", {"host": "x", "password": "a"}, r"a password without a username"),
        ("mqtt", {"host": "x", "username": "a", "password": "a", "password_file": "b"}, r"one of the two is enough"),
        ("mqtt", {"host": "x", "ca": 7}, r"sink mqtt: ca = 7: a path is expected"),
        ("mqtt", {"host": "x", "ca": ""}, r"sink mqtt: ca = '': a path is expected"),
        ("http", {}, r"sink http: the key 'url' is missing"),
        ("http", {"url": "ftp://x/y"}, r"url = 'ftp://x/y': an address such as https://"),
        ("http", {"url": "https:///y"}, r"an address such as https://"),
        ("http", {"url": "https://x:99999/y"}, r"url = 'https://x:99999/y': Port out of range"),
        ("http", {"url": "https://x/a b"}, r"write them as %23, %20"),
        ("http", {"url": "https://me:secret@x/y"}, r"url = 'https://…@x/y': no user and password there"),
        ("http", {"url": "https://x/{stream}"}, r"url = .*: \{stream\} is not known; use \{gateway\}"),
        ("http", {"url": "https://x", "headers": {"a b": "c"}}, r"headers: 'a b' is not the name of a header"),
        ("http", {"url": "https://x", "headers": {"X-Key": "a\nb"}}, r"headers: the value of 'X-Key' has a line break"),
        ("http", {"url": "https://x", "headers": {"Host": "y"}}, r"headers: 'Host' is set by edgefn itself"),
        ("http", {"url": "https://x", "headers": {"X-Key": 12345}}, r"headers.* = \(hidden\): Expected str, got int"),
        ("http", {"url": "https://x", "encoding": "xml"}, r"encoding = 'xml': .*allowed: 'json', 'msgpack'"),
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


def test_relative_paths_begin_at_the_folder_of_the_settings(tmp_path: Path) -> None:
    sink = load_sink("file", {"folder": "out"}, gateway="gw-1", folder=tmp_path)
    assert isinstance(sink, FileSink)
    assert sink._folder == tmp_path / "out"


@pytest.mark.parametrize(
    ("type_name", "options", "says"),
    [
        ("mqtt", {"host": "x", "ca": "/no/such.pem"}, r"tls\.ca = '/no/such\.pem' cannot be read: No such file"),
        (
            "mqtt",
            {"host": "localhost", "username": "a", "password_file": "/no/such"},
            r"password_file = '/no/such' cannot",
        ),
        (
            "http",
            {"url": "https://x", "token_file": "/no/such"},
            r"token_file = '/no/such' cannot be read: No such file",
        ),
        ("http", {"url": "http://127.0.0.1", "token_file": "/dev/null"}, r"token_file = '/dev/null': it is empty"),
        ("http", {"url": "http://127.0.0.1", "ca": "/dev/null"}, r"ca, cert and key are for https:// only"),
        ("http", {"url": "https://x", "key": "/dev/null"}, r"tls\.key = '/dev/null' without tls\.cert"),
        ("file", {"folder": "/dev/null/x"}, r"folder = '/dev/null/x': /dev/null is not a folder"),
    ],
)
async def test_files_that_are_missing_are_told_and_the_sink_can_be_made(
    type_name: str, options: dict[str, object], says: str
) -> None:
    [trouble] = load_sink(type_name, options, gateway="gw-1").check(START)
    assert trouble.fatal
    assert re.search(says, str(trouble))


def test_a_password_in_the_clear_is_a_warning() -> None:
    for type_name, options in (
        ("mqtt", {"host": "x", "username": "a", "password": "b"}),
        ("http", {"url": "http://x", "headers": {"X-Key": "b"}}),
    ):
        [trouble] = load_sink(type_name, options, gateway="gw-1").check(START)
        assert "unencrypted" in str(trouble)
        assert not trouble.fatal


def test_names_in_the_topic() -> None:
    template = TopicTemplate("fleet/{gateway}/{kind}/{handler}/all/{stream}", "gw-1")
    assert template.topic("alert/spike/attic") == "fleet/gw-1/alert/spike/all/alert/spike/attic"
    assert template.topic("status") == "fleet/gw-1/status/status/all/status"
    assert template.topic("summary/a+b#") == "fleet/gw-1/summary/a_b_/all/summary/a_b_"
