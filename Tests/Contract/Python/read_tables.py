"""Reads table.parquet, .arrow, .csv and .jsonl of a folder with pyarrow, duckdb and polars and compares them."""
import csv
import datetime
import json
import math
import sys

import duckdb
import polars
import pyarrow
import pyarrow.parquet

folder = sys.argv[1]
table = pyarrow.parquet.read_table(folder + "/table.parquet")
rows = table.num_rows
assert pyarrow.parquet.read_metadata(folder + "/table.parquet").metadata[b"headrace.dataset"] == b"d@1"
assert [str(field.type) for field in table.schema] == [
    "string", "double", "double", "int64", "string", "bool", "timestamp[ms, tz=UTC]"], table.schema
table.validate(full=True)


def same(name, left, right):
    for row, (a, b) in enumerate(zip(left, right, strict=True)):
        if isinstance(a, float) and isinstance(b, float):
            assert a == b and math.copysign(1, a) == math.copysign(1, b), (name, row, a, b)
        else:
            assert a == b, (name, row, a, b)


arrow = pyarrow.ipc.open_file(folder + "/table.arrow").read_all()
arrow.validate(full=True)
assert arrow.schema.metadata[b"headrace.dataset"] == b"d@1"
assert arrow.schema.types == table.schema.types
duck = duckdb.sql(f"select * from '{folder}/table.parquet'").to_arrow_table()
frames = {"parquet": polars.read_parquet(folder + "/table.parquet"), "arrow": polars.read_ipc(folder + "/table.arrow")}
lines = [json.loads(line) for line in open(folder + "/table.jsonl", encoding="utf-8")]
records = list(csv.DictReader(open(folder + "/table.csv", encoding="utf-8", newline="")))
assert len(lines) == len(records) == rows
for name in table.column_names:
    values = table[name].to_pylist()
    same(name, values, arrow[name].to_pylist())
    same(name, values, duck[name].to_pylist())
    for frame in frames.values():
        same(name, values, frame[name].to_list())
    texts = [line[name] for line in lines]
    fields = [record[name] for record in records]
    if name == "moment":
        parse = lambda text: None if not text else datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        same(name, values, [parse(text) for text in texts])
        same(name, values, [parse(text) for text in fields])
    elif name in ("double", "whole"):
        same(name, values, [None if value is None else float(value) for value in texts])
        same(name, values, [float(field) if field else None for field in fields])
    elif name == "integer":
        same(name, values, texts)
        same(name, values, [int(field) if field else None for field in fields])
    elif name == "flag":
        same(name, values, texts)
        same(name, values, [field == "true" if field else None for field in fields])
    else:
        same(name, values, texts)
        same(name, [value or "" for value in values], fields)
print("same", rows)
