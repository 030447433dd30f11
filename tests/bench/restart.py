# SPDX-License-Identifier: Apache-2.0
"""How long commits stop when a metastore that holds many of them is killed: from the kill -9 to the next acknowledged
commit, with the daemon started again at once and a client that tries every 2 ms. Exit code 1 if the 99th percentile is a
second or more.

    ./dev bench restart [COMMITS [KILLS]]
"""
import http.client
import os
import pathlib
import socket
import statistics
import sys
import tempfile
import threading
import time

import cluster as graft
import wire
from history.hashes import NO_CHAIN, chain

VOLUMES = 8
PIPELINE = 200  # requests that are sent before their answers are read
RETRY = 0.002


class Log:
    """A volume whose commits carry nothing: what they hold does not matter to a restart."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.vid, self.lsn, self.chain = wire.gid(wire.VOLUME), 0, NO_CHAIN
        caller = wire.Caller(daemon)
        answer = caller.post("create_volume", {1: self.vid, 2: 4096, 3: 1})
        assert answer.code == 200, answer.text
        caller.close()

    def next(self):
        """The request of the next commit."""
        token = os.urandom(16)
        fields = {1: self.vid, **({2: self.lsn} if self.lsn else {}), 3: self.chain, 4: token, 5: token,
                  6: wire.gid(0x83), 7: 100, 8: 0 if self.lsn == 0 else 100}
        self.lsn += 1
        self.chain = chain(self.chain, self.vid, self.lsn, token, token, 100)
        return wire.encode(fields)

    def fill(self, count):
        """Each request knows what the answer before it will say, so they need not wait for it."""
        connection = socket.create_connection(("127.0.0.1", self.daemon.port()))
        answers = connection.makefile("rb")
        while count > 0:
            batch = min(count, PIPELINE)
            bodies = [self.next() for _ in range(batch)]
            connection.sendall(b"".join(
                b"POST /v1/commit HTTP/1.1\r\nHost: graft\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
                % (wire.PROTOBUF.encode(), len(body), body) for body in bodies))
            for _ in range(batch):
                line, size = answers.readline(), 0
                while (header := answers.readline()) != b"\r\n":
                    name, value = header.split(b":", 1)
                    size = int(value) if name.lower() == b"content-length" else size
                body = answers.read(size)
                assert b" 200 " in line, (line, wire.decode(body))
            count -= batch
        connection.close()

    def commit(self):
        """The next one, tried until it is acknowledged."""
        request = self.next()
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port(), timeout=30)
            try:
                connection.request("POST", "/v1/commit", request, {"Content-Type": wire.PROTOBUF})
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 200:
                    return
                assert answer.status == 503, (answer.status, wire.decode(body))
            except (ConnectionError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(RETRY)


def measure(commits, kills):
    with tempfile.TemporaryDirectory(prefix="graft-restart-") as folder:
        cluster = graft.Cluster(pathlib.Path(folder))
        metastore = cluster.metastore
        logs = [Log(metastore) for _ in range(VOLUMES)]
        # Half of them in one volume.
        shares = [commits // 2] + [commits // 2 // (VOLUMES - 1)] * (VOLUMES - 1)
        threads = [threading.Thread(target=log.fill, args=(share,)) for log, share in zip(logs, shares)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        times = []
        for turn in range(kills):
            began = time.monotonic()
            metastore.process.kill()
            metastore.process.wait()
            metastore.launch()
            logs[turn % VOLUMES].commit()
            times.append(time.monotonic() - began)
        held = sum(log.lsn for log in logs)
        cluster.stop()
    return held, sorted(times)


def main():
    commits, kills = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, 100_000), (2, 200)))
    held, times = measure(commits, kills)
    p99 = times[min(len(times) - 1, -(-99 * len(times) // 100) - 1)]
    print(f"{held} commits in {VOLUMES} volumes, {kills} kills, load {os.getloadavg()[0]:.1f}: next acknowledged commit "
          f"after {1000 * statistics.median(times):.0f} ms (median), {1000 * p99:.0f} ms (p99), "
          f"{1000 * times[-1]:.0f} ms (largest)")
    sys.exit(p99 >= 1)


if __name__ == "__main__":
    main()
