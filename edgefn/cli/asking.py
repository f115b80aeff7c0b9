"""What verbs that ask a gateway share: their options, who carries out the job, pages of an answer, and the status at the end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgefn.cli import common

if TYPE_CHECKING:
    from edgefn.cli.remote import Operator

T = TypeVar("T")
PAGE = 1000  # rows asked for at once; an answer may have fewer

where = click.argument("where", required=False, type=click.Path(exists=True, path_type=Path))
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
of_ids = click.option(
    "--id", "ids", type=int, multiple=True, help="A dead letter, by its id; may be given several times."
)
of_all = click.option("--all", "every", is_flag=True, help="All dead letters.")
without_asking = click.option("--yes", is_flag=True, help="Do not ask.")


def work(where: Path | None, job: Callable[[Operator], Awaitable[T]]) -> T:
    """Runs the job with whoever can carry it out. Ends with status 1 for what is refused."""
    from edgefn.cli.remote import operator
    from edgefn.gateway.commands import CommandError

    settings = common.load(where)

    async def run() -> T:
        async with operator(settings) as one:
            return await job(one)

    try:
        return asyncio.run(run())
    except CommandError as error:
        click.echo(f"edgefn: {error}", err=True)
        raise SystemExit(common.BAD_INPUT) from None


async def pages(
    operator: Operator, verb: str, kind: str, wanted: Mapping[str, Any], limit: int | None = None, after: int = 0
) -> AsyncIterator[list[dict[str, Any]]]:
    """The rows of an answer that comes in pieces, at most `limit` of them."""
    next_: int | None = after
    while next_ is not None and limit != 0:
        asked = PAGE if limit is None else min(PAGE, limit)
        answer = await operator.ask(verb, {**wanted, "limit": asked, "after": next_})
        yield answer[kind]
        next_ = answer["next"]
        limit = None if limit is None else limit - len(answer[kind])


def rows(
    where: Path | None, verb: str, kind: str, wanted: Mapping[str, Any], limit: int, after: int = 0
) -> list[dict[str, Any]]:
    """All of these pages together."""

    async def job(operator: Operator) -> list[dict[str, Any]]:
        return [row async for page in pages(operator, verb, kind, wanted, limit, after) for row in page]

    return work(where, job)


def letters(ids: tuple[int, ...], every: bool) -> dict[str, Any]:
    """Which dead letters are meant: some or all, and not both."""
    if bool(ids) == every:
        raise click.UsageError("say which dead letters: --id 3 --id 4, or --all")
    return {"all": True} if every else {"ids": ids}


def confirm(question: Callable[[], str]) -> None:
    """Asks a person before something is thrown away for good. Ends where the answer is no, or nobody is there."""
    if not is_terminal():
        raise click.UsageError("nobody is there to be asked; say --yes")
    click.confirm(question(), abort=True)


def is_terminal() -> bool:
    return sys.stdin.isatty()


def end(n: int, what: str, as_json: bool = False) -> None:
    """Tells how many it was; none is status 1."""
    click.echo(f'{{"{what}": {n}}}' if as_json else f"{n} {what}")
    if not n:
        raise SystemExit(common.BAD_INPUT)


def nothing() -> None:
    click.echo("edgefn: nothing matches", err=True)
    raise SystemExit(common.BAD_INPUT)
