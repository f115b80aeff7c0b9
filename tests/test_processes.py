"""A child ends with its parent, however the parent ends."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys

import pytest

CHILD = "import signal, sys; from edgefn.processes import die_with_parent; die_with_parent(signal.{how}); {then}"
PARENT = """
import subprocess, sys, os
child = subprocess.Popen([sys.executable, "-c", {child!r}], pass_fds=[{fd}], stdout=subprocess.PIPE)
child.stdout.read(1)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_a_child_dies_with_a_parent_that_is_killed(how: str) -> None:
    reading, writing = os.pipe()
    child = CHILD.format(how=how, then="print('x', flush=True); signal.pause()")
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(child=child, fd=writing)], pass_fds=[writing])
    os.close(writing)
    assert parent.wait(30) == -signal.SIGKILL
    # The pipe ends when the last process that holds its other end, the child, has gone.
    assert select.select([reading], [], [], 30)[0]
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_a_child_whose_parent_lives_goes_on() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD.format(how="SIGTERM", then="sys.exit(5)")], timeout=30)
    assert done.returncode == 5


def test_records_are_one_line_each_on_stderr() -> None:
    code = "import logging; from edgefn import processes; processes.log_to_stderr(); logging.getLogger('edgefn.x').warning('y')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert done.stdout == b""
    assert re.fullmatch(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING edgefn.x: y\n", done.stderr)
