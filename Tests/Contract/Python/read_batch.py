"""Decode a RecordBatch v2 with kafka-python and print its records as JSON lines."""
import json
import sys

from kafka.record import MemoryRecords

records = MemoryRecords(open(sys.argv[1], "rb").read())
while records.has_next():
    batch = records.next_batch()
    assert batch.validate_crc()
    for record in batch:
        print(json.dumps({
            "offset": record.offset, "timestamp": record.timestamp, "key": record.key and record.key.decode(),
            "value": record.value and record.value.decode(), "headers": [[k, v.decode()] for k, v in record.headers],
        }))
