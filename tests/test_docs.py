"""What can be used is documented, and what the documents show can be used."""

from __future__ import annotations

import re
from pathlib import Path

import click
import msgspec
import pytest

import edgefn
from edgefn import config, policies, testing
from edgefn.api import STATISTICS
from edgefn.cli import main
from edgefn.engine import frames
from edgefn.gateway.drill import Drill
from edgefn.gateway.handler_commands import HandlerCommands
from edgefn.gateway.operations import Operations
from edgefn.loader import describe
from edgefn.monitor import Topics
from edgefn.options import PRIORITIES
from edgefn.sinks.envelope import _Envelope

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def text(name: str) -> str:
    return (ROOT / name).read_text()


ALL = "\n".join(page.read_text() for page in PAGES)


def python_blocks() -> list[object]:
    found = []
    for page in PAGES:
        for match in re.finditer(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
            line = page.read_text()[: match.start()].count("\n") + 2
            found.append(pytest.param(match[1], id=f"{page.name}:{line}"))
    return found


# What can be used is documented


def test_every_verb_of_the_command_line():
    for name, command in main.commands.items():
        names = [f"{name} {sub}" for sub in command.commands] if isinstance(command, click.Group) else [name]
        for verb in names:
            assert f"edgefn {verb}" in ALL, verb


def test_every_public_name():
    guide = text("docs/guide.md")
    for name in edgefn.__all__:
        assert re.search(rf"\b{name}\(", guide), name
    assert "edgefn.testing" in guide
    assert any(name in guide for name in testing.__all__)


def test_every_option_of_a_handler_and_each_of_its_words():
    guide = text("docs/guide.md")
    for word in ("name", "enabled", "to", "priority", "ttl", "qos", "quota", "on_full", *STATISTICS):
        assert f"`{word}`" in guide, word
    for word in (*PRIORITIES, *policies.WORDS):
        assert f'`"{word}"`' in guide, word


def test_every_kind_of_topic():
    page = text("docs/mqtt.md")
    topics = Topics("gw")
    kinds = [
        name.removeprefix("edgefn/gw/").split("/")[0]
        for name in (
            topics.status,
            topics.info,
            topics.metrics,
            topics.log,
            topics.handler("x"),
            topics.driver("x"),
            topics.summary("x", "k"),
            topics.alert("x", "k"),
            topics.command("x"),
            topics.reply("x"),
            "event",
        )
    ]
    assert len(kinds) >= len(
        [name for name in vars(Topics) if not name.startswith("_") and name not in ("gateway", "root")]
    )
    for kind in kinds:
        assert re.search(rf"^\| `{kind}\b", page, re.M), kind


def test_every_counter():
    page = text("docs/mqtt.md")
    for file in (ROOT / "edgefn").rglob("*.py"):
        for name in re.findall(r"\bcount\(\s*f?\"([a-z][^\"]+)\"", file.read_text()):
            shown = re.sub(r"\{[^}]*\}", "<name>", name)
            assert f"`{shown}" in page, f"{shown} ({file.name})"


def test_every_command():
    page = text("docs/mqtt.md")
    for holder in (HandlerCommands, Operations, Drill):
        for name in holder.verbs.fget(object.__new__(holder)):  # type: ignore[attr-defined]
            assert f"| `{name}` |" in page, name


def test_every_reason_for_which_a_payload_fails():
    page = text("docs/mqtt.md")
    for file in ("edgefn/events.py", "edgefn/engine/decode.py"):
        for reason in re.findall(r"PayloadError\(\s*\"(\w+)\"", text(file)):
            if reason != "not_encodable":  # of what is sent, not of what comes
                assert f"`events.failed.{reason}`" in page, reason


def test_every_reason_for_which_a_connection_is_broken():
    reasons = [reason for reason, _ in frames.MALFORMED.values()]
    for reason in reasons + re.findall(r"_break\(\s*\"(\w+)\"", text("edgefn/engine/session.py")):
        assert f"`session.broken.{reason}`" in text("docs/mqtt.md"), reason


def test_every_section_of_the_settings_and_every_field_of_what_goes_to_the_cloud():
    for section in config._SECTIONS:
        assert f"[{section}]" in text("systemd/edgefn.toml")
    for field in msgspec.structs.fields(_Envelope):
        assert f'"{field.name}":' in text("docs/mqtt.md")


def test_every_package_and_module_is_in_the_architecture():
    page = text("docs/architecture.md") + text("CONTRIBUTING.md")
    small = {"__init__", "__main__", "__pycache__", "_bundled", "broker", "processes", "resources", "watch"}
    for path in (ROOT / "edgefn").iterdir():
        if path.stem not in small and not path.name.startswith("."):
            assert re.search(rf"\b{path.stem}\b", page), path.name


# What the documents show can be used


@pytest.mark.parametrize("source", python_blocks())
def test_python_in_the_documents_can_be_used(source: str):
    compile(source, "<documentation>", "exec")
    if source.startswith('"""'):  # a handler file begins with what passes through it
        assert any(describe(Path("example.py"), source))


def test_the_guide_s_tests_pass_on_the_guide_s_handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    blocks = [block.values[0] for block in python_blocks() if block.id.startswith("guide.md")]  # type: ignore[attr-defined]
    (tmp_path / "rooms.py").write_text(next(block for block in blocks if "def plausible" in block))
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict[str, object] = {}
    exec(next(block for block in blocks if "from rooms import" in block), namespace)
    tests = [value for name, value in namespace.items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()  # type: ignore[operator]


@pytest.mark.parametrize("page", [*PAGES, *DECISIONS], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name)
def test_a_decision_says_what_was_measured_and_what_was_refused(page: Path):
    assert re.match(rf"# {int(page.name[:4])}\. ", page.read_text())
    for part in ("## Context", "## Decision", "## What was measured", "## What was refused"):
        assert part in page.read_text()


def test_decisions_are_numbered_without_a_gap():
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_the_two_commands_of_the_readme_are_in_the_makefile():
    for target in ("demo", "test"):
        assert f"make {target}" in text("README.md")
        assert re.search(rf"^{target}:", text("Makefile"), re.M)


def test_readme_and_architecture_show_the_same_picture():
    def picture(page: str) -> str:
        return next(block for block in page.split("\n\n") if "──MQTT──►" in block)

    assert picture(text("README.md")) == picture(text("docs/architecture.md"))


def test_every_guarantee_names_a_test_that_exists_and_every_fault_is_among_them():
    page = set(re.findall(r"`(test_\w+)`", text("docs/guarantees.md")))
    there, faults = set(), set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        names = set(re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.M))
        there |= names
        if file.parent.name == "faults":
            faults |= names
    assert page - there == set()
    of_the_load_itself = {
        "test_every_event_that_the_filter_lets_pass_is_in_one_window",
        "test_the_load_is_out_of_order_but_never_late",
        "test_the_engine_is_no_larger_after_a_million_events",
    }
    assert faults - page - of_the_load_itself == set()
