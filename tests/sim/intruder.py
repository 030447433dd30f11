# SPDX-License-Identifier: Apache-2.0
"""A man in the middle who understands the protocol, for planting what no right server would say.

    with Intruder(cluster.metastore) as intruder:
        intruder.rules["commit"] = lambda body, forward: …      # (code, body) for the client
Calls without a rule pass through. Whole bodies are held in memory: volumes here are small.
"""
import http.client
import http.server
import threading

import wire


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def serve(self):
        body = self.body() if self.command == "POST" else None
        headers = {name: value for name, value in self.headers.items() if name in ("Content-Type", "Authorization")}

        def forward(changed=body):
            connection = http.client.HTTPConnection("127.0.0.1", self.server.daemon.port(), timeout=30)
            connection.request(self.command, self.path, changed, headers)
            answer = connection.getresponse()
            self.content_type = answer.getheader("Content-Type", wire.PROTOBUF)
            got = answer.status, answer.read()
            connection.close()
            return got

        self.content_type = wire.PROTOBUF
        rule = self.server.rules.get(self.path.rsplit("/", 1)[-1])
        code, answer = rule(body, forward) if rule else forward()
        self.send_response(code)
        self.send_header("Content-Type", self.content_type)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = serve


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):  # a client that went away
        pass


class Intruder:
    def __init__(self, daemon):
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon, self.rules = daemon, {}
        self.server.rules = self.rules
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
