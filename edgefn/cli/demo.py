"""edgefn demo: the whole way on this machine, with a cloud that cannot be reached in the middle."""

from __future__ import annotations

import asyncio

import click


@click.command(epilog="Example: edgefn demo --seconds 30")
@click.option("--seconds", type=click.FloatRange(min=3), help="How long it runs; without it, until Ctrl-C.")
def demo(seconds: float | None) -> None:
    """Run sensors, a gateway and a cloud on this machine, cut the line in the middle, and count what arrives.

    Needs nothing but mosquitto (or the extra edgefn[broker]), and leaves nothing behind. Exit status 1 where anything was lost.
    """
    from edgefn import demo as show

    raise SystemExit(asyncio.run(show.run(seconds)))
