"""The command line as a person meets it: what it prints and the status it ends with."""

from __future__ import annotations

from click.testing import CliRunner, Result

from edgefn.cli import main


def edgefn(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="edgefn")
