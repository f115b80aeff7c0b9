"""What is told about the gateway over local MQTT, everything below edgefn/<gateway>/."""

from edgefn.monitor.monitor import Monitor
from edgefn.monitor.topics import Topics

__all__ = ["Monitor", "Topics"]
