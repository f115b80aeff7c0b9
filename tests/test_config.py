"""edgefn.toml: unknown keys are told, wrong values are fatal, and all of them are told at once."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgefn import config
from edgefn.config import Config, parse_size
from edgefn.drivers import load_driver
from edgefn.errors import ConfigError
from edgefn.resources import bundled
from edgefn.sinks import load_sink
from edgefn.sinks.file import FileOptions
from edgefn.sinks.http import HttpOptions
from edgefn.sinks.mqtt import MqttOptions
from edgefn.uplink import UplinkOptions, split_options

EXAMPLE = bundled("systemd") / config.FILE
SECOND = 1_000_000_000


def read(text: str, folder: Path = Path("/nowhere")) -> Config:
    return config.read(tomllib.loads(text), str(folder / config.FILE))


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


# What holds without a word


def test_an_empty_file_and_no_file_give_the_host_driver_and_no_uplink():
    for settings in (read(""), config.load(None)):
        assert [driver.name for driver in settings.driver] == ["host"]
        assert settings.uplink == ()
        assert settings.warnings == ()
        assert str(settings.address()) == "127.0.0.1:1883"
        assert settings.engine.commit_interval == SECOND


def test_tables_of_streams_are_read_in_their_order():
    table = '[[stream]]\nmatch = "summary/climate*"\npriority = "low"\nttl = "7d"\nquota = "1MB"\non_full = "thin"\n'
    first, second = read(table + '[[stream]]\nmatch = "*"\non_full = ["drop-oldest", "reject"]').stream
    assert (first.match, first.priority, first.ttl, first.quota) == (
        "summary/climate*",
        "low",
        604_800 * SECOND,
        1 << 20,
    )
    assert first.on_full == ("thin", "drop-lowest-priority")
    assert second == config.StreamSettings("*", on_full=config.OnFull(("drop-oldest", "reject")))


def test_an_empty_list_of_drivers_means_none():
    assert read("driver = []").driver == ()


def test_the_id_is_made_from_the_machine_id_and_does_not_tell_it(monkeypatch: pytest.MonkeyPatch):
    machine = "0123456789abcdef0123456789abcdef"
    monkeypatch.setattr(Path, "read_text", lambda self, *_: machine + "\n")
    first = config.gateway_id()
    assert re.fullmatch(r"gw-[0-9a-f]{8}", first)
    assert first == config.gateway_id()
    assert machine[:8] not in first


def test_without_a_machine_id_the_host_name_is_the_id(monkeypatch: pytest.MonkeyPatch):
    def missing(self: Path, *_: Any) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr("socket.gethostname", lambda: "Pump_House.local")
    assert config.gateway_id() == "pump-house-local"


# What is written


def test_durations_and_sizes_are_read_with_their_units():
    settings = read('[engine]\ncommit_interval = "1m30s"\ndeadline = 2.5\nmemory = "1GB"\n[store]\nmax_size = 65536')
    assert settings.engine.commit_interval == 90 * SECOND
    assert settings.engine.deadline == 2.5 * SECOND
    assert settings.engine.memory == 1 << 30
    assert settings.store.max_size == 65536


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *[("1B", 1), ("2kB", 2048), ("64MB", 64 << 20), ("64MiB", 64 << 20), ("1.5G", 3 << 29), (" 1 T ", 1 << 40)],
        *[(7, 7), (0, 0)],
    ],
)
def test_a_size(text: str | int, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("wrong", ["", "MB", "-1MB", "0MB", -5, True, 1.5, None, "10 parsecs", [1]])
def test_what_is_no_size(wrong: object):
    with pytest.raises(ValueError, match="a size is expected, such as '64MB'"):
        parse_size(wrong)


def test_there_may_be_no_budget_of_writes_but_not_a_store_without_room():
    assert read("[store]\ndaily_writes = 0").store.daily_writes == 0
    with pytest.raises(ConfigError, match=r"store.max_size = 0: 64kB or more is allowed"):
        read("[store]\nmax_size = 0")


def test_what_a_driver_or_a_sink_understands_is_passed_on_to_it():
    settings = read(
        '[[driver]]\nname = "attic"\nuse = "climate"\nqos = 0\nrooms = ["attic"]\n'
        '[[uplink]]\nname = "cloud"\nhost = "mqtt.example.com"\noptions = {port = 8883}'
    )
    assert settings.driver[0].use == "climate"
    assert settings.driver[0].qos == 0
    assert settings.driver[0].options == {"rooms": ["attic"]}
    assert settings.uplink[0].type == "mqtt"
    assert settings.uplink[0].options == {"host": "mqtt.example.com", "port": 8883}


def test_relative_paths_begin_at_the_file(tmp_path: Path):
    (tmp_path / "password").write_text("secret\n")
    settings = read(
        '[gateway]\nstate = "state"\nhandlers = "mine"\ndrivers = "/opt/hw"\n'
        '[broker]\nusername = "edgefn"\npassword_file = "password"\ntls = {ca = "ca.pem"}',
        tmp_path,
    )
    assert settings.gateway.state == str(tmp_path / "state")
    assert settings.gateway.handlers == str(tmp_path / "mine")
    assert settings.gateway.drivers == "/opt/hw"
    address = settings.address()
    assert address.password == "secret"
    assert address.tls is not None
    assert (address.tls.ca, address.tls.cert) == (str(tmp_path / "ca.pem"), None)


def test_folders_beside_the_file_are_found_where_they_are(tmp_path: Path):
    assert read("", tmp_path).gateway.handlers == ""
    (tmp_path / "handlers").mkdir()
    (tmp_path / "hw").mkdir()
    settings = read("", tmp_path)
    assert settings.gateway.handlers == str(tmp_path / "handlers")
    assert settings.gateway.drivers == str(tmp_path / "hw")


def test_systemd_says_where_state_and_credentials_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/edgefn:/var/lib/other")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "broker-password").write_text("from systemd")
    settings = read('[broker]\npassword_file = "broker-password"')
    assert settings.gateway.state == "/var/lib/edgefn"
    assert settings.address().password == "from systemd"


def test_a_password_is_not_taken_from_where_the_command_happens_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (tmp_path / "password").write_text("another one's")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"/nowhere/edgefn.toml: broker.password_file = 'password' cannot be read"):
        read('[broker]\npassword_file = "password"').address()


def test_the_cache_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    assert config.cache_folder() == tmp_path / "cache"
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


# What is wrong


def test_an_unknown_key_is_told_with_a_suggestion_and_is_not_fatal():
    settings = read('[engine]\ncomit_interval = "5s"\n[gatway]\nid = "x"')
    assert settings.engine.commit_interval == SECOND
    assert settings.warnings == (
        "/nowhere/edgefn.toml: engine.comit_interval is not a setting and is ignored; did you mean engine.commit_interval?",
        "/nowhere/edgefn.toml: gatway is not a setting and is ignored; did you mean gateway?",
    )


def test_an_unknown_key_that_resembles_nothing_gets_the_list():
    assert (
        read("[monitor]\nx = 1").warnings[0].endswith("monitor.x is not a setting and is ignored; known are interval")
    )


def test_all_that_is_wrong_is_told_at_once():
    said = refused(
        '[gateway]\nid = "Pump House"\n[broker]\nport = 0\nprivate = "sometimes"\n'
        '[engine]\ndeadline = "soon"\n[[driver]]\nuse = "host"\n[[uplink]]\nname = "a/b"'
    ).splitlines()
    assert len(said) == 6
    assert all(line.startswith("/nowhere/edgefn.toml: ") for line in said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[gateway]\nid = "Pump"', "gateway.id = 'Pump': only a-z, 0-9 and - are allowed"),
        ("[broker]\nport = 70000", "broker.port = 70000: a port is between 1 and 65535"),
        ('[broker]\nport = "1883"', "broker.port = '1883': Expected `int`, got `str`"),
        ('[broker]\nprivate = "no"', "broker.private = 'no': .*allowed are 'auto', 'always', 'never'"),
        ("[broker]\ntls = true", r"broker.tls = True: a table is expected, written \[broker.tls\]"),
        ('[engine]\ncommit_interval = "1ms"', "engine.commit_interval = '1ms': between 10ms and 10m is allowed"),
        ('[engine]\ncommit_interval = "1h"', "engine.commit_interval = '1h': between 10ms and 10m is allowed"),
        (
            '[engine]\ncommit_interval = ["1s"]',
            r"engine.commit_interval = \['1s'\]: .*is not a duration; write one such",
        ),
        ('[engine]\ndeadline = "0s"', "engine.deadline = '0s': 10ms or more is allowed"),
        ('[engine]\nmemory = "1kB"', "engine.memory = '1kB': 16MB or more is allowed"),
        ('[store]\nmax_size = "big"', "store.max_size = 'big': a size is expected, such as '64MB' or '1GB'"),
        ('[monitor]\ninterval = "0s"', "monitor.interval = '0s': between 100ms and 1h is allowed"),
        ("[[driver]]\nname = 5", r"driver\[0\].name = 5: Expected `str`"),
        ('[[driver]]\nuse = "host"', r"driver\[0\] has no name; give it one"),
        ('[[driver]]\nname = "a"\nqos = 2', r"driver\[0\].qos = 2: .*allowed are 0, 1"),
        ('[driver]\nname = "a"', r"driver: a list of tables is expected, each written \[\[driver\]\]"),
        ('[[driver]]\nname = "a"\n[[driver]]\nname = "a"', r"two \[\[driver\]\] are called 'a'; give each a name"),
        ('[[uplink]]\nname = "to/cloud"', "uplink name 'to/cloud': letters, digits, - and _ only"),
        ("[[stream]]\npriority = 'low'", r"stream\[0\] has no match; give it one"),
        (
            '[[stream]]\nmatch = "a"\n[[stream]]\nmatch = "a"',
            r"two \[\[stream\]\] match 'a'; give each a match of its own",
        ),
        ('[[stream]]\nmatch = "a"\nquota = "1kB"', r"stream\[0\].quota = '1kB': 4096 bytes or more are allowed"),
        ('[[stream]]\nmatch = "a"\npriority = "urgent"', r"stream\[0\].priority = 'urgent': .*'low', 'normal', 'high'"),
        (
            '[[stream]]\nmatch = "a"\non_full = "drop"',
            r"stream\[0\].on_full = 'drop': 'drop' is not among reject, drop-oldest, drop-lowest-priority, thin",
        ),
        ('[[stream]]\nmatch = "a"\non_full = 3', r"stream\[0\].on_full = 3: a word or a list of words is expected"),
        ("engine = 5", r"engine = 5: a table is expected, written \[engine\]"),
        ("version = 2", "version = 2 is newer than this edgefn, which reads version 1; update edgefn"),
        ('version = "1"', "version = '1': the number of a version is expected, such as 1"),
        ("version = 0", "version = 0: the number of a version is expected, such as 1"),
    ],
)
def test_a_wrong_value_is_named_with_its_file_its_key_and_what_is_allowed(text: str, said: str):
    assert re.search(rf"^/nowhere/edgefn.toml: {said}", refused(text), re.M)


def test_several_entries_without_a_name_are_each_told():
    assert len(refused('[[driver]]\nname = 1\n[[driver]]\nname = 2\n[[driver]]\nname = "a"').splitlines()) == 2


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    file = tmp_path / config.FILE
    with pytest.raises(ConfigError, match=rf"{file}: there is no such file; `edgefn init DIR` makes one"):
        config.load(file)
    file.write_text("[engine\n")
    with pytest.raises(ConfigError, match=rf"{file}: not valid TOML: .*line 1"):
        config.load(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=rf"{file}: cannot be read"):
        config.load(file)


# The annotated example


def everything() -> dict[str, Any]:
    """The example with each of its commented lines in force."""
    lines = EXAMPLE.read_text().splitlines()
    return tomllib.loads("\n".join(re.sub(r"^#(?=\[|\w+ = )", "", line) for line in lines))


def names(struct: type[msgspec.Struct]) -> set[str]:
    return {field.name for field in msgspec.structs.fields(struct)} - {"options"}


def test_the_example_is_read_without_a_warning():
    settings = config.load(EXAMPLE)
    assert settings.warnings == ()
    assert [driver.use or driver.name for driver in settings.driver] == ["host", "climate"]
    assert settings.uplink == ()


def test_the_example_has_every_setting():
    example = everything()
    for name, struct in config._SECTIONS.items():
        assert set(example[name]) == names(struct), name
    assert set(example["broker"]["tls"]) == names(config.TlsSettings)
    assert names(config.DriverSettings) <= {key for entry in example["driver"] for key in entry}
    assert names(config.UplinkSettings) <= {key for entry in example["uplink"] for key in entry}
    assert names(config.StreamSettings) == {key for entry in example["stream"] for key in entry}


def test_what_the_example_shows_as_defaults_are_the_defaults():
    example = everything()
    del example["driver"], example["uplink"], example["stream"], example["broker"]["tls"]
    plain = read("")
    shown = config.read(example, plain.file)
    assert shown.warnings == ()
    for name in config._SECTIONS:
        assert getattr(shown, name) == getattr(plain, name), name


@pytest.mark.parametrize(("type_name", "struct"), [("mqtt", MqttOptions), ("http", HttpOptions), ("file", FileOptions)])
def test_the_example_has_every_option_of_each_sink(type_name: str, struct: type[msgspec.Struct]):
    entry = next(entry for entry in everything()["uplink"] if entry["type"] == type_name)
    options = {key: value for key, value in entry.items() if key not in ("name", "type")}
    _, options = split_options(entry["name"], options)
    assert set(options) == names(struct)
    for field in msgspec.structs.fields(struct):
        if field.default is not msgspec.NODEFAULT and field.default is not None:
            assert options[field.name] == field.default, field.name
    if type_name != "mqtt":  # whose example has both a password and a file of it
        load_sink(type_name, options, gateway="gw")


def test_the_example_has_every_option_of_an_uplink_of_any_type():
    entry = next(entry for entry in everything()["uplink"] if entry["type"] == "mqtt")
    assert names(UplinkOptions) <= set(entry)
    shown, _ = split_options("cloud", entry)
    assert msgspec.structs.replace(shown, max_rate=None, daily_bytes=None) == UplinkOptions()


@pytest.mark.parametrize("name", ["host", "climate", "boiler", "motor", "door", "button"])
def test_the_example_has_every_option_of_each_driver(name: str):
    driver = load_driver(name)
    entry = next(entry for entry in everything()["driver"] if entry.get("use", entry["name"]) == name)
    options = {key: value for key, value in entry.items() if key not in ("name", "use", "qos")}
    assert set(options) == set(driver.parameters())
    checked = driver.check(options)
    for key, parameter in driver.parameters().items():
        if parameter.default is not parameter.empty:
            assert checked[key] == parameter.default, key


def test_the_example_says_something_about_every_setting():
    bare = [line for line in EXAMPLE.read_text().splitlines() if re.match(r"#?\w+ = ", line) and "  # " not in line]
    assert {line.lstrip("#").split(" = ")[0] for line in bare} <= {"name", "use", "type"}
