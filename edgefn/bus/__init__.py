"""Messages to and from MQTT brokers: the one home of paho-mqtt, joined to asyncio without a thread."""

from edgefn.address import BrokerAddress, TlsFiles
from edgefn.bus.bus import Bus, Subscription
from edgefn.bus.model import Backoff, Message, PublishRefusedError
from edgefn.bus.properties import Properties

__all__ = [
    "Backoff",
    "BrokerAddress",
    "Bus",
    "Message",
    "Properties",
    "PublishRefusedError",
    "Subscription",
    "TlsFiles",
]
