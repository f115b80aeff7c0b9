"""This machine itself: what it does every ten seconds, without a line of code."""

from edgefn import summarize

machine = summarize(
    "edgefn/+/event/host", "10s", stats=("mean", "max"), fields=("cpu", "memory", "load", "received", "sent")
)
