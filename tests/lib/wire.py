# SPDX-License-Identifier: Apache-2.0
"""The protocol from its description (proto/graft.proto, docs/FORMATS.md), independent of the code under test.

Messages are dictionaries of field numbers: encode({1: vid, 2: 7}) → bytes, decode(bytes) → {1: [vid], 2: [7]}.
"""
import hashlib
import http.client
import os
import struct
import time
import urllib.parse

PROTOBUF, STREAM = "application/x-protobuf", "application/x-graft-stream"
NOT_FOUND, CONFLICT, INVALID, UNAVAILABLE, UNKNOWN, LIMIT, CORRUPT, GONE, INTERNAL = 1, 2, 3, 5, 6, 7, 8, 9, 12
DELETED, CHAIN_MISMATCH, BAD_RECEIPT, BAD_PAGESET, BAD_MESSAGE = 2, 5, 6, 7, 8
TOO_LARGE, BAD_ARGUMENT, NO_SPACE, EXISTS, NO_SUCH_VOLUME, BEYOND_HEAD, RETIRED = 11, 12, 13, 25, 26, 27, 28
VOLUME, SEGMENT = 0x81, 0x82
PAGE_STORED, PAGE_EMPTY, PAGE_DAMAGED = 1, 2, 3
DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


# ---- protobuf

def varint(number):
    encoded = bytearray()
    while number > 0x7f:
        encoded.append(number & 0x7f | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def encode(fields):
    encoded = b""
    for number, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, int):
                encoded += varint(number << 3) + varint(value)
            else:
                encoded += varint(number << 3 | 2) + varint(len(value)) + value
    return encoded


def take_varint(data, at):
    number = shift = 0
    while True:
        number |= (data[at] & 0x7f) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return number, at


def decode(data):
    fields, at = {}, 0
    while at < len(data):
        tag, at = take_varint(data, at)
        if tag & 7 == 0:
            value, at = take_varint(data, at)
        elif tag & 7 == 1:
            value, at = data[at:at + 8], at + 8
        else:
            size, at = take_varint(data, at)
            value, at = data[at:at + size], at + size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def frames(body):
    """The messages of a stream."""
    at = 0
    while at < len(body):
        size, at = take_varint(body, at)
        yield decode(body[at:at + size])
        at += size


# ---- Graft's own encodings

def gid(kind):
    return bytes([kind]) + int(time.time() * 1000).to_bytes(6, "big") + os.urandom(9)


def gid_text(binary):
    number, text = int.from_bytes(binary, "big"), ""
    for _ in range(22):
        number, digit = divmod(number, 58)
        text = DIGITS[digit] + text
    return text


def gid_bytes(text):
    number = 0
    for digit in text:
        number = number * 58 + DIGITS.index(digit)
    return number.to_bytes(16, "big")


def page_set(*runs):
    """From (first, count) in ascending order."""
    encoded, end = b"", 1
    for first, count in runs:
        encoded += varint(first - end) + varint(count)
        end = first + count
    return encoded


def with_receipt(reference, key):
    """A SegmentRef's fields with its receipt under the cluster's key."""
    sid, owner, pages = reference[1], reference[2], reference[3]
    structural, size, offset, index_size, expires = (reference.get(4, b""), *(reference[i] for i in (5, 6, 7, 8)))
    claim = (b"GRFTRCP1" + sid + owner + struct.pack("<QQIQ", size, offset, index_size, expires) +
             struct.pack("<I", len(pages)) + pages + struct.pack("<I", len(structural)) + structural)
    return {**reference, 9: hashlib.blake2b(claim, digest_size=32, key=key).digest()}


def cluster_key(folder):
    return bytes.fromhex((folder / "cluster.key").read_text())


# ---- calls

class Answer:
    def __init__(self, response):
        self.code, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def message(self):
        return decode(self.body)

    @property
    def status(self):
        return self.message.get(1, [0])[0]

    @property
    def detail(self):
        return self.message.get(2, [0])[0]

    @property
    def text(self):
        return self.message.get(3, [b""])[0].decode(errors="replace")


class Caller:
    """One kept-alive connection to a daemon; opened again when the daemon closed it."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.connection = None

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def request(self, method, path, body=None, headers=None):
        for attempt in (1, 2):
            if not self.connection:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port(), timeout=30)
            try:
                self.connection.request(method, path, body, headers or {})
                return Answer(self.connection.getresponse())
            except (http.client.RemoteDisconnected, ConnectionError):
                self.close()
                if attempt == 2:
                    raise

    def post(self, call, fields, content_type=PROTOBUF):
        body = fields if isinstance(fields, bytes) else encode(fields)
        return self.request("POST", f"/v1/{call}", body, {"Content-Type": content_type})

    def metrics(self):
        values = {}
        for line in self.request("GET", "/metrics").body.decode().splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def head(self, vid, lsn=0):
        """A snapshot's fields: 2 LSN, 3 page_count, 4 chain."""
        answer = self.post("snapshot", {1: vid, 2: lsn} if lsn else {1: vid})
        assert answer.code == 200, answer.text
        snapshot = decode(answer.message[1][0])
        return {number: values[0] for number, values in snapshot.items()}

    def commits(self, vid, first, last=0):
        answer = self.post("commits", {1: vid, 2: first, 3: last} if last else {1: vid, 2: first})
        assert answer.code == 200, answer.text
        return [decode(frame[1][0]) for frame in frames(answer.body) if 1 in frame]

    def read_pages(self, vid, lsn, chain, pages, first=0):
        """{page: its frame's fields} once the stream was whole, or the Answer that refused it."""
        answer = self.post("read_pages", {1: vid, 2: lsn, 3: chain, 4: pages, **({5: first} if first else {})})
        if answer.code != 200:
            return answer
        found, ended, begin = {}, False, None
        for frame in frames(answer.body):
            assert not ended, "frames behind the end"
            if 1 in frame:
                begin = decode(frame[1][0])
            elif 3 in frame:
                page = decode(frame[3][0])
                found[page[1][0]] = page
            elif 4 in frame:
                end = decode(frame[4][0])
                assert end.get(1, [0])[0] == 0 and end[2][0] == len(found), end
                ended = True
        assert ended and (begin[1][0], begin[2][0], begin[3][0]) == (vid, lsn, chain), "a broken stream"
        return found
