"""What becomes of a handler file from its first byte to its last: noticed, loaded, gone back from, renamed, removed."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgefn import loader
from edgefn.gateway import loading
from edgefn.gateway.handler_files import HandlerFiles
from edgefn.gateway.loading import Loader, Told
from edgefn.gateway.strikes import STRIKES
from edgefn.gateway.versions import KEPT, VersionError
from edgefn.manifest import Manifest, Progress
from edgefn.testing import ManualClock

LIGHT = """
from edgefn import cron, every, on, system, watch

@on("door/+")
@every("5m")
@cron("0 6 * * *", zone="Europe/Berlin")
@watch("/data/*.csv")
@system("start")
def {name}(event):
    return {value}
"""


class InProcess(Loader):
    """Loads without a process of its own; `meanwhile` happens while it does."""

    def __init__(self, cache: Path) -> None:
        super().__init__(cache)
        self.loaded: list[str] = []
        self.meanwhile = lambda: None
        self._is_prepared = True

    async def load(self, path: Path, told: Told) -> Manifest:
        self.loaded.append(path.name)
        await told(Progress("compiling", 1, 3))
        self.meanwhile()
        return loader.load(path, self._cache)


def prepared(cache: Path) -> Loader:
    """Whose cache need not have the engine's own loops."""
    one = Loader(cache)
    one._is_prepared = one._is_warm = True
    return one


class Gateway:
    """What a gateway does with its handler files; `restart` makes another one of the same folders."""

    def __init__(self, path: Path) -> None:
        self.path = path / "handlers"
        self.state = path / "state"
        self.path.mkdir()
        self.cache = path / "cache"
        self.start()

    def start(self) -> None:
        self.told: dict[str, Any] = {}
        self.history: dict[str, list[Any]] = {}
        self.plans: list[list[str]] = []
        self.clock = ManualClock()
        self.files = HandlerFiles(self.path, self.cache, self._tell, self._changed, state=self.state, clock=self.clock)
        self.loader = self.files._loader = InProcess(self.cache)

    async def restart(self) -> None:
        self.start()
        await self.files.load_all()

    async def _tell(self, name: str, state: Any) -> None:
        self.told[name] = state
        self.history.setdefault(name, []).append(state)

    def _changed(self) -> None:
        self.plans.append(self.running())

    def running(self) -> list[str]:
        return [one.manifest.name for one in self.files.functions()]

    def file(self, name: str = "a.py") -> Path:
        return self.path / name

    async def put(self, name: str = "a.py", function: str = "light", value: object = 1) -> None:
        self.file(name).write_text(LIGHT.format(name=function, value=value))
        await self.files._take([self.file(name)])

    def states(self, name: str) -> list[Any]:
        return [one and one["state"] for one in self.history[name]]


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


async def test_the_states_of_a_file_from_new_to_retired(gateway: Gateway):
    await gateway.put()
    assert gateway.states("a") == ["new", "compiling", "compiling", None]
    assert gateway.history["a"][2] == {"state": "compiling", "done": 1, "of": 3, "file": str(gateway.file())}
    version = gateway.files.functions()[0].version
    assert gateway.told["light"] == {
        "state": "active",
        "kind": "python",
        "triggers": [
            "on door/+", "every 5m", "cron 0 6 * * * Europe/Berlin", "watch /data/*.csv", "system start"
        ],
        "file": str(gateway.file()),
        "version": version,
    }  # fmt: skip
    await gateway.files.tell_all({"light": {"done": 3}})
    assert gateway.told["light"]["meter"] == {"done": 3}
    await gateway.put(value=2)
    newest = [one.get("newest", {}).get("state") for one in gateway.history["light"][1:]]
    assert newest == [None, "new", "compiling", "compiling", None], "the version before stays active meanwhile"
    assert gateway.told["light"]["meter"] == {"done": 3}, "is told until there is a newer one"
    gateway.file().unlink()
    await gateway.files._take([gateway.file()])
    assert gateway.states("light")[-2:] == ["retired", None]
    assert gateway.plans == [["light"], ["light"], []]


async def test_a_file_that_somebody_still_writes_is_not_loaded_and_holds_nobody_up(gateway: Gateway):
    with gateway.file().open("w") as writer:
        writer.write("from edgefn import on\n")
        writer.flush()
        await gateway.put("b.py", "other")
        await gateway.files.load_all()
        assert gateway.told["a"] == {"state": "new", "file": str(gateway.file())}
        assert gateway.running() == ["other"]
        await gateway.files.take_unsettled()
        assert "a.py" not in gateway.loader.loaded
        writer.write(LIGHT.format(name="light", value=1))
    await gateway.files.take_unsettled()
    assert gateway.running() == ["light", "other"]
    assert not gateway.files._unsettled


