# SPDX-License-Identifier: Apache-2.0
"""What no client of ours would send, to both daemons: each gets the right HTTP code and an Error that names the field and
the limit; nothing is stored, the next request works, and memory stays where it was."""
import itertools
import os
import random
import socket
import unittest

import cluster
import wire
from wire import PROTOBUF, STREAM, page_set

PAGES = 64
KIB = 1024
MEMORY_GROWTH_MAX = 12 << 20  # of a daemon over 2,000 bad requests, as heaps and threads settle


def resident(daemon):
    with open(f"/proc/{daemon.process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class BadInputTest(cluster.GraftTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.meta, cls.pages = wire.Caller(cls.cluster.metastore), wire.Caller(cls.cluster.pagestore)

    def setUp(self):
        self.source = os.urandom(PAGES * 4096)
        self.vid_text = self.graft_text("import", self.write_file("source", self.source))
        self.graft("push", self.vid_text)
        self.vid = wire.gid_bytes(self.vid_text)
        self.head = self.meta.head(self.vid)
        self.reference = self.good_reference()

    def good_reference(self):
        """Of the pushed segment, with a receipt of its own: what a commit may name."""
        stored = wire.decode(self.meta.commits(self.vid, 1)[0][11][0])
        fields = {number: values[0] for number, values in stored.items() if number < 9}
        return wire.with_receipt({**fields, 8: 1 << 42}, wire.cluster_key(self.folder))

    def commit(self, **changes):
        """A commit that would land, but for the changes."""
        names = {"vid": 1, "base_lsn": 2, "base_chain": 3, "token": 4, "digest": 5, "cid": 6, "page_count": 7, "cut": 8,
                 "segments": 9}
        good = {"vid": self.vid, "base_lsn": self.head[2], "base_chain": self.head[4], "token": os.urandom(16),
                "digest": os.urandom(16), "cid": wire.gid(0x83), "page_count": PAGES, "cut": PAGES,
                "segments": [wire.encode(self.reference)]}
        return {names[name]: value for name, value in {**good, **changes}.items() if value is not None}

    def segment(self, signed=True, **changes):
        names = {"sid": 1, "owner": 2, "pages": 3, "structural": 4, "receipt": 9}
        fields = {**self.reference, **{names[name]: value for name, value in changes.items()}}
        return [wire.encode(wire.with_receipt(fields, wire.cluster_key(self.folder)) if signed else fields)]

    def cases(self):
        """(caller, call, body, HTTP code, status, detail, texts that the message has)"""
        I, bad, args, msg, big = wire.INVALID, wire.BAD_PAGESET, wire.BAD_ARGUMENT, wire.BAD_MESSAGE, wire.TOO_LARGE
        vid, lsn, chain = self.vid, self.head[2], self.head[4]
        m, p = self.meta, self.pages
        short, other, unknown = vid[:15], wire.gid(wire.SEGMENT), wire.gid(wire.VOLUME)

        def read(**changes):
            good = {1: vid, 2: lsn, 3: chain, 4: page_set((1, 4))}
            return {**good, **{{"vid": 1, "lsn": 2, "chain": 3, "pages": 4, "first": 5}[k]: v for k, v in changes.items()}}

        noise = b"\xff\xff\xff\xff\x07\x01"
        for caller, calls in ((m, ("create_volume", "delete_volume", "snapshot", "pull", "commits", "commit",
                                   "list_volumes")), (p, ("read_pages", "segments", "segment"))):
            for call in calls:
                yield caller, call, noise, 400, I, msg, ["well-formed"]
        yield m, "snapshot", {1: short}, 400, I, args, ["vid", "16"]
        yield m, "snapshot", {1: other}, 400, I, args, ["vid", "0x82"]
        yield m, "snapshot", {1: unknown}, 404, wire.NOT_FOUND, wire.NO_SUCH_VOLUME, [wire.gid_text(unknown)]
        yield m, "snapshot", {1: vid, 2: 99}, 404, wire.NOT_FOUND, wire.BEYOND_HEAD, ["99", f"head, {lsn}"]
        yield m, "pull", {1: vid, 2: 99, 3: chain}, 404, wire.NOT_FOUND, wire.BEYOND_HEAD, ["99"]
        yield m, "pull", {1: vid, 2: lsn, 3: chain[:4]}, 400, I, args, ["chain", "16"]
        yield m, "pull", {1: vid, 2: lsn, 3: os.urandom(16)}, 500, wire.CORRUPT, wire.CHAIN_MISMATCH, [self.vid_text]
        yield m, "commits", {1: vid, 2: 99}, 404, wire.NOT_FOUND, wire.BEYOND_HEAD, ["99"]
        yield m, "commits", {1: vid}, 400, I, args, ["from_lsn"]
        yield m, "commits", {1: vid, 2: 5, 3: 4}, 400, I, args, ["to_lsn"]
        yield m, "create_volume", {1: unknown, 2: 1000, 3: 1}, 400, I, args, ["page_size", "512", "65536"]
        yield m, "create_volume", {1: unknown, 2: 131072, 3: 1}, 400, I, args, ["page_size", "65536"]
        yield m, "create_volume", {1: unknown, 2: 4096, 3: 9}, 400, I, args, ["kind", "9"]
        yield m, "delete_volume", {1: vid, 2: b"short"}, 400, I, args, ["token", "16"]
        yield m, "list_volumes", {1: short}, 400, I, args, ["after"]

        yield m, "commit", self.commit(token=b"x"), 400, I, args, ["token", "16"]
        yield m, "commit", self.commit(digest=None), 400, I, args, ["digest", "16"]
        yield m, "commit", self.commit(base_chain=b""), 400, I, args, ["base_chain", "16"]
        yield m, "commit", self.commit(cid=vid), 400, I, args, ["cid"]
        yield m, "commit", self.commit(cut=PAGES + 1), 400, I, args, ["cut", str(PAGES + 1)]
        yield m, "commit", self.commit(base_chain=os.urandom(16)), 500, wire.CORRUPT, wire.CHAIN_MISMATCH, []
        yield m, "commit", self.commit(base_lsn=7), 500, wire.CORRUPT, wire.CHAIN_MISMATCH, ["7"]
        yield m, "commit", self.commit(base_lsn=0, base_chain=bytes(16)), 409, wire.CONFLICT, 3, []
        yield m, "commit", self.commit(segments=self.segment(signed=False, pages=page_set((1, 2)))), 400, I, \
            wire.BAD_RECEIPT, ["segments[0]", "receipt"]
        yield m, "commit", self.commit(segments=self.segment(signed=False, receipt=b"r")), 400, I, wire.BAD_RECEIPT, ["32"]
        yield m, "commit", self.commit(segments=self.segment(owner=unknown)), 400, I, wire.BAD_RECEIPT, ["owner"]
        yield m, "commit", self.commit(segments=self.segment(sid=vid)), 400, I, args, ["segments[0]", "sid"]
        yield m, "commit", self.commit(segments=self.segment() * 2), 400, I, bad, ["segments[1]", "page 1"]
        yield m, "commit", self.commit(segments=self.segment(pages=b"")), 400, I, bad, ["pages is empty"]
        yield m, "commit", self.commit(segments=self.segment(pages=page_set((60, 9)))), 400, I, bad, ["page 68", "64"]
        yield m, "commit", self.commit(segments=self.segment(structural=page_set((65, 1)))), 400, I, bad, ["structural"]
        yield m, "commit", self.commit(segments=[b""] * 8193), 413, wire.LIMIT, big, ["segments", "8192"]
        for pages, why in self.page_sets():
            yield m, "commit", self.commit(segments=self.segment(pages=pages)), 400, I, bad, ["segments[0]", "pages", why]
            yield p, "read_pages", read(pages=pages), 400, I, bad, ["pages", why]

        yield p, "read_pages", read(vid=short), 400, I, args, ["vid", "16"]
        yield p, "read_pages", read(vid=unknown), 404, wire.NOT_FOUND, wire.NO_SUCH_VOLUME, []
        yield p, "read_pages", read(lsn=0), 400, I, args, ["lsn"]
        yield p, "read_pages", read(lsn=99), 404, wire.NOT_FOUND, wire.BEYOND_HEAD, ["99", f"LSN {lsn}"]
        yield p, "read_pages", read(chain=b""), 400, I, args, ["chain", "16"]
        yield p, "read_pages", read(chain=os.urandom(16)), 500, wire.CORRUPT, wire.CHAIN_MISMATCH, [self.vid_text]
        yield p, "read_pages", read(pages=b""), 400, I, args, ["pages is empty"]
        yield p, "read_pages", read(first=9), 400, I, args, ["first", "9"]
        yield p, "read_pages", read(pages=page_set((1, 32769))), 413, wire.LIMIT, big, ["pages", "32769", "32768"]
        yield p, "read_pages", read(pages=page_set((1, 2 ** 32 - 1))), 413, wire.LIMIT, big, ["pages", "32768"]
        yield p, "read_pages", read(pages=page_set(*((2 * i + 1, 1) for i in range(32769)))), 413, wire.LIMIT, big, \
            ["pages", "32768"]
        yield p, "segment", {1: vid}, 400, I, args, ["sid"]
        yield p, "segment", {1: other}, 404, wire.NOT_FOUND, 0, [wire.gid_text(other)]

    @staticmethod
    def page_sets():
        """Page sets that are not canonical, and what is said of them."""
        yield b"\x00\x01\x00\x01", "gap"            # runs that touch
        yield b"\x00\x00", "length"                 # an empty run
        yield b"\x80\x00\x01", "shortest form"             # a gap that could be shorter
        yield b"\x01", "run at byte"                # half a run
        yield b"\x80", "run at byte"                # half a varint
        yield b"\xff\xff\xff\xff\x0f\x01", "run at byte"     # a run beyond the last page
        yield b"\x00\xff\xff\xff\xff\x1f", "run at byte"
        yield b"\xff" * 10 + b"\x01", "run at byte"          # no varint at all

    def stored(self):
        """All that the daemons hold."""
        volumes = self.meta.post("list_volumes", {}).body
        segments = self.pages.post("segments", {}).body
        return volumes, segments, sorted(p.name for p in (self.folder / "segments").rglob("*") if p.is_file())

    def check_case(self, case):
        caller, call, body, code, status, detail, texts = case
        answer = caller.post(call, body)
        said = f"{call}: {answer.code}, {answer.status}/{answer.detail} {answer.text!r}"
        self.assertEqual((answer.code, answer.status, answer.detail), (code, status, detail), said)
        self.assertEqual(answer.headers["Content-Type"], PROTOBUF, said)
        for text in texts:
            self.assertIn(text, answer.text, said)
        self.assertLess(len(answer.text), 256, said)

    def test_a_bad_message_is_named_and_leaves_nothing_behind(self):
        before = self.stored()
        for case in self.cases():
            with self.subTest(f"{case[1]}-{case[3]}-{case[6]}"):
                self.check_case(case)
        self.assertEqual(self.stored(), before)
        self.assertEqual(self.meta.head(self.vid), self.head)
        self.assertEqual(self.graft("export", self.vid_text, "-", data="b-" + self.vid_text, code=1), b"")
        self.graft("clone", self.vid_text, data="c-" + self.vid_text)
        self.assertEqual(self.graft("export", self.vid_text, "-", data="c-" + self.vid_text), self.source)

    def test_the_commit_that_the_bad_ones_are_made_from_is_good(self):
        answer = self.meta.post("commit", self.commit())
        self.assertEqual(answer.code, 200, answer.text)
        self.assertEqual(self.meta.head(self.vid)[2], 2)

    def test_paths_methods_and_types(self):
        for caller, calls in ((self.meta, ["commit", "pull"]), (self.pages, ["read_pages", "write_pages"])):
            for path in ("/", "/v1", "/v1/nothing", "/v2/pull", "/v1/pull/", "/../etc/passwd", "/v1/" + "x" * 3000):
                answer = caller.request("POST", path, b"x", {"Content-Type": PROTOBUF})
                self.assertEqual((answer.code, answer.status), (404, wire.NOT_FOUND), path)
                self.assertIn("there is no", answer.text)
            for call in calls:
                kind = STREAM if call == "write_pages" else PROTOBUF
                for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
                    answer = caller.request(method, f"/v1/{call}", None, {"Content-Type": kind})
                    self.assertEqual((answer.code, answer.headers["Allow"]), (405, "POST"), (method, call))
                    self.assertIn(method, answer.text)
                for wrong in (None, "text/plain", "application/json", "application/x-protobuffer",
                              PROTOBUF if kind == STREAM else STREAM):
                    headers = {"Content-Type": wrong} if wrong else {}
                    answer = caller.request("POST", f"/v1/{call}", b"x", headers)
                    self.assertEqual((answer.code, answer.status), (415, wire.INVALID), (wrong, call))
                    self.assertIn(kind, answer.text)
            answer = caller.request("POST", "/v1/info", b"x", {"Content-Type": PROTOBUF})
            self.assertEqual((answer.code, answer.headers["Allow"]), (405, "GET, HEAD"))
            self.assertEqual(caller.request("GET", "/v1/info").code, 200)

    def raw(self, caller, text, body=b""):
        """The code that a request as typed is answered with; 0: none."""
        with socket.create_connection(("127.0.0.1", caller.daemon.port()), timeout=30) as connection:
            connection.sendall(text.encode() + body)
            answer = b""
            while b"\r\n\r\n" not in answer:
                block = connection.recv(65536)
                if not block:
                    break
                answer += block
            return int(answer.split(b" ", 2)[1]) if answer else 0

    def test_lengths(self):
        limits = {"snapshot": 64 * KIB, "pull": 64 * KIB, "commits": 64 * KIB, "create_volume": 64 * KIB,
                  "delete_volume": 64 * KIB, "list_volumes": 64 * KIB, "commit": 4096 * KIB, "read_pages": 256 * KIB,
                  "segment": 64 * KIB, "segments": 64 * KIB, "write_pages": 1 << 30}
        for call, limit in limits.items():
            caller = self.pages if call in ("read_pages", "segment", "segments", "write_pages") else self.meta
            kind = STREAM if call == "write_pages" else PROTOBUF
            if call != "write_pages":
                answer = caller.post(call, bytes(limit + 1))
                self.assertEqual((answer.code, answer.status, answer.detail), (413, wire.LIMIT, wire.TOO_LARGE), call)
                self.assertIn(str(limit), answer.text)
                head = f"POST /v1/{call} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
                self.assertEqual(self.raw(caller, head + "\r\n"), 411, call)
                self.assertEqual(self.raw(caller, head + "Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n0\r\n\r\n"), 411)
            head = f"POST /v1/{call} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: "
            self.assertEqual(self.raw(caller, head + f"{limit + 1}\r\nExpect: 100-continue\r\n\r\n"), 413, call)
            self.assertEqual(self.raw(caller, head + "1\r\nContent-Length: 2\r\n\r\n", b"xx"), 400, call)
            self.assertEqual(self.raw(caller, head + "1\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\n\r\n"), 400, call)
            for size in ("-1", "x", "18446744073709551616", "99999999999999999999999999"):
                self.assertIn(self.raw(caller, head + f"{size}\r\n\r\n"), (400, 413), (call, size))
            self.assertEqual(caller.request("GET", "/healthz").code, 200)

    def test_what_is_no_http(self):
        for caller in (self.meta, self.pages):
            for text in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"GET\r\n\r\n", bytes(200000),
                         b"POST /v1/pull HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 100000 + b"\r\n\r\n"):
                with socket.create_connection(("127.0.0.1", caller.daemon.port()), timeout=30) as connection:
                    try:
                        connection.sendall(text)
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(65536):
                            pass
                    except OSError:
                        pass
                self.assertEqual(caller.request("GET", "/healthz").code, 200)

    def test_memory_stays_where_it_was(self):
        if os.environ.get("GRAFT_SANITIZE", "none") != "none":
            self.skipTest("a sanitizer keeps what was freed")
        rng = random.Random(1)
        cases = [case for case in self.cases()]

        def some(count):
            for case in itertools.islice(itertools.cycle(cases), count):
                self.check_case(case)
                caller = case[0]
                # And the same, damaged somewhere: whatever the answer, there is one.
                body = bytearray(case[2] if isinstance(case[2], bytes) else wire.encode(case[2]))
                if 0 < len(body) < 1000 and case[1] not in ("create_volume", "delete_volume", "commit"):
                    body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
                    self.assertIn(caller.post(case[1], bytes(body)).code, (200, 400, 404, 409, 413, 500))

        some(500)
        daemons = (self.cluster.metastore, self.cluster.pagestore)
        before = [resident(daemon) for daemon in daemons]
        some(2000)
        for daemon, start in zip(daemons, before):
            grown = resident(daemon) - start
            print(f"# {daemon.name}: {start >> 20} MiB, {grown >> 10} KiB more after 2,000 bad requests", flush=True)
            self.assertLess(grown, MEMORY_GROWTH_MAX, daemon.name)


if __name__ == "__main__":
    cluster.main()
