"""Readings that come as files: each row of a CSV file in FOLDER is published. Without that folder nothing happens."""

import csv
from itertools import islice

from edgefn import watch

FOLDER = "/var/lib/edgefn/import"  # make it, and let edgefn read it
TOPIC = "import/readings"
ROWS = 500  # at a time, since one invocation may publish 1,000 messages


@watch(f"{FOLDER}/*.csv", ordered=True)
def csv_import(event, ctx):
    done = event.get("done", 0)
    with open(event["path"], newline="", encoding="utf-8-sig") as file:
        rows = list(islice(csv.DictReader(file), done, done + ROWS))
    for row in rows:
        ctx.publish(TOPIC, {name: number(text) for name, text in row.items() if text}, qos=1)
    if len(rows) == ROWS:
        ctx.invoke(csv_import, {"path": event["path"], "done": done + ROWS})


def number(text):
    try:
        return float(text)
    except ValueError:
        return text
