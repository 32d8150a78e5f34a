#!/usr/bin/env python3
"""A door in front of noida-db 0.2.3 that tells readers of aborted transactions as Apache Kafka does.

usage: exact_kafka_proxy.py --upstream HOST:PORT

noida-db names all aborted transactions of a partition in every answer to a fetch, also those that ended before the offset
that was asked for. A client takes such a one for open, and drops what the same producer committed since. Kafka names those
whose marker stands at or behind that offset (LogSegment.collectAbortedTxns); so does this door, and changes nothing else.

Listens on a free port of 127.0.0.1 and says `ready PORT`; ends on SIGTERM.
"""
import argparse
import contextlib
import os
import signal
import socket
import struct
import threading

from tls_kafka_proxy import PATIENCE, PENDING_LIMIT, Channel, Connection, Fields, Refused, reporting, with_address

FETCH = 1
# Versions that are neither too old to know transactions nor flexible.
VERSIONS = range(4, 12)
SCAN_BYTES = 4 << 20


def asked(request, version):
    """By topic and partition, the offset that a fetch asks for; None where it reads what is not committed, too."""
    fields = Fields(request, False)
    fields.take(8)
    fields.text()
    fields.take(16)
    if fields.take(1) == b"\0":
        return None
    fields.take(8 if version >= 7 else 0)
    found = {}
    for _ in range(fields.count()):
        topic = fields.text()
        for _ in range(fields.count()):
            partition = fields.take(4)
            fields.take(4 if version >= 9 else 0)
            found[topic, partition] = struct.unpack(">q", fields.take(8))[0]
            fields.take(12 if version >= 5 else 4)
    return found


class Markers:
    """Where aborted transactions ended, as the log itself says."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.lock = threading.Lock()
        self.known = {}

    def end(self, topic, partition, producer, first):
        """The offset of a transaction's marker; None where it is not there yet."""
        key = (topic, partition, producer, first)
        with self.lock:
            if key not in self.known:
                found = self.look(*key)
                if found is None:
                    return None
                self.known[key] = found
            return self.known[key]

    def look(self, topic, partition, producer, first):
        with socket.create_connection(self.upstream, PATIENCE) as sock:
            channel = Channel(sock)
            offset = first
            while True:
                channel.write_frame(
                    struct.pack(">hhih", FETCH, 4, 0, -1) + struct.pack(">iiiib", -1, 0, 1, SCAN_BYTES, 0)
                    + struct.pack(">ih", 1, len(topic)) + topic + struct.pack(">i", 1) + partition
                    + struct.pack(">qi", offset, SCAN_BYTES))
                fields = Fields(channel.read_frame(4), False)
                fields.take(12)
                fields.text()
                fields.take(4 + 4 + 2 + 8 + 8)
                fields.take(16 * fields.count())
                data = fields.take(fields.count())
                before = offset
                for base, last, attributes, batch_producer in batches(data):
                    # Control batches, whose one record ends a transaction of their producer.
                    if attributes & 0x20 and batch_producer == producer and base >= first:
                        return base
                    offset = max(offset, last + 1)
                if offset == before:
                    return None


def batches(data):
    """Base offset, last offset, attributes and producer of whole record batches (magic 2)."""
    at = 0
    while at + 61 <= len(data):
        base, length = struct.unpack_from(">qi", data, at)
        if at + 12 + length > len(data):
            return
        attributes, delta = struct.unpack_from(">hi", data, at + 21)
        yield base, base + delta, attributes, struct.unpack_from(">q", data, at + 43)[0]
        at += 12 + length


class ExactConnection(Connection):
    markers = None

    def forward_requests(self):
        while True:
            request = self.client.read_frame()
            api, version, correlation = struct.unpack(">hhi", request[:8])
            if len(self.pending) >= PENDING_LIMIT:
                raise Refused("too many requests under way")
            if api in (3, 10):
                self.pending[correlation] = lambda answer, at=(api, version): with_address(*at, answer, *self.address)
            elif api == FETCH:
                if version not in VERSIONS:
                    raise Refused(f"a fetch of version {version}")
                offsets = asked(request, version)
                if offsets is not None:
                    self.pending[correlation] = lambda answer, at=(version, offsets): self.exact(answer, *at)
            self.upstream.write_frame(request)

    def forward_responses(self):
        while True:
            response = self.upstream.read_frame(4)
            change = self.pending.pop(struct.unpack(">i", response[:4])[0], None)
            self.client.write_frame(change(response) if change else response)

    def exact(self, response, version, offsets):
        fields = Fields(response, False)
        fields.take(8 + (6 if version >= 7 else 0))
        for _ in range(fields.count()):
            topic = fields.text()
            for _ in range(fields.count()):
                partition = fields.take(4)
                fields.take(2 + 8 + 8 + (8 if version >= 5 else 0))
                start = len(fields.done)
                aborted = [struct.unpack(">qq", fields.take(16)) for _ in range(fields.count())]
                start_of_fetch = offsets.get((topic, partition), 0)
                kept = [one for one in aborted if self.reaches(topic, partition, start_of_fetch, *one)]
                if aborted:
                    fields.done[start:] = struct.pack(">i", len(kept)) + b"".join(struct.pack(">qq", *one) for one in kept)
                fields.take(4 if version >= 11 else 0)
                fields.take(fields.count())
        return fields.result()

    def reaches(self, topic, partition, offset, producer, first):
        if first >= offset:
            return True
        end = self.markers.end(topic, partition, producer, first)
        return end is None or end >= offset


def serve(sock, upstream, address):
    client = Channel(sock)
    with contextlib.closing(client), reporting():
        with socket.create_connection(upstream, PATIENCE) as other:
            ExactConnection(client, Channel(other), address).serve()


def main():
    parser = argparse.ArgumentParser(description="A door in front of noida-db that reads like Apache Kafka, for tests.")
    parser.add_argument("--upstream", required=True)
    host, port = parser.parse_args().upstream.rsplit(":", 1)
    # Whoever started this may have SIGTERM blocked (Foundation's Process does). Threads may be anywhere: just end.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    upstream = (host, int(port))
    ExactConnection.markers = Markers(upstream)
    listener = socket.create_server(("127.0.0.1", 0))
    own = listener.getsockname()[1]
    print("ready", own, flush=True)
    while True:
        threading.Thread(
            target=serve, args=(listener.accept()[0], upstream, (b"127.0.0.1", own)), daemon=True).start()


if __name__ == "__main__":
    main()
