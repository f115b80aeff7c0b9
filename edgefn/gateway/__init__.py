"""The control plane: supervises the other processes, and owns the store, the uplinks and what is told to people."""

from edgefn.gateway.gateway import Gateway, run

__all__ = ["Gateway", "run"]
