"""The command line: one file a verb."""

from __future__ import annotations

import click

import edgefn
from edgefn.cli.check import check
from edgefn.cli.dead import dead
from edgefn.cli.demo import demo
from edgefn.cli.drill import drill
from edgefn.cli.handlers import handlers
from edgefn.cli.init import init
from edgefn.cli.invoke import invoke
from edgefn.cli.new import new
from edgefn.cli.outbox import outbox
from edgefn.cli.record import record
from edgefn.cli.replay import replay
from edgefn.cli.run import run
from edgefn.cli.store import store
from edgefn.errors import EdgefnError


class _Group(click.Group):
    """Ends with a message and status 2 for what a person can mend, instead of a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except EdgefnError as error:
            for line in str(error).splitlines():
                click.echo(f"edgefn: {line}", err=True)
            ctx.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(edgefn.__version__, prog_name="edgefn")
def main() -> None:
    """Functions on a gateway: drop handler files in a folder, watch them over MQTT, lose nothing.

    \b
    Examples:
      edgefn demo --seconds 30      see it all at work, nothing to set up
      edgefn init my-gateway        a folder with settings and handlers to start from
      edgefn run my-gateway         run it
      edgefn check my-gateway       everything that is wrong with it, at once
      edgefn handlers list my-gateway  what its handlers are doing
      edgefn invoke light.py --event '{"open": true}'    one handler, once
      edgefn store check my-gateway    read all of its store, while it is stopped
    """


for verb in (init, new, check, invoke, record, replay, run, handlers, outbox, dead, drill, store, demo):
    main.add_command(verb)
