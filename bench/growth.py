"""How the cost of an event grows: with handlers on one stream, with keys, and with bytes of payload."""

from __future__ import annotations

from bench import growth_handlers, growth_keys, growth_payloads
from bench.rows import Options, Row


def run(options: Options) -> list[Row]:
    return [*growth_handlers.run(options), *growth_keys.run(options), *growth_payloads.run(options)]
