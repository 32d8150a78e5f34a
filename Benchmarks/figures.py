"""Medians of measured figures beside their goals and peers, one JSON object a line.
usage: figures.py OURS_JSONL PEER_TXT [LIMITS_TXT [PEER_CONSUME_TXT]]"""
import json
import os
import statistics
import sys

measured, units = {}, {}
for line in open(sys.argv[1]):
    row = json.loads(line)
    measured.setdefault(row["name"], []).append(row["value"])
    units[row["name"]] = row["unit"]
peer = [float(line) for line in open(sys.argv[2]) if line.strip() and float(line) > 0]
broker = statistics.median(peer) if peer else None
reads = [float(line) for line in open(sys.argv[4]) if line.strip()] if len(sys.argv) > 4 else []
consumer = statistics.median(reads) if reads else None

# name: (goal, whether less is better, peer, goal as a ratio to the peer)
goals = {
    "log.append.plain": (1_500_000, False, "librdkafka (C) to noida-db, no fsync", 1.8),
    "log.append.plain.stored64k": (1_500_000, False, "librdkafka (C) to noida-db, no fsync", 1.8),
    "log.append.events": (700_000, False, None, None),
    "log.append.single": (60_000, False, None, None),
    "log.append.single.p99": (5, True, None, None),
    "log.append.http": (12_000, False, None, None),
    "kafka.produce": (None, False, "librdkafka (C) to noida-db", 0.9),
    "kafka.consume": (None, False, "librdkafka (C) from noida-db", 0.9),
    "log.scan": (4_000_000, False, None, None),
    "log.open.clean": (1, True, None, None),
    "log.open.killed": (3, True, None, None),
}
for name, values in measured.items():
    value = statistics.median(values)
    row = {"name": name, "value": value, "unit": units[name], "runs": len(values)}
    if name in goals:
        goal, less, what, ratio = goals[name]
        if goal is not None:
            row |= {"goal": goal, "met": value <= goal if less else value >= goal}
        other = consumer if name == "kafka.consume" else broker
        if what and other:
            row |= {"peer": what, "peerValue": other, "ratio": round(value / other, 2), "ratioGoal": ratio,
                    "ratioMet": value / other >= ratio}
    print(json.dumps(row))
if len(sys.argv) > 3 and os.path.exists(sys.argv[3]):
    for line in open(sys.argv[3]):
        print(json.dumps({"name": "limit", "value": line.strip()}))
