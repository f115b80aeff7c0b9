"""The demo: a device, a cloud, and a line between them that fails in the middle, all on this machine."""

from edgefn.demo.demo import run

__all__ = ["run"]
