"""A light that is on while the door is open: Python, from a sensor to an actuator."""

from edgefn import on

LIGHT = "lights/hall/set"


@on("edgefn/+/event/door", timeout="2s")
async def light(event, ctx):
    await ctx.publish(LIGHT, {"on": event["open"]}, qos=1)
