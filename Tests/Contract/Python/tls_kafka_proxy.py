#!/usr/bin/env python3
"""A TLS door in front of a plaintext Kafka broker, for tests of a client's TLS and SASL handshakes.

usage: tls_kafka_proxy.py --upstream HOST:PORT --cert FILE --key FILE [--client-ca FILE] [--tls 1.2]
                          [--user NAME --password-file FILE]
       tls_kafka_proxy.py --make-certificates DIR

Listens on a free port of 127.0.0.1 and says `ready PORT`; answers name that address instead of the broker's, so a
client never goes around it. With --user every connection has to authenticate by SASL PLAIN. Says on stderr why it
refused one; ends on SIGTERM. --make-certificates writes ca.pem, server.pem and .key (for 127.0.0.1 and localhost),
client.pem and .key, and of an authority that nobody trusts other-ca.pem, other.pem and .key.
"""
import argparse
import contextlib
import hmac
import os
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading

FRAME_LIMIT = 100 << 20
# Of a client that has not authenticated.
SMALL_FRAME_LIMIT = 64 << 10
CHUNK = 64 << 10
# Requests under way on one connection whose responses will be rewritten.
PENDING_LIMIT = 10_000
# Seconds for handshake and authentication.
PATIENCE = 30

METADATA, FIND_COORDINATOR, SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE = 3, 10, 17, 18, 36
UNSUPPORTED_MECHANISM, AUTHENTICATION_FAILED = 33, 58
# From these versions on, lengths are varints and tagged fields follow.
FLEXIBLE_SINCE = {METADATA: 9, FIND_COORDINATOR: 3, API_VERSIONS: 3, SASL_AUTHENTICATE: 2}


class Refused(Exception):
    """The connection ends here. The text goes to stderr, so it never quotes what the client sent."""


