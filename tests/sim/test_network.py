# SPDX-License-Identifier: Apache-2.0
"""The fault proxy by itself: each kind of fault does what its name says, and the seed decides."""
import http.client
import http.server
import json
import queue
import socket
import sys
import threading
import time
import unittest
import urllib.request

import cluster
import wire
from fault_proxy import KINDS, Network, page_bytes

PAGE = bytes(range(256))
STREAM = b"".join(wire.varint(len(frame)) + frame for frame in (
    wire.encode({1: wire.encode({1: b"v" * 16})}),
    wire.encode({3: wire.encode({1: 1, 2: 1, 15: PAGE})}),
    wire.encode({3: wire.encode({1: 2, 2: wire.PAGE_EMPTY})}),
    wire.encode({4: wire.encode({2: 2})})))


INFO = b'{"watch": "http://127.0.0.1:9", "version": "1"}'


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the request's body, in chunks where the path says so."""
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(INFO)))
        self.end_headers()
        self.wfile.write(INFO)

    def do_POST(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            size = int(self.headers["Content-Length"])
            body = self.rfile.read(size)
            if len(body) < size:
                self.server.broken.append(body)
                self.close_connection = True
                return
        self.server.got.append((self.path, body))
        self.send_response(200)
        if self.path.endswith("watch"):  # pieces, whenever the test has one, until it has None
            pieces = self.server.pieces
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while (piece := pieces.get()) is not None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        elif self.path.endswith("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


class EchoServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


class NetworkTest(unittest.TestCase):
    def setUp(self):
        self.server = EchoServer(("127.0.0.1", 0), Echo)
        self.server.got, self.server.broken, self.server.pieces = [], [], queue.SimpleQueue()
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)

    def network(self, seed=1, settings=None, stream_faults=None, **faults):
        network = Network(seed, faults, stream_faults=stream_faults, **(settings or {}))
        self.addCleanup(network.close)
        self.port = int(network.link("test", self.server.server_address[1]).rsplit(":", 1)[1])
        return network

    def post(self, body=b"body", call="echo", timeout=10, **options):
        """The answer's body, or None if there was none, or half of one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", f"/v1/{call}", body, **options)
            return connection.getresponse().read()
        except (http.client.HTTPException, OSError):
            return None
        finally:
            connection.close()

    def bodies(self):
        return [body for _, body in self.server.got]

    def eventually(self, true):
        end = time.monotonic() + 10
        while not true() and time.monotonic() < end:
            time.sleep(0.005)
        self.assertTrue(true())

    def test_without_faults_everything_passes(self):
        network = self.network()
        for body in (b"", b"x", bytes(300_000)):
            self.assertEqual(self.post(body), body)
            self.assertEqual(self.post(iter([body[:7], body[7:]]) if len(body) > 7 else body, encode_chunked=len(body) > 7,
                                       headers={"Transfer-Encoding": "chunked"} if len(body) > 7 else {}), body)
            self.assertEqual(self.post(body, call="chunked"), body)
        self.assertEqual((network.requests, sum(network.fired.values())), (9, 0))

    def test_a_connection_carries_many_requests(self):
        network = self.network()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        began = time.monotonic()
        for i in range(300):
            connection.request("POST", "/v1/echo", str(i))
            self.assertEqual(connection.getresponse().read(), str(i).encode())
        self.assertEqual(len(network.connections), 1)
        self.assertGreater(300 / (time.monotonic() - began), 100)
        connection.close()

    def test_half_a_request_is_nobodys_request(self):
        network = self.network()
        for half in (b"POST /v1/ech", b"POST /v1/echo HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf",
                     b"POST /v1/echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"):
            with socket.create_connection(("127.0.0.1", self.port)) as connection:
                connection.sendall(half)
                connection.shutdown(socket.SHUT_WR)
                self.assertEqual(connection.recv(1), b"")
        self.assertEqual((self.server.got, network.requests), ([], 0))

    def test_expect_is_answered(self):
        self.network()
        self.assertEqual(self.post(b"b", headers={"Expect": "100-continue"}), b"b")

    def test_a_dropped_request_is_not_seen_and_a_dropped_reply_is(self):
        network = self.network(drop_request=1)
        self.assertIsNone(self.post())
        self.assertEqual((self.server.got, network.fired), ([], {"drop_request": 1}))
        network = self.network(drop_reply=1)
        self.assertIsNone(self.post())
        self.assertEqual((self.bodies(), network.fired), ([b"body"], {"drop_reply": 1}))

    def test_a_delay_delays(self):
        self.network(settings={"delay_max": 0.4}, delay=1)
        began = time.monotonic()
        self.assertEqual([self.post() for _ in range(4)], [b"body"] * 4)
        self.assertGreater(time.monotonic() - began, 0.3)

    def test_a_duplicate_is_seen_twice(self):
        self.network(duplicate=1)
        self.assertEqual(self.post(), b"body")
        self.eventually(lambda: self.bodies() == [b"body"] * 2)

    def test_an_old_commit_comes_again(self):
        network = self.network(replay=1)
        self.post(b"old", call="commit")
        self.eventually(lambda: self.bodies() == [b"old"] * (1 + network.fired["replay"]))
        seen = len(self.server.got)
        self.assertEqual(self.post(b"new"), b"new")
        self.eventually(lambda: len(self.server.got) == seen + 2)
        self.assertEqual(sorted(self.bodies()[seen:]), [b"new", b"old"])

    def test_cuts_leave_a_part(self):
        network = self.network(cut_request=1)
        for _ in range(20):
            self.assertIsNone(self.post(bytes(1000)))
        self.assertEqual((self.server.got, network.fired["cut_request"]), ([], 20))
        self.eventually(lambda: len(set(map(len, self.server.broken))) > 5)
        network = self.network(cut_reply=1)
        for _ in range(20):
            self.assertNotEqual(self.post(bytes(1000)), bytes(1000))
        self.assertEqual((len(self.server.got), network.fired["cut_reply"]), (20, 20))

    def test_corruption_changes_one_bit_of_a_page_and_nothing_else(self):
        places = page_bytes(STREAM)
        self.assertEqual([STREAM[a:b] for a, b in places], [PAGE])
        network = self.network(corrupt_request=0.5, corrupt_reply=0.5)
        self.assertEqual(self.post(STREAM, call="commit"), STREAM)
        self.assertEqual(sum(network.fired.values()), 0)
        for call, kind in (("write_pages", "corrupt_request"), ("read_pages", "corrupt_reply")):
            answers = [self.post(STREAM, call=call) for _ in range(20)]
            bad = [answer for answer in answers if answer != STREAM]
            self.assertEqual(len(bad), network.fired[kind])
            self.assertGreater(len(bad), 2)
            for answer in bad:
                changed = [(i, a ^ b) for i, (a, b) in enumerate(zip(answer, STREAM, strict=True)) if a != b]
                self.assertEqual(len(changed), 1)
                self.assertTrue(places[0][0] <= changed[0][0] < places[0][1])
                self.assertEqual(changed[0][1].bit_count(), 1)

    # ---- streams

    def stream(self, **options):
        """A watch that was asked for: its network and its connection."""
        self.server.pieces = queue.SimpleQueue()
        network = self.network(**options)
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        self.addCleanup(sock.close)
        sock.sendall(b"POST /v1/watch HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
        for _ in range(2):
            self.addCleanup(self.server.pieces.put, None)
        return network, sock

    def head_of(self, sock):
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            got += sock.recv(1)
        self.assertIn(b"200", got[:13])

    def piece(self, sock, data):
        """Sends a piece; what arrives of it, framing included, until all of it has come or the stream ends."""
        self.server.pieces.put(data)
        got, whole = b"", len(b"%x\r\n%s\r\n" % (len(data), data))
        while len(got) < whole and (more := sock.recv(whole - len(got))):
            got += more
        return got

    def test_a_stream_comes_piece_by_piece_and_ends(self):
        network, sock = self.stream()
        self.head_of(sock)
        for data in (b"first", b"x" * 100_000, b"last"):
            self.assertEqual(self.piece(sock, data), b"%x\r\n%s\r\n" % (len(data), data))
        self.assertEqual((network.links[0].seen["watch"], network.links[0].seen["watch piece"]), (1, 3))
        self.server.pieces.put(None)
        self.assertEqual(sock.recv(100), b"0\r\n\r\n")
        self.assertEqual(sock.recv(1), b"")

    def test_a_client_that_leaves_a_stream_takes_it_along(self):
        network, sock = self.stream()
        self.head_of(sock)
        sock.close()
        self.eventually(lambda: not network.connections)

    def test_faults_of_a_streams_request(self):
        for kind, seen in (("drop_request", 0), ("cut_request", 0), ("duplicate", 2), ("stall_request", 1)):
            self.server.got.clear()
            network, sock = self.stream(stream_faults={kind: 1}, settings={"stall_max": 0.2})
            if seen:
                self.head_of(sock)
                self.assertEqual(self.piece(sock, b"data"), b"4\r\ndata\r\n") if seen == 1 else None
            else:
                self.assertEqual(sock.recv(1), b"")
            self.eventually(lambda: len(self.server.got) == seen)
            self.assertEqual((network.fired, network.fired_on_streams[kind]), ({kind: 1}, 0), kind)  # no "-watch" link

    def test_faults_of_pieces(self):
        data = bytes(1000)
        whole = b"3e8\r\n%s\r\n" % data
        for kind in ("drop_reply", "cut_reply", "partition", "partition_out", "partition_back"):
            network, sock = self.stream(stream_faults={kind: 1}, settings={"partition_max": 0.2})
            self.head_of(sock)
            got = self.piece(sock, data)
            self.assertLess(len(got), len(whole), kind)
            self.assertTrue(whole.startswith(got), kind)
            self.assertEqual(network.fired, {kind: 1})
        for kind in ("delay", "stall_reply"):
            network, sock = self.stream(stream_faults={kind: 1}, settings={"delay_max": 0.5, "stall_max": 0.5})
            self.head_of(sock)
            began = time.monotonic()
            self.assertEqual([self.piece(sock, data) for _ in range(4)], [whole] * 4)
            self.assertGreater(time.monotonic() - began, 0.3, kind)
            self.assertEqual(network.fired, {kind: 4})
        network, sock = self.stream(stream_faults={"corrupt_reply": 1})
        self.head_of(sock)
        got = self.piece(sock, data)
        changed = [a ^ b for a, b in zip(got, whole, strict=True) if a != b]
        self.assertEqual([change.bit_count() for change in changed], [1])

    def test_healing_leaves_a_stream_that_has_no_trouble(self):
        network, sock = self.stream()
        self.head_of(sock)
        self.assertEqual(self.piece(sock, b"1"), b"1\r\n1\r\n")
        network.heal()
        self.assertEqual(self.piece(sock, b"2"), b"1\r\n2\r\n")
        network, sock = self.stream(stream_faults={"partition": 1}, settings={"partition_max": 60})
        self.head_of(sock)
        self.server.pieces.put(b"3")
        self.eventually(lambda: network.held == 1)
        network.heal()
        self.assertEqual(sock.recv(1), b"")

    def test_who_asks_where_to_watch_is_led_through_a_link_of_its_own(self):
        network = Network(1, {})
        self.addCleanup(network.close)
        port = self.server.server_address[1]
        url = network.link("a", port, port)
        with urllib.request.urlopen(url + "/v1/info") as answer:
            info = json.load(answer)
        self.assertEqual(info["version"], "1")
        self.assertEqual([link.name for link in network.links], ["a-watch", "a"])
        self.assertEqual(info["watch"], network.links[1].watch_url)
        self.port = int(info["watch"].rsplit(":", 1)[1])
        self.assertEqual(self.post(b"through"), b"through")
        self.assertEqual(network.links[0].seen["echo"], 1)

    def test_stalls_end(self):
        for kind in ("stall_request", "stall_reply"):
            network = self.network(settings={"stall_max": 0.5}, **{kind: 1})
            began = time.monotonic()
            self.assertEqual([self.post(bytes(1000)) for _ in range(4)], [bytes(1000)] * 4)
            self.assertGreater(time.monotonic() - began, 0.3)
            self.assertEqual(network.fired[kind], 4)

    def test_partitions_stop_what_they_say_and_end(self):
        for kind, seen in (("partition", 0), ("partition_out", 0), ("partition_back", 1)):
            self.server.got.clear()
            network = self.network(settings={"partition_max": 1.5}, **{kind: 1})
            self.assertIsNone(self.post())
            self.assertEqual((len(self.server.got), network.fired[kind]), (seen, 1), kind)
            network.heal()
            self.assertEqual(self.post(), b"body")

    def test_healing_ends_everything_under_way(self):
        network = self.network(settings={"partition_max": 60}, partition=1)
        waiting = threading.Thread(target=self.post)
        waiting.start()
        self.eventually(lambda: network.held == 1)
        network.heal()
        waiting.join(5)
        self.assertFalse(waiting.is_alive())
        self.assertEqual(self.post(), b"body")

    def test_the_seed_decides(self):
        faults = {kind: 0.05 for kind in KINDS}

        def decisions(seed, name="a"):
            network = Network(seed, faults)
            self.addCleanup(network.close)
            network.link(name, 1)
            link = network.links[0]
            return [link.decide(call)[0] for _ in range(200) for call in ("commit", "read_pages", "write_pages", "watch",
                                                                          "watch piece")]
        self.assertEqual(decisions(1), decisions(1))
        self.assertNotEqual(decisions(1), decisions(2))
        self.assertNotEqual(decisions(1), decisions(1, "b"))
        self.assertEqual(set(decisions(1)), {*KINDS, None})


if __name__ == "__main__":
    sys.exit(cluster.main())
