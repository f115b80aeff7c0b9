"""A parameter says where its field stands in the payload, and each mistake in that names file, handler and parameter."""

from __future__ import annotations

import math

import pytest

import edgefn as ef
from edgefn.fields import MAX_LEVELS, MAX_PATH, Field, wrong_path
from edgefn.manifest import HandlerManifest
from tests.test_api import load, refused


def test_a_field_has_its_path_as_its_column():
    handler = load(
        "@ef.filter('a')\n"
        "def f(x, t=ef.field('AM2301.Temperature'), n: int = ef.field('a.b', default=2), r=ef.field('temperature:0')):\n"
        "    return True\n"
    )["f"]
    assert handler.inputs == (
        Field("x"),
        Field("t", path="AM2301.Temperature"),
        Field("n", "int", 2.0, path="a.b"),
        Field("r", path="temperature:0"),
    )
    assert [one.column for one in handler.inputs] == ["x", "AM2301.Temperature", "a.b", "temperature:0"]
    assert HandlerManifest.of(handler).inputs == handler.inputs


def test_an_aggregate_has_fields_without_a_default_and_a_summary_names_paths():
    handlers = load(
        "@ef.aggregate('a', ef.count(2))\ndef g(t=ef.field('x.y')):\n    return t.mean()\n"
        "s = ef.summarize('a', '1m', ('min',), fields=('x.y', 'z'))\n"
    )
    assert [one.column for one in handlers["g"].inputs] == ["x.y"]
    assert [one.column for one in handlers["s"].inputs] == ["x.y", "z"]
    assert [one.name for one in handlers["s"].outputs] == ["x.y_min", "z_min"]


def test_the_function_can_be_called_as_plain_python():
    @ef.filter("a")
    def warm(t=ef.field("AM2301.Temperature"), least=ef.field("x.least", default=20.0)):
        return t > least

    assert warm(21.5)
    assert not warm(19)
    assert not warm(t=21.5, least=30)
    assert math.isnan(ef.field("a"))
    assert repr(ef.field("a.b", default=1)) == "field('a.b', default=1)"
    assert repr(ef.field("a.b")) == "field('a.b')"


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("", "it is empty"),
        (5, "it is no text"),
        (None, "it is no text"),
        ("a..b", "a dot without a name"),
        (".a", "a dot without a name"),
        ("a.", "a dot without a name"),
        (".latest a value", "a dot without a name"),
        ("a\nb", "a character that cannot be printed"),
        ("\ud800", "a character that cannot be printed"),
        (".".join("a" * (MAX_LEVELS + 1)), f"it has {MAX_LEVELS + 1} levels, and {MAX_LEVELS} are possible"),
        ("a" * (MAX_PATH + 1), f"it has {MAX_PATH + 1} characters, and {MAX_PATH} are possible"),
    ],
)
def test_a_path_that_cannot_be_one_says_what_is_wrong_and_what_to_write(path: object, wrong: str):
    assert wrong in wrong_path(path)
    said = refused(f"@ef.filter('a')\ndef f(x, t=ef.field({path!r})):\n    return True\n")
    assert said.startswith("rooms.py:7: f: parameter t: field(): its path ")
    assert wrong in said
    assert 'a dot between two levels: "AM2301.Temperature"' in said.splitlines()[1]
    assert len(said) < 300
    said = refused(f"@ef.filter('a')\ndef f(x, t=ef.latest('b', {path!r})):\n    return True\n")
    assert said.startswith("rooms.py:7: f: parameter t: latest(): its field ")
    assert wrong in said
    if isinstance(path, str):
        said = refused(f"s = ef.summarize('a', '1m', fields={path!r}, name='s')\n")
        assert said.startswith("rooms.py:7: s: fields: ")
        assert wrong in said


@pytest.mark.parametrize(
    "path",
    ["a", "temperature:0", "Living Room.T", "a" * MAX_PATH, ".".join("a" * MAX_LEVELS), "Größe.°C", "a,b|c", "0.1"],
)
def test_what_a_path_may_be(path: str):
    assert wrong_path(path) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(t=ef.field('a', default='warm')):", "f: the default of t is not a number"),
        ("def f(t: str = ef.field('a')):", "f: parameter t is annotated str"),
        ("def f(x, ts=ef.field('Time')):", "f: parameter ts is not a field"),
        ("def f(x, key=ef.latest('b')):", "f: parameter key is not a field"),
        ("def f(t=ef.field):", "f: parameter t: this field has no path"),
    ],
)
def test_other_mistakes_with_fields(text: str, said: str):
    assert refused(f"@ef.filter('a')\n{text}\n    return True\n").startswith(f"rooms.py:7: {said}")


def test_an_aggregate_has_no_field_with_a_default():
    said = refused("@ef.aggregate('a', ef.count(2))\ndef g(t=ef.field('a.b', default=0)):\n    return t.mean()\n")
    assert said.startswith("rooms.py:7: g: parameter t has a default, which an array of samples cannot use")


def test_the_field_of_dataclasses_is_no_field_of_a_payload():
    said = refused(
        "from dataclasses import field\n@ef.filter('a')\ndef f(x, *, t=field('AM2301.Temperature')):\n    return True\n"
    )
    assert said.startswith("rooms.py:9: f: parameter t: this field is the one of dataclasses\n    import edgefn's")
    said = refused("import dataclasses\n@ef.filter('a')\ndef f(t=dataclasses.field(default=1.0)):\n    return True\n")
    assert said.startswith("rooms.py:8: f: parameter t: this field is the one of dataclasses\n    write `from edgefn")


def test_edgefn_s_field_makes_no_state():
    said = refused(
        "from dataclasses import field\nfrom edgefn import field\n"
        "@dataclass\nclass Memory:\n    parts: Row = field(default_factory=Row)\n"
        "@ef.filter('a')\ndef f(x, state: Memory):\n    return True\n"
    )
    assert said.startswith("rooms.py:11: Memory.parts: this field is edgefn's")
    assert "dataclasses.field(" in said


def test_the_two_fields_live_side_by_side_under_names_of_their_own():
    handlers = load(
        "import dataclasses\nfrom edgefn import field\n"
        "@dataclass\nclass Memory:\n    n: float = dataclasses.field(default=0.0)\n"
        "@ef.filter('a')\ndef f(x=field('a.b'), *, state: Memory):\n    return True\n"
    )
    assert handlers["f"].inputs == (Field("x", path="a.b"),)


def test_what_a_handler_puts_out_is_taken_under_another_name():
    text = (
        "@ef.transform('a')\ndef t(x=ef.field('a.b')) -> Row:\n    return Row(x, 1)\n"
        "@ef.filter(t)\ndef f(level=ef.field({!r})):\n    return level > 0\n"
    )
    assert load(text.format("mean"))["f"].inputs == (Field("level", path="mean"),)
    said = refused(text.format("meen"))
    assert said.startswith("rooms.py:10: f: its source t puts out mean, n, and no meen\n    did you mean mean?")


def test_fields_of_one_source_are_counted_by_their_columns():
    """Several parameters may be of one field."""
    text = "".join(
        f"@ef.filter('a')\ndef f{i}({', '.join(f'p{i}_{j}=ef.field({chr(39)}a.b{j}{chr(39)})' for j in range(40))}):\n"
        "    return True\n"
        for i in range(2)
    )
    assert len(load(text)) == 2
