"""Medians of measured figures beside their goals and peers, one JSON object a line.
usage: figures.py OURS_JSONL [PEER=FILE ...] [limits=FILE]; a peer's file has one number a line"""
import json
import os
import statistics
import sys

measured, units = {}, {}
for line in open(sys.argv[1]):
    row = json.loads(line)
    measured.setdefault(row["name"], []).append(row["value"])
    units[row["name"]] = row["unit"]
files = dict(argument.split("=", 1) for argument in sys.argv[2:])


def peer_value(name):
    if not os.path.exists(files.get(name, "")):
        return None
    values = [float(line) for line in open(files[name]) if line.strip() and float(line) > 0]
    return statistics.median(values) if values else None


# name: (goal, whether less is better, peer's file and name, goal as a ratio to the peer)
producer = ("producer", "librdkafka (C) to noida-db, no fsync")
goals = {
    "log.append.plain": (1_500_000, False, producer, 1.8),
    "log.append.plain.stored64k": (1_500_000, False, producer, 1.8),
    "log.append.events": (700_000, False, None, None),
    "log.append.single": (60_000, False, None, None),
    "log.append.single.p99": (5, True, None, None),
    "log.append.http": (12_000, False, None, None),
    "kafka.produce": (None, False, ("producer", "librdkafka (C) to noida-db"), 0.9),
    "kafka.consume": (None, False, ("consumer", "librdkafka (C) from noida-db"), 0.9),
    "log.scan": (4_000_000, False, None, None),
    "log.open.clean": (1, True, None, None),
    "log.open.killed": (3, True, None, None),
    "json.project": (1_200_000, False, None, None),
    "fold.typed-hour-and-day": (350_000, False, None, None),
    "fold.million-keys": (175_000, False, None, None),
    "checkpoint.million-keys": (5, True, None, None),
    "latency.p50": (5, True, None, None),
    "latency.p99": (25, True, None, None),
    "checkpoint.stall": (100, True, None, None),
    "fold.sliding-hour": (600_000, False, ("bytewax", "Bytewax 0.21"), 5),
    "join.windows": (400_000, False, ("duckdb", "DuckDB, two windows in batch, from columns"), 1.6),
    "join.latest": (5_000_000, False, ("pandas", "pandas merge_asof"), 0.8),
    "dataset.from-log": (120_000, False, None, None),
    "chunk.hash": (0.5, False, None, None),
    "chunk.new-version": (5, True, None, None),
    "view.backfill": (350_000, False, None, None),
    "online.read": (2, True, None, None),
    "online.http": (20_000, False, ("feast", "Feast 0.67 Python server, SQLite"), 50),
    "online.http.p99": (2, True, None, None),
    "online.http.100": (2000, False, None, None),
}
# Further peers of a figure, each a line of its own: (peer's file and name, goal as a ratio to it)
others = {"join.latest": [(("polars", "polars join_asof"), 1)], "fold.sliding-hour": [(("flink", "Apache Flink 2.3, SQL OVER, 2 slots"), 6)]}
for name, values in measured.items():
    value = statistics.median(values)
    for peer, ratio in others.get(name, []):
        other = peer_value(peer[0])
        if other:
            print(json.dumps({
                "name": name, "value": value, "unit": units[name], "runs": len(values), "peer": peer[1], "peerValue": other,
                "ratio": round(value / other, 2), "ratioGoal": ratio, "ratioMet": value / other >= ratio}))
    row = {"name": name, "value": value, "unit": units[name], "runs": len(values)}
    if name in goals:
        goal, less, peer, ratio = goals[name]
        if goal is not None:
            row |= {"goal": goal, "met": value <= goal if less else value >= goal}
        other = peer_value(peer[0]) if peer else None
        if other:
            row |= {"peer": peer[1], "peerValue": other, "ratio": round(value / other, 2), "ratioGoal": ratio,
                    "ratioMet": value / other >= ratio}
    print(json.dumps(row))
if os.path.exists(files.get("limits", "")):
    for line in open(files["limits"]):
        print(json.dumps({"name": "limit", "value": line.strip()}))
