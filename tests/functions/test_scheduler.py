"""What becomes of an invocation: it is done, tried again, or it ends among the dead letters; in real workers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.functions.helpers import functions

LIGHT = """
from edgefn import on

@on("doors/{room}")
async def light(event, ctx):
    await ctx.publish(f"lights/{event.key.room}/set", {"on": event["open"], "attempt": event.attempt})
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    ctx.forward({"opened": event["open"]})
    return {"count": ctx.state["n"]}
"""


async def test_effects_of_an_invocation_go_where_they_belong(tmp_path: Path) -> None:
    async with functions(tmp_path) as fn:
        fn.write("light.py", LIGHT)
        for _ in range(2):
            fn.invoke("light", b'{"open": true}', captures={"room": "hall"}, key="hall")
            await fn.until(lambda: fn.scheduler.lanes["light"].waiting == 0)
        assert await fn.outcomes("light", 2) == {"done": 2}
        assert fn.out.published == [("lights/hall/set", b'{"on":true,"attempt":1}')] * 2
        assert fn.out.values == [("light", {"count": 1}), ("light", {"count": 2})]
        cut = fn.commit()
        assert [item.payload for item in cut.items] == [b'{"opened":true}'] * 2
        assert [part.owner for part in cut.parts] == ["function light"]
