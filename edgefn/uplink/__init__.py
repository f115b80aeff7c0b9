"""The way from the outbox to one sink: what goes, in which order, how much of it, and when to try again."""

from edgefn.uplink.options import UplinkOptions, idle_patterns, split_options, wants
from edgefn.uplink.uplink import Uplink

__all__ = ["Uplink", "UplinkOptions", "idle_patterns", "split_options", "wants"]
