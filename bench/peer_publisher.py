"""A bare paho publisher: N messages at QoS 1 with a window, from memory and with nothing to remember.

python -m bench.peer_publisher PORT N SIZE WINDOW
"""

from __future__ import annotations

import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion


def main() -> None:
    port, n, size, window = map(int, sys.argv[1:])
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(window)
    free = threading.Semaphore(window)
    client.on_publish = lambda *_: free.release()
    client.connect("127.0.0.1", port)
    client.loop_start()
    payload = b"x" * size
    for i in range(n):
        free.acquire()
        client.publish(f"edgefn/bench/summary/h{i % 10}", payload, qos=1)
    for _ in range(window):
        free.acquire()
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