class Channel:
    """A socket, with TLS or without, that one thread reads while another one writes. OpenSSL wants them one at a time,
    so calls happen under a lock and never block; waiting happens outside."""

    def __init__(self, sock):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.lock = threading.Lock()
        self.patience = PATIENCE

    def call(self, event, operation, *arguments):
        while True:
            with self.lock:
                try:
                    return operation(*arguments)
                except ssl.SSLWantReadError:
                    wanted = select.POLLIN
                except ssl.SSLWantWriteError:
                    wanted = select.POLLOUT
                except BlockingIOError:
                    wanted = event
            poll = select.poll()
            poll.register(self.sock, wanted)
            if not poll.poll(self.patience and self.patience * 1000):
                raise Refused("too slow")

    def read(self, count):
        data = bytearray()
        while len(data) < count:
            some = self.call(select.POLLIN, self.sock.recv, min(count - len(data), CHUNK))
            if not some:
                raise EOFError
            data += some
        return bytes(data)

    def read_frame(self, least=8, limit=FRAME_LIMIT):
        length = struct.unpack(">i", self.read(4))[0]
        if not least <= length <= limit:
            raise Refused(f"a frame of {length} bytes")
        return self.read(length)

    def write_frame(self, data):
        view = memoryview(struct.pack(">i", len(data)) + data)
        while view:
            view = view[self.call(select.POLLOUT, self.sock.send, view[:CHUNK]):]

    def end(self, how):
        """Of the socket below: an SSLSocket's own shutdown would have it go on in plaintext."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, how)

    def close(self):
        """Lets the other side read the last words, an alert for example: unread input would have the kernel reset."""
        self.end(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while select.select([self.sock], [], [], 1)[0] and os.read(self.sock.fileno(), CHUNK):
                pass
        self.sock.close()


class Fields:
    """Goes over the fields of a message one after the other. What it has passed stands, changed or not, in `done`."""

    def __init__(self, data, flexible):
        self.data, self.flexible = data, flexible
        self.at, self.done = 0, bytearray()

    def take(self, count):
        data = self.data[self.at:self.at + count]
        if len(data) != count:
            raise Refused("a message that ends too early")
        self.at += count
        self.done += data
        return data

    def varint(self):
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise Refused("a varint without an end")

    def count(self, size=4):
        """Of an array or of bytes (4), of a string (2); nothing where it is null."""
        return max(0, self.varint() - 1 if self.flexible else int.from_bytes(self.take(size), "big", signed=True))

    def text(self, size=2):
        return self.take(self.count(size))

    def tags(self):
        for _ in range(self.varint() if self.flexible else 0):
            self.varint()
            self.take(self.varint())

    def endpoint(self, host, port):
        """A host and a port, which become these; where there is none, because of an error, it stays so."""
        start = len(self.done)
        known = self.text()
        self.take(4)
        if known:
            self.done[start:] = counted(host, 2, self.flexible) + struct.pack(">i", port)

    def result(self):
        return bytes(self.done) + self.data[self.at:]


def counted(data, size, flexible):
    """A short string or bytes, with the length in front."""
    return (bytes([len(data) + 1]) if flexible else len(data).to_bytes(size, "big")) + data


def with_address(api, version, response, host, port):
    """The response, which begins with its correlation id, with another address for every broker in it."""
    fields = Fields(response, version >= FLEXIBLE_SINCE[api])
    fields.take(4)
    fields.tags()
    if api == METADATA:
        fields.take(4 if version >= 3 else 0)  # throttle time
        for _ in range(fields.count()):
            fields.take(4)  # broker
            fields.endpoint(host, port)
            fields.text() if version >= 1 else None  # rack
            fields.tags()
    else:
        several = version >= 4
        fields.take(4 if version >= 1 else 0)  # throttle time
        for _ in range(fields.count() if several else 1):
            fields.take(0 if several else 2)  # error
            fields.text() if version >= 1 else None  # its text, or the key
            fields.take(4)  # broker
            fields.endpoint(host, port)
            fields.take(2 if several else 0)  # error
            fields.text() if several else None
            fields.tags()
    return fields.result()


def verdict(version, correlation, known):
    """The answer to SaslAuthenticate: no token in return, no end of the session."""
    flexible = version >= FLEXIBLE_SINCE[SASL_AUTHENTICATE]
    tags = b"\0" if flexible else b""
    error, text = (0, b"") if known else (AUTHENTICATION_FAILED, b"Authentication failed: wrong name or password")
    return b"".join([struct.pack(">i", correlation), tags, struct.pack(">h", error), counted(text, 2, flexible),
                     counted(b"", 4, flexible), bytes(8) if version >= 1 else b"", tags])


class Connection:
    # Name and password with a zero byte between; None where nobody has to authenticate.
    credentials = None

    def __init__(self, client, upstream, address):
        self.client, self.upstream, self.address = client, upstream, address
        # Api and version of the requests whose responses are rewritten, by correlation id.
        self.pending = {}

    def serve(self):
        if self.credentials:
            self.authenticate()
        self.client.patience = self.upstream.patience = None
        responses = threading.Thread(target=self.run, args=(self.forward_responses,), daemon=True)
        responses.start()
        self.run(self.forward_requests)
        responses.join()

    def run(self, forward):
        """Forwards in one direction until that ends, and has the other one end, too."""
        with reporting():
            forward()
        self.client.end(socket.SHUT_RDWR)
        self.upstream.end(socket.SHUT_RDWR)

    def forward_requests(self):
        while True:
            request = self.client.read_frame()
            api, version, correlation = struct.unpack(">hhi", request[:8])
            if api in (METADATA, FIND_COORDINATOR):
                if len(self.pending) >= PENDING_LIMIT:
                    raise Refused("too many requests under way")
                self.pending[correlation] = (api, version)
            self.upstream.write_frame(request)

    def forward_responses(self):
        while True:
            response = self.upstream.read_frame(4)
            known = self.pending.pop(struct.unpack(">i", response[:4])[0], None)
            self.client.write_frame(with_address(*known, response, *self.address) if known else response)

    def authenticate(self):
        """Returns once the client has shown the right name and password."""
        mechanism = None
        while True:
            request = self.client.read_frame(limit=SMALL_FRAME_LIMIT)
            api, version, correlation = struct.unpack(">hhi", request[:8])
            fields = Fields(request[8:], False)
            fields.text()  # client's name
            fields.flexible = version >= FLEXIBLE_SINCE.get(api, 99)
            fields.tags()
            if api == API_VERSIONS:
                # Brokers offer the two SASL apis on plaintext listeners, too, so their answer can stay as it is.
                self.upstream.write_frame(request)
                self.client.write_frame(self.upstream.read_frame())
            elif api == SASL_HANDSHAKE and version <= 1:
                mechanism = fields.text()
                error = 0 if mechanism == b"PLAIN" else UNSUPPORTED_MECHANISM
                self.client.write_frame(struct.pack(">ihi", correlation, error, 1) + counted(b"PLAIN", 2, False))
                if error:
                    raise Refused("another mechanism than PLAIN")
                if version == 0:
                    # The token comes as a frame of its own, and an empty one means yes.
                    known, answer = self.knows(self.client.read_frame(0, SMALL_FRAME_LIMIT)), b""
                    break
            elif api == SASL_AUTHENTICATE and version <= 2 and mechanism:
                known = self.knows(fields.text(4))
                answer = verdict(version, correlation, known)
                break
            else:
                raise Refused(f"api {api} before authentication")
        if known or answer:
            self.client.write_frame(answer)
        if not known:
            raise Refused("wrong name or password")

    def knows(self, token):
        """A token is whom to act for, name and password, with zero bytes between."""
        return hmac.compare_digest(token.partition(b"\0")[2], self.credentials)


@contextlib.contextmanager
def reporting():
    """Says why a connection was refused; that the other side went away is no news."""
    try:
        yield
    except (Refused, ssl.SSLError) as error:
        print("refused:", getattr(error, "reason", error), file=sys.stderr, flush=True)
    except (OSError, EOFError):
        pass


def serve(sock, context, upstream, address):
    with reporting():
        client = Channel(context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False))
        with contextlib.closing(client), reporting():
            client.call(select.POLLIN, client.sock.do_handshake)
            with socket.create_connection(upstream, PATIENCE) as other:
                Connection(client, Channel(other), address).serve()


def make_certificates(folder):
    os.makedirs(folder, exist_ok=True)

    def make(name, *options):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                   "-days", "30", "-subj", f"/CN=test {name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run([*command, *options], cwd=folder, check=True, capture_output=True)

    names = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:127.0.0.1"
    for authority, leaves in (("ca", ("server", "client")), ("other-ca", ("other",))):
        make(authority)
        for leaf in leaves:
            make(leaf, "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-addext", names, "-addext",
                 "basicConstraints=critical,CA:FALSE")
        os.remove(os.path.join(folder, f"{authority}.key"))


def main():
    parser = argparse.ArgumentParser(description="A TLS door in front of a plaintext Kafka broker, for tests.")
    for name in ("--upstream", "--cert", "--key", "--client-ca", "--user", "--password-file", "--make-certificates"):
        parser.add_argument(name)
    parser.add_argument("--tls", choices=["1.2"], help="the newest version to speak")
    options = parser.parse_args()
    if options.make_certificates:
        return make_certificates(options.make_certificates)
    if not (options.upstream and options.cert and options.key) or bool(options.user) != bool(options.password_file):
        parser.error("--upstream, --cert and --key are needed; --user and --password-file go together")
    # Whoever started this may have SIGTERM blocked (Foundation's Process does). Threads may be anywhere: just end.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    if options.user:
        with open(options.password_file, "rb") as file:
            Connection.credentials = options.user.encode() + b"\0" + file.read().rstrip(b"\r\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.cert, options.key)
    if options.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(options.client_ca)
    if options.tls:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    print("ready", port, flush=True)
    while True:
        arguments = (listener.accept()[0], context, options.upstream.rsplit(":", 1), (b"127.0.0.1", port))
        threading.Thread(target=serve, args=arguments, daemon=True).start()


if __name__ == "__main__":
    main()
