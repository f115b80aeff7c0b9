"""The door's day: every morning at six one row for the cloud, of what was counted since the last."""

from edgefn import cron, on


@on("edgefn/+/event/door")
@cron("0 6 * * *", catch_up=True)  # by the clock of this machine; made up for once, if it was off at six
def report(event, ctx):
    if "open" in event:
        day = "openings" if event["open"] else "closings"
        ctx.state[day] = ctx.state.get(day, 0) + 1  # survives restarts
    else:
        ctx.forward({"openings": ctx.state.get("openings", 0), "closings": ctx.state.get("closings", 0)})
        ctx.state.clear()
