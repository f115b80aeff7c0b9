import inspect

import pytest

from edgefn import errors
from edgefn.errors import EdgefnError, Finding, HandlerError, PayloadError

ERRORS = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, EdgefnError)]


@pytest.mark.parametrize("error", [one for one in ERRORS if one is not EdgefnError])
def test_each_error_has_edgefn_s_base_and_a_natural_one(error: type[EdgefnError]):
    assert any(issubclass(error, natural) for natural in (ValueError, OSError, RuntimeError))
    assert error.__doc__


def test_a_finding_reads_like_a_compiler_s_message():
    finding = Finding("rooms.py", 7, "spike: its state has no type", "annotate it with a dataclass")
    assert str(finding) == "rooms.py:7: spike: its state has no type\n    annotate it with a dataclass"
    assert str(Finding("rooms.py", 0, "not UTF-8")) == "rooms.py: not UTF-8"


def test_all_findings_of_a_file_are_in_the_message():
    error = HandlerError(Finding("a.py", 1, "one"), Finding("a.py", 2, "two"))
    assert str(error) == "a.py:1: one\na.py:2: two"
    assert len(error.findings) == 2


def test_a_payload_error_has_the_name_it_is_counted_under():
    assert PayloadError("bad_json", "line 1").reason == "bad_json"
    assert str(PayloadError("empty")) == "empty"
