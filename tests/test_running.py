"""What the engine runs is seen from outside, also while it hangs and after it has died."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from edgefn.running import Watch


def test_nothing_runs_at_first_and_after_leaving() -> None:
    watch = Watch.create()
    assert watch.running() == (0, 0)
    watch.enter(7)
    watch.leave()
    assert watch.running() == (0, 0)
    watch.close()


def test_another_process_sees_which_one_and_since_when() -> None:
    watch = Watch.create()
    before = time.monotonic_ns()
    code = f"import os; from edgefn.running import Watch; Watch({watch.fd}).enter(3); os._exit(1)"
    subprocess.run([sys.executable, "-c", code], pass_fds=[watch.fd], timeout=30)
    number, since = watch.running()
    assert number == 3
    assert before < since < time.monotonic_ns()
    watch.close()


def test_closing_twice_is_harmless_and_frees_the_descriptor() -> None:
    watch = Watch.create()
    watch.close()
    free = os.open(os.devnull, os.O_RDONLY)  # takes the number that was freed
    watch.close()
    os.fstat(free)
    os.close(free)