async def test_the_watch_looks_again_at_a_half_written_file_by_itself(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edgefn.gateway.handler_files.LOOK_AGAIN", 0.01)
    task = asyncio.create_task(gateway.files.watch())
    try:
        with gateway.file().open("w") as writer:
            writer.write(LIGHT.format(name="light", value=1))
            await gateway.files._take([gateway.file()])
            assert gateway.running() == []
        async with asyncio.timeout(20):
            while not gateway.running():
                await asyncio.sleep(0.01)
    finally:
        task.cancel()


async def test_a_renamed_file_keeps_its_handlers_in_the_plan(gateway: Gateway):
    await gateway.put("b.py")
    gateway.file("b.py").rename(gateway.file("a.py"))
    await gateway.files._take([gateway.file("a.py"), gateway.file("b.py")])
    assert gateway.plans == [["light"], ["light"]], "never without it"
    assert gateway.told["light"]["file"] == str(gateway.file("a.py"))
    assert "retired" not in gateway.states("light")


async def test_a_file_renamed_or_removed_while_it_is_read_is_a_message(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
):
    gateway.loader.meanwhile = lambda: gateway.file().unlink()
    await gateway.put()
    assert "a.py was renamed or removed while it was read" in caplog.text
    assert gateway.told == {"a": None}
    assert gateway.running() == []


async def test_a_file_that_changes_while_it_is_loaded_is_loaded_again(gateway: Gateway):
    def change() -> None:
        gateway.loader.meanwhile = lambda: None
        gateway.file().write_text(LIGHT.format(name="light", value=2))

    gateway.file().write_text(LIGHT.format(name="light", value=1))
    text = gateway.file().read_bytes()
    await gateway.files.load_all()
    first = gateway.files.functions()[0].version
    # What the loader has read is not what stood there before: its version is of other bytes.
    gateway.file().write_text(LIGHT.format(name="light", value=3))
    gateway.loader.meanwhile = change
    await gateway.files._take([gateway.file()])
    assert gateway.files.functions()[0].version == first
    await gateway.files.take_unsettled()
    [function] = gateway.files.functions()
    assert function.version != first
    assert function.source.read_bytes() == gateway.file().read_bytes() != text


async def test_what_runs_is_kept_as_source_whatever_becomes_of_the_file(gateway: Gateway):
    await gateway.put()
    [good] = gateway.files.functions()
    assert (good.path, good.source.parent) == (gateway.file(), gateway.state / "versions" / "a")
    assert (good.source.parent.stat().st_mode & 0o777, good.source.stat().st_mode & 0o777) == (0o700, 0o600)
    gateway.file().write_text("nonsense(")
    await gateway.files._take([gateway.file()])
    assert gateway.files.functions() == [good]
    assert gateway.told["light"]["newest"]["state"] == "failed"
    assert "value" not in good.source.read_text()
    await gateway.restart()
    assert gateway.files.functions() == [good], "as it would have without a restart"
    assert gateway.told["light"]["newest"]["state"] == "failed"


async def test_a_rollback_holds_over_restarts_until_the_file_changes(gateway: Gateway):
    versions = []
    for value in range(KEPT + 2):
        await gateway.put(value=value)
        versions.append(gateway.files.functions()[0].version)
    assert len(list((gateway.state / "versions" / "a").glob("*.py"))) == KEPT
    told = await gateway.files.roll_back("light")
    assert told == {"file": str(gateway.file()), "from": versions[-1], "to": versions[-2], "handlers": ["light"]}
    for _ in range(2):
        [function] = gateway.files.functions()
        assert (function.version, function.path) == (versions[-2], gateway.file())
        assert "return 3" in function.source.read_text()
        assert gateway.told["light"]["rolled_back"]
        await gateway.restart()
    await gateway.files.roll_back("a.py")
    assert gateway.files.functions()[0].version == versions[-3]
    with pytest.raises(VersionError, match=r"a\.py: no version before .* is kept"):
        await gateway.files.roll_back("light")
    await gateway.files.roll_back("light", versions[-1][:6])
    assert gateway.files.functions()[0].version == versions[-1]
    assert "rolled_back" not in gateway.told["light"]

    await gateway.files.roll_back("light")
    await gateway.put(value=99)
    assert gateway.files.functions()[0].version not in versions
    await gateway.put(value=KEPT + 1)
    assert gateway.files.functions()[0].version == versions[-1], "also when it is changed back"


async def test_a_rollback_from_a_broken_file(gateway: Gateway):
    await gateway.put(value=1)
    await gateway.put(value=2)
    gateway.file().write_text("nonsense(")
    await gateway.files._take([gateway.file()])
    await gateway.files.roll_back("light")
    assert "return 1" in gateway.files.functions()[0].source.read_text()
    assert "newest" not in gateway.told["light"], "the broken one is not wanted now"


async def test_a_kept_version_that_is_gone_is_told_and_the_file_runs(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
):
    await gateway.put(value=1)
    await gateway.put(value=2)
    await gateway.files.roll_back("light")
    gateway.files.functions()[0].source.unlink()
    await gateway.restart()
    assert "is not there any more; the file runs" in caplog.text
    assert "return 2" in gateway.files.functions()[0].source.read_text()


async def test_pause_and_quarantine_hold_over_restarts_and_both_are_lifted(gateway: Gateway):
    await gateway.put("a.py", "light")
    await gateway.put("b.py", "other")
    await gateway.files.pause("light")
    for _ in range(STRIKES):
        await gateway.files.strike("other", "hung")
    await gateway.restart()
    assert gateway.running() == []
    assert (gateway.told["light"]["state"], gateway.told["other"]["state"]) == ("paused", "quarantined")
    await gateway.files.resume("light")
    await gateway.put("b.py", "other", value=2)
    assert gateway.running() == ["light", "other"]
    await gateway.files.pause("light")
    await gateway.files.resume("light")
    await gateway.restart()
    assert gateway.running() == ["light", "other"]


async def test_strikes_are_forgotten_in_time(gateway: Gateway):
    await gateway.put()
    for _ in range(STRIKES + 2):
        await gateway.files.strike("light", "hung")
        gateway.clock.advance("6m")
    assert gateway.running() == ["light"]


async def test_a_damaged_memory_is_told_and_nothing_else(gateway: Gateway, caplog: pytest.LogCaptureFixture):
    await gateway.put()
    await gateway.files.pause("light")
    (gateway.state / "handlers.json").write_text('{"paused": ["li')
    (gateway.state / "versions" / "a" / "index.json").write_text("[]")
    await gateway.restart()
    assert "handlers.json cannot be used and is left aside" in caplog.text
    assert "index.json cannot be used and is left aside" in caplog.text
    assert gateway.running() == ["light"]
    await gateway.files.pause("light")
    assert json.loads((gateway.state / "handlers.json").read_text()) == {"paused": ["light"], "quarantined": {}}


async def test_a_disk_that_takes_nothing_costs_the_memory_only(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    await gateway.put()
    assert "cannot be kept to go back to it" in caplog.text
    [function] = gateway.files.functions()
    assert function.source == gateway.file(), "there is nothing better"
    await gateway.files.pause("light")
    assert "holds until the next start only" in caplog.text
    assert gateway.running() == []
    assert not list(gateway.state.rglob("*.part"))


async def test_what_went_while_the_gateway_was_off_is_cleared_and_its_versions_are_bounded(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
):
    for n in range(4):
        await gateway.put(f"f{n}.py", f"light{n}")
    for n in range(3):
        gateway.file(f"f{n}.py").unlink()
    monkeypatch.setattr("edgefn.gateway.versions.ORPHANS", 2)
    await gateway.restart()
    assert {name for name, state in gateway.told.items() if state is None} == {"light0", "light1", "light2", "f3"}
    assert sorted(path.name for path in (gateway.state / "versions").iterdir()) == ["f1", "f2", "f3"]


async def test_two_files_that_define_one_name_are_told_by_both_names(gateway: Gateway):
    await gateway.put("a.py")
    await gateway.put("b.py", value=2)
    assert [one.path for one in gateway.files.functions()] == [gateway.file("a.py")]
    told = gateway.told["light-b"]
    assert told["state"] == "failed"
    assert str(gateway.file("a.py")) in told["error"]
    assert str(gateway.file("b.py")) in told["error"]


async def test_a_file_named_like_a_handler_of_another_one(gateway: Gateway):
    await gateway.put("b.py", "a")
    gateway.file("a.py").write_text("nonsense(")
    await gateway.files._take([gateway.file("a.py")])
    assert (gateway.told["a"]["state"], gateway.told["a.py"]["state"]) == ("active", "failed")


# Who could have written it


@pytest.mark.parametrize(
    ("mode", "folder", "why", "mend"),
    [
        (0o646, 0o755, "everybody may write it (owner 0, mode 0646)", "chmod o-w {file}"),
        (0o644, 0o757, "everybody may put files into its folder", "chmod o-w {folder}"),
        (0o644, 0o1757, "", ""),
        (0o664, 0o775, "", ""),
    ],
)
async def test_what_everybody_may_write_is_refused(gateway: Gateway, mode: int, folder: int, why: str, mend: str):
    file = gateway.file("it is.py")
    file.write_text(LIGHT.format(name="light", value=1))
    file.chmod(mode)
    gateway.path.chmod(folder)
    await gateway.files.load_all()
    if not why:
        assert gateway.running() == ["light"]
        return
    assert gateway.running() == []
    error = gateway.told["it is"]["error"]
    assert why.replace("owner 0", f"owner {os.geteuid()}") in error
    assert mend.format(file=f"'{file}'", folder=gateway.path) in error
    file.chmod(0o644)
    gateway.path.chmod(0o755)
    await gateway.files._take([file])
    assert gateway.running() == ["light"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_a_file_of_another_user_is_refused_and_the_version_before_goes_on(gateway: Gateway):
    await gateway.put()
    before = gateway.files.functions()
    gateway.file().write_text(LIGHT.format(name="light", value="evil"))
    os.chown(gateway.file(), 12345, 12345)
    await gateway.files._take([gateway.file()])
    assert gateway.files.functions() == before
    error = gateway.told["light"]["newest"]["error"]
    assert "it belongs to user 12345, who is neither the user of this gateway nor root" in error
    assert f"chown root {gateway.file()}" in error


async def test_what_is_called_like_a_handler_file_and_is_none(gateway: Gateway):
    gateway.file("folder.py").mkdir()
    gateway.file("link.py").symlink_to("nowhere.py")
    os.mkfifo(gateway.file("pipe.py"))
    await gateway.files.load_all()
    assert "it is no file" in gateway.told["folder"]["error"]
    assert "it is no file" in gateway.told["pipe"]["error"]
    assert "cannot be read" in gateway.told["link"]["error"]


# Files that harm the process that loads them

SLOW = "\nfrom edgefn import on\n@on('door')\ndef light(event):\n    return None\n"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import os\nos._exit(0)\n", "it end its process when it is imported?"),
        ("import os\nprint('so long')\nimport sys; sys.stdout.flush()\nos._exit(3)\n", "It printed last: so long"),
        ("import os\nos.kill(os.getpid(), 11)\n", "ended with SIGSEGV"),
        ("raise SystemExit(1)\n", "a handler file is imported, not run"),
        ("while True: pass\n", "it did not load within 3 s; does it loop"),
        ("import subprocess\nsubprocess.Popen(['sleep', '1000'])\nwhile True: pass\n", "it did not load within 3 s"),
        ("while True: print('x' * 1000)\n", "it printed more than 4 MB"),
        ("import os\nwhile True: os.write(3, b'x' * 1000); os.write(4, b'x' * 1000)\n", "between loader and gateway"),
        ("x = bytearray(4 << 30)\n", "MemoryError"),
        ("import os\nos.close(0); os.close(1); os.close(2)\n", ""),
        ("import os\nos.closerange(3, 100)\n", "before it was through"),
        ("import os\nos.write(1, b'fd one')\n", ""),
    ],
)
async def test_what_a_file_does_when_it_is_imported_stays_there(
    tmp_path: Path, source: str, why: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "LOAD_TIMEOUT", 3.0)
    monkeypatch.setattr(loading, "LOAD_TIMEOUT_EACH", 0.0)
    monkeypatch.setattr(loading, "MAX_LINE", 100_000)
    file = tmp_path / "harms.py"
    file.write_text(source + SLOW)
    one = prepared(tmp_path / "cache")
    manifest = await one.load(file, loading._nobody)
    assert manifest.ok != bool(why), manifest
    assert why in " ".join(str(finding) for finding in manifest.findings)


@pytest.mark.parametrize("name", ["json.py", "inspect.py", "msgspec.py"])
async def test_a_file_named_like_a_module_is_nobody_s_module(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / name
    file.write_text("import json\nassert json.dumps([1]) == '[1]'\n" + SLOW)
    monkeypatch.chdir(tmp_path)
    one = prepared(tmp_path / "cache")
    manifest = await one.load(file, loading._nobody)
    assert [function.name for function in manifest.functions] == ["light"], manifest


async def test_what_a_file_has_started_ends_with_its_loader(tmp_path: Path):
    file = tmp_path / "starts.py"
    file.write_text(f"import subprocess\nsubprocess.Popen(['sleep', '{os.getpid()}.5'])\n" + SLOW)
    one = prepared(tmp_path / "cache")
    assert (await one.load(file, loading._nobody)).ok
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in lines if f"{os.getpid()}.5".encode() in line]


async def test_the_loader_tells_how_far_it_is(tmp_path: Path):
    file = tmp_path / "two.py"
    file.write_text(
        "from edgefn import filter, summarize\n"
        "@filter('a')\ndef one(x):\n    return x > 1\n"
        "@filter(one)\ndef two(x):\n    return x > 2\n"
        "three = summarize(two, '1m', fields=('x',), stats=('mean',))\n"
    )
    told: list[Progress] = []

    async def note(progress: Progress) -> None:
        told.append(progress)

    one = prepared(tmp_path / "cache")
    assert (await one.load(file, note)).ok
    assert told == [Progress("compiling", n, 2) for n in range(3)] + [Progress("self-test", 2, 2)]
