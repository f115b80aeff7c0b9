"""What is said of an attempt that failed."""

from __future__ import annotations

from edgefn.functions.failures import MAX_DETAIL, letter, obituary, told
from edgefn.functions.invocation import Invocation
from edgefn.functions.protocol import Outcome
from edgefn.functions.workers import Program, Worker
from edgefn.triggers import Policy

PROGRAM = Program("a.py", "a.py", "1", False, 1)


def test_a_dead_letter_keeps_the_error_and_the_end_of_a_long_traceback() -> None:
    detail = "ValueError: no" + "\nline" * 1000 + "\nlast line"
    kept = letter(Invocation("1", "f", "t", b""), "failed", detail, 5).detail
    assert len(kept) <= MAX_DETAIL
    assert kept.startswith("ValueError: no\n…\n")
    assert kept.endswith("\nlast line")
    assert letter(Invocation("1", "f", "t", b""), "failed", "short", 5).detail == "short"


def test_a_worker_s_end_is_told_as_it_was() -> None:
    assert obituary(Worker(1, PROGRAM, status=-11), "1", 0).error == "its worker died of SIGSEGV while it ran"
    assert obituary(Worker(1, PROGRAM, status=3), "1", 0).error == "its worker ended with status 3 while it ran"
    killed = obituary(Worker(1, PROGRAM, status=-9, cause="timeout", why="it took too long"), "1", 0)
    assert (killed.result, killed.error) == ("timeout", "it took too long")


def test_a_line_of_the_log_names_handler_topic_and_what_comes_next() -> None:
    invocation, outcome = Invocation("1", "f", "a/b", b"", attempt=2), Outcome("1", "failed", "ValueError: no")
    assert told(invocation, outcome, Policy(retries=3), again=True, untold=0) == (
        "f on a/b: ValueError: no (attempt 2 of 4); it is tried again"
    )
    assert told(invocation, outcome, Policy(retries=1), again=False, untold=7) == (
        "f on a/b: ValueError: no (attempt 2 of 2); it goes to the dead letters; "
        "7 more failures since the last one that was told"
    )
