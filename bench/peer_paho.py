"""What one would write by hand: paho, json and numpy, one filter and the mean of each second and room.

    python -m bench.peer_paho PORT N

says "ready" when it is subscribed, and after N events how much CPU they took, and how long.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

SECOND = 1_000_000_000


class Program:
    def __init__(self, n: int) -> None:
        self.left = n
        self.windows: dict[str, tuple[int, list[float]]] = {}
        self.means: list[tuple[str, int, float, float]] = []
        self.started = 0.0
        self.used = 0.0
        self.began = 0.0
        self.seconds = 0.0

    def on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        if not self.started:
            self.started, self.began = time.process_time(), time.monotonic()
        event = json.loads(message.payload)
        temperature, humidity = event["temperature"], event["humidity"]
        if -40 < temperature < 85 and 0 <= humidity <= 100:
            room = message.topic.split("/")[1]
            second = event["ts"] // SECOND
            window = self.windows.get(room)
            if window is None or window[0] != second:
                if window is not None:
                    self.close(room, window)
                window = self.windows[room] = second, []
            window[1].append(temperature)
        self.left -= 1
        if not self.left:
            self.used, self.seconds = time.process_time() - self.started, time.monotonic() - self.began
            client.disconnect()

    def close(self, room: str, window: tuple[int, list[float]]) -> None:
        values = np.array(window[1])
        self.means.append((room, window[0], float(values.mean()), float(values.max())))


def main() -> None:
    program = Program(int(sys.argv[2]))
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.on_message = program.on_message
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.connect("127.0.0.1", int(sys.argv[1]))
    client.subscribe("peers/+/climate")
    client.loop_forever()
    print(json.dumps({"cpu": program.used, "seconds": program.seconds, "means": len(program.means)}), flush=True)


if __name__ == "__main__":
    main()
