"""Compare question events (JSON lines of their data on standard input) with the oracle's CSV, float32 for float32."""
import csv
import json
import struct
import sys

with open(sys.argv[1]) as f:
    reader = csv.reader(f)
    names = next(reader)[2:]
    oracle = {row[0]: row for row in reader}
categories = {names.index(c) for c in ("carrier", "origin", "dest")}
codes = [{} for _ in names]
bits = lambda x: struct.pack("f", float(x))
compared = different = 0
for line in sys.stdin:
    data = json.loads(line)
    flight, origin, at = data["id"].split("-", 2)
    row = oracle.pop(f"{flight}-{origin}-{at[:16].translate(str.maketrans('', '', '-T:'))}")
    compared += 1
    wrong = [] if row[1] == data["askedAt"] else ["time"]
    for index, (name, want, got) in enumerate(zip(names, row[2:], data["vector"], strict=True)):
        if index in categories:
            if codes[index].setdefault(want, got) != got:
                wrong.append(name)
        elif (want == "") != (got is None) or (want != "" and bits(want) != bits(got)):
            wrong.append(name)
    different += bool(wrong)
    if wrong and different < 10:
        print(data["id"], wrong, file=sys.stderr)
bijective = all(len(set(codes[i].values())) == len(codes[i]) for i in categories)
print(json.dumps({"compared": compared, "different": different, "missing": len(oracle), "bijective": bijective}))
