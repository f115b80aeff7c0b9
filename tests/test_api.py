"""What the decorators take, what they make of it, and how each complaint names file, line, handler and what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import edgefn as ef
from edgefn.api import ATTRIBUTE, Handler, is_percentile
from edgefn.errors import HandlerError
from edgefn.fields import Field
from edgefn.loader import describe
from edgefn.topics import Pattern

PREAMBLE = (
    "from dataclasses import dataclass\n"
    "from typing import NamedTuple\n"
    "import edgefn as ef\n"
    "class Row(NamedTuple):\n"
    "    mean: float\n"
    "    n: int\n"
)


def load(text: str) -> dict[str, Handler]:
    """The handlers of a file of this text, by name. Its first line is line 7."""
    return {handler.name: handler for handler in describe(Path("rooms.py"), PREAMBLE + text)[0]}


def refused(text: str) -> str:
    with pytest.raises(HandlerError) as caught:
        load(text)
    return str(caught.value)


# What is made of a function


def test_the_function_stays_what_it_was():
    @ef.filter("sensors/{room}/climate")
    def plausible(temperature):
        return -40 < temperature < 85

    assert plausible(20) is True
    assert getattr(plausible, ATTRIBUTE).source == Pattern("sensors/{room}/climate")


def test_parameters_are_the_fields_and_three_names_are_reserved():
    handler = load(
        "@dataclass\nclass Memory:\n    n: int = 0\n"
        "@ef.transform('a')\ndef t(x, n: int, on: bool, gain=2, ts=0, key=0, *, state: Memory):\n    return x\n"
    )["t"]
    assert handler.inputs == (Field("x"), Field("n", "int"), Field("on", "bool"), Field("gain", "float", 2.0))
    assert handler.uses == {"ts", "key", "state"}
    assert handler.parameters == ("x", "n", "on", "gain", "ts", "key", "state")
    assert handler.state is not None
    assert handler.state.__name__ == "Memory"


def test_outputs_are_the_values_of_a_named_tuple_or_one_called_value():
    handlers = load(
        "@ef.transform('a')\ndef one(x):\n    return x\n"
        "@ef.transform('a')\ndef whole(x) -> int:\n    return x\n"
        "@ef.aggregate(one, ef.tumbling('1s'))\ndef several(value) -> Row:\n    return Row(value.mean(), value.size)\n"
    )
    assert handlers["one"].outputs == (Field("value"),)
    assert handlers["whole"].outputs == (Field("value", "int"),)
    assert handlers["several"].outputs == (Field("mean"), Field("n", "int"))
    assert handlers["several"].source == "one"


def test_annotations_may_be_texts():
    text = (
        "from __future__ import annotations\n" + PREAMBLE + "@ef.transform('a')\ndef t(n: int) -> Row:\n    return 0\n"
    )
    (handler,) = describe(Path("rooms.py"), text)[0]
    assert handler.inputs == (Field("n", "int"),)
    assert [field.name for field in handler.outputs] == ["mean", "n"]


def test_each_kind_goes_where_its_results_are_wanted():
    handlers = load(
        "@ef.filter('a')\ndef f(x):\n    return True\n"
        "@ef.transform('a')\ndef t(x):\n    return x\n"
        "@ef.aggregate('a', ef.count(2))\ndef g(x):\n    return x.mean()\n"
        "@ef.anomaly('a', threshold=3)\ndef d(x):\n    return x\n"
        "s = ef.summarize('a', '1m', fields='x')\n"
    )
    assert {name: handler.options.to for name, handler in handlers.items()} == {
        "f": (),
        "t": (),
        "g": ("local", "uplink"),
        "d": ("local", "uplink"),
        "s": ("local", "uplink"),
    }
    assert handlers["d"].options.priority > handlers["g"].options.priority
    assert (handlers["d"].threshold, handlers["d"].clear) == (3.0, 3.0)


def test_options_are_read():
    handler = load(
        "@ef.aggregate('a', ef.tumbling('1m'), name='x-1', to=['local', 'lights/x'], priority='low', ttl='1h', qos=1,"
        " enabled=False)\ndef g(x):\n    return 0.0\n"
    )["x-1"]
    assert handler.options.to == ("local", "lights/x")
    assert (handler.options.priority, handler.options.ttl) == (0, 3600 * 10**9)
    assert (handler.options.qos, handler.options.enabled) == (1, False)


def test_a_summary_without_code_names_its_values():
    handlers = load(
        "@ef.transform('a')\ndef t(x) -> Row:\n    return Row(x, 1)\n"
        "one = ef.summarize('a', '1m', ('mean', 'p95', 'n'), fields='x')\n"
        "two = ef.summarize('a', ef.count(5), ('min',), fields=('x', 'y'))\n"
        "of_handler = ef.summarize(t, '1m', ('max',))\n"
    )
    assert handlers["one"].outputs == (Field("mean"), Field("p95"), Field("n", "int"))
    assert [field.name for field in handlers["two"].outputs] == ["x_min", "y_min"]
    assert [field.name for field in handlers["of_handler"].outputs] == ["mean_max", "n_max"]


@pytest.mark.parametrize(
    ("stat", "whether"), [("p1", True), ("p99", True), ("p0", False), ("p100", False), ("px", False)]
)
def test_what_a_percentile_is(stat: str, whether: bool):
    assert is_percentile(stat) is whether


def test_handlers_come_in_the_order_of_their_lines():
    text = "b = ef.summarize('a', '1m', fields='x')\n@ef.filter('a')\ndef a(x):\n    return True\n"
    assert list(load(text)) == ["b", "a"]


# What is wrong. Each message: file, line, handler, and what to write instead


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@ef.filter('a/#/b')\ndef f(x):\n    return True\n", "f: pattern 'a/#/b': # can only be the last level"),
        ("def g(x): ...\n@ef.filter(g)\ndef f(x):\n    return True\n", "f: its source g is not a handler"),
        ("@ef.filter(5)\ndef f(x):\n    return True\n", "f: its source 5 is not a handler"),
        ("@ef.filter('a')\ndef f():\n    return True\n", "f: it takes no field"),
        (
            "@ef.filter('a')\ndef f(*x):\n    return True\n",
            "f: parameter *x: the fields that a handler takes are named",
        ),
        (
            "@ef.filter('a')\ndef f(x: str):\n    return True\n",
            "f: parameter x is annotated str, and compiled handlers",
        ),
        ("@ef.filter('a')\ndef f(x='warm'):\n    return True\n", "f: the default of x is not a number"),
        ("@ef.filter('a')\nasync def f(x):\n    return True\n", "f: a compiled handler is a plain function"),
        ("@ef.filter('a')\ndef f(x):\n    yield True\n", "f: a compiled handler is a plain function"),
        ("@ef.filter('a')\ndef f(x, state):\n    return True\n", "f: its state has no type"),
        ("@ef.filter('a')\ndef f(x, state: 'Rom'):\n    return True\n", "f: an annotation: name 'Rom' is not defined"),
        ("@ef.filter('a', name='x y')\ndef f(x):\n    return True\n", "f: name 'x y'"),
        ("@ef.transform('a')\ndef t(x) -> str:\n    return ''\n", "t: its result is annotated str"),
        ("@ef.transform('a', to='a/+')\ndef t(x):\n    return x\n", "t: to='a/+': topic 'a/+' contains a wildcard"),
        ("@ef.transform('a', priority='urgent')\ndef t(x):\n    return x\n", "t: priority='urgent'"),
        ("@ef.transform('a', qos=2)\ndef t(x):\n    return x\n", "t: qos=2"),
        ("@ef.transform('a', ttl='soon')\ndef t(x):\n    return x\n", "t: ttl: 'soon' is not a duration"),
        ("@ef.aggregate('a', '1m')\ndef g(x):\n    return 0.0\n", "g: its window is '1m'"),
        ("@ef.aggregate('a', ef.count(2))\ndef g(x=1):\n    return 0.0\n", "g: parameter x has a default"),
        ("@ef.anomaly('a', threshold=1, clear=2)\ndef d(x):\n    return x\n", "d: clear=2 is above threshold=1"),
        ("s = ef.summarize('a', '1m')\n", "summarize: it does not know what to summarise"),
        ("s = ef.summarize('a', '1m', ('avg',), fields='x', name='s')\n", "s: unknown statistic 'avg'"),
        ("@ef.transform('a', quota='1kB')\ndef t(x):\n    return x\n", "t: quota='1kB'"),
        ("@ef.transform('a', quota='much')\ndef t(x):\n    return x\n", "t: quota='much': a size is expected"),
        ("@ef.transform('a', on_full='drop')\ndef t(x):\n    return x\n", "t: on_full: 'drop' is not among reject"),
        ("@ef.transform('a', on_full=())\ndef t(x):\n    return x\n", "t: on_full: it is empty"),
        ("@ef.transform('a', on_full='thin')\ndef t(x):\n    return x\n", 't: on_full="thin" merges rows'),
        (
            "s = ef.summarize('a', ef.hopping('2m', '1m'), fields='x', name='s', on_full='thin')\n",
            's: on_full="thin" merges rows of neighbouring windows, and these cannot be merged',
        ),
        (
            "s = ef.summarize('a', ef.tumbling('1m', lateness='1m', revise=True), fields='x', name='s', on_full='thin')\n",
            's: on_full="thin" merges rows',
        ),
        ("s = ef.summarize('a', ef.count(5), fields='x', name='s', on_full='thin')\n", 's: on_full="thin" merges rows'),
    ],
)
def test_a_handler_that_cannot_be_used_says_why_and_what_to_write(text: str, said: str):
    found = refused(text)
    line = 6 + next(n for n, one in enumerate(text.splitlines(), 1) if "ef." in one)
    assert found.startswith(f"rooms.py:{line}: {said}")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("@ef.filter('a')\ndef f():\n    return True\n", "def handler(temperature)"),
        ("@ef.filter('a')\ndef f(x, state):\n    return True\n", "annotate it with a dataclass"),
        ("@ef.transform('a', priority='urgent')\ndef t(x):\n    return x\n", "low, normal, high"),
        ("@ef.aggregate('a', '1m')\ndef g(x):\n    return 0.0\n", 'tumbling("1m")'),
        ("@ef.transform('a') \ndef t(x) -> str:\n    return ''\n", "class Row(NamedTuple)"),
        ("s = ef.summarize('a', '1m', ('avg',), fields='x')\n", "n, mean, min, max"),
    ],
)
def test_the_second_line_is_what_to_write(text: str, hint: str):
    assert hint in refused(text).splitlines()[1]


def test_what_is_given_up_is_said_with_a_word_or_several_and_thin_is_followed_by_the_lowest_priority():
    def options(**given: Any) -> Any:
        return ef.summarize("a", "1m", fields="x", **given).options

    assert (options().quota, options().on_full) == (None, ("drop-lowest-priority",))
    assert options(quota="10MB", on_full="thin").on_full == ("thin", "drop-lowest-priority")
    assert options(quota="10MB").quota == 10 << 20
    assert options(on_full=["thin", "drop-oldest"]).on_full == ("thin", "drop-oldest")


def test_a_source_of_another_file_is_refused():
    @ef.filter("a")
    def elsewhere(x):
        return True

    code = compile("@ef.filter(elsewhere)\ndef f(x):\n    return True\n", "rooms.py", "exec")
    namespace: dict[str, Any] = {"elsewhere": elsewhere, "ef": ef}
    with pytest.raises(
        HandlerError, match=r"rooms.py:1: f: its source elsewhere stands in another file\n.*publish to a topic"
    ):
        exec(code, namespace)


def test_what_is_no_function_is_refused():
    class Callable:
        def __call__(self, x: float) -> bool:
            return True

    with pytest.raises(TypeError, match="put the decorator on a plain `def`"):
        ef.filter("a")(Callable())


def test_a_file_without_a_handler_and_one_with_two_of_a_name_are_refused():
    assert "no handler in this file\n    put a decorator on a function, such as @filter" in refused("x = 1\n")
    twice = "@ef.filter('a')\ndef f(x):\n    return True\n@ef.filter('b', name='f')\ndef g(x):\n    return True\n"
    assert "f: defined twice in this file" in refused(twice)


def test_names_and_state_that_do_not_exist_are_found_before_numba_is_asked():
    said = refused(
        "@dataclass\nclass Memory:\n    mean: float = 0.0\n"
        "@ef.anomaly('a', threshold=3)\ndef d(x, state: Memory) -> float:\n"
        "    state.meen += x\n    return abs(y)\n"
    )
    assert "rooms.py:12: d: state.meen does not exist; Memory has mean\n    did you mean mean?" in said
    assert "rooms.py:13: d: the name 'y' is not defined" in said
