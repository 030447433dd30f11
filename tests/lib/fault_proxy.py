# SPDX-License-Identifier: Apache-2.0
"""A network that lies: seeded proxies between clients and servers.

    network = Network(seed, {"drop_reply": 0.05, "delay": 0.2, …})     # a kind's probability per request
    url = network.link("teller-metastore", cluster.metastore.port(),   # each pair has a link of its own
                       cluster.metastore.port("watch"))                # the metastore's is two: see below
    …
    network.heal()                  # from now on everything passes; what was held or stalled is cut
    network.fired                   # Counter: how often each kind took effect, streams included
    network.fired_on_streams        # the same of watch streams alone
    network.close()

A link takes HTTP requests one by one. What happens to one is decided by the seed, the link, the call and how many of that
call the link has seen, and by nothing else, so that the same traffic meets the same faults. At most one kind a request:

    drop_request     the server never sees it; the connection is closed
    drop_reply       the server did it; its answer is lost and the connection closed
    delay            request and answer each wait a while
    duplicate        the server gets it twice, at once, on two connections
    replay           before it, a request of long ago comes to the server once more; its answer goes nowhere
    cut_request      the connection ends at some byte of the request, head and body alike
    cut_reply        the connection ends at some byte of the answer
    corrupt_request  one bit of a page's bytes is another (see PAGES)
    corrupt_reply    the same in an answer
    stall_request    half of the request comes, then nothing for a while, then the rest
    stall_reply      the same of the answer
    partition        for a while nothing passes, either way; what comes meanwhile is held, and cut in the end
    partition_out    for a while requests vanish; answers to earlier ones still come
    partition_back   for a while requests pass and answers vanish

Bodies are held in memory, up to BODY_MAX. But a `watch` stream is passed on piece by piece (as its server flushed it), and
what the kinds above say of an answer happens to one of its pieces, each of which is decided anew:

    drop_reply       it is lost, and the connection ends      delay         it and all behind it wait
    cut_reply        the connection ends within it            stall_reply   half of it, then nothing for a while
    corrupt_reply    one of its bits is another: that must do no harm but to delay what it told
    partition…       it and all behind it is held, and cut in the end

Clients ask the metastore where `watch` is; a link that was given the port of that as well answers with the address of the
link that it opens for it, named "<name>-watch".
"""
import asyncio
import collections
import json
import random
import threading

KINDS = ("drop_request", "drop_reply", "delay", "duplicate", "replay", "cut_request", "cut_reply", "corrupt_request",
         "corrupt_reply", "stall_request", "stall_reply", "partition", "partition_out", "partition_back")
BODY_MAX = 16 << 20
HEAD_MAX = 64 << 10
REMEMBERED = 256      # requests for replay
REPLAYED_MAX = 1 << 20
REPLAY_TIMEOUT = 10.0
# Pages carry checksums from writer to reader; nothing else of a message does. TCP's checksum and TLS guard the rest: a
# bit that changes in a CommitRequest makes another valid request.
# What a watch stream says is only a reason to ask, so any bit of it may change.
PAGES = {"write_pages": "corrupt_request", "read_pages": "corrupt_reply"}
STREAM, PIECE = "watch", "watch piece"
ON_REQUESTS = ("drop_request", "duplicate", "replay", "cut_request", "stall_request")
ON_PIECES = ("drop_reply", "delay", "cut_reply", "corrupt_reply", "stall_reply", "partition", "partition_out",
             "partition_back")


class Broken(Exception):
    """The peer went away, or the connection is to end."""


def take_varint(data, at):
    number = shift = 0
    while True:
        number |= (data[at] & 0x7f) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return number, at


def fields(data, at, end):
    """(number, first byte, byte after the last) of each length-delimited field of the message in [at, end)."""
    while at < end:
        tag, at = take_varint(data, at)
        if tag & 7 == 0:
            _, at = take_varint(data, at)
        elif tag & 7 == 1:
            at += 8
        else:
            size, at = take_varint(data, at)
            yield tag >> 3, at, at + size
            at += size


def page_bytes(body):
    """Where the pages' bytes lie in a page stream: (first, after the last) of each."""
    found, at = [], 0
    while at < len(body):
        size, at = take_varint(body, at)
        for frame, first, end in fields(body, at, at + size):
            if frame == 3:
                found += [(a, b) for number, a, b in fields(body, first, end) if number == 15 and b > a]
        at += size
    return found


class Message:
    """A request or an answer: its head's lines, its body."""

    def __init__(self, start, headers, body):
        self.start, self.headers, self.body = start, headers, body

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name), b"")

    def encode(self):
        kept = [(key, value) for key, value in self.headers
                if key.lower() not in (b"content-length", b"transfer-encoding", b"expect")]
        has_body = self.body or self.start.startswith((b"POST", b"HTTP"))
        lines = [self.start] + [key + b": " + value for key, value in kept]
        if has_body:
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body

    def call(self):
        return self.start.split(b" ")[1].rsplit(b"/", 1)[-1].decode(errors="replace")


async def chunk_size(reader):
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise Broken("half a chunk")
    return int(line.split(b";")[0], 16)


async def read_body(reader, message, is_answer):
    if b"chunked" in message.header(b"transfer-encoding").lower():
        body = bytearray()
        while size := await chunk_size(reader):
            if len(body) + size > BODY_MAX:
                raise Broken("too large")
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        while (await reader.readline()).strip():
            pass
        return bytes(body)
    if message.header(b"content-length"):
        size = int(message.header(b"content-length"))
        if size > BODY_MAX:
            raise Broken("too large")
        return await reader.readexactly(size)
    if is_answer and b" 204" not in message.start[:13]:
        return await reader.read(BODY_MAX)
    return b""


async def read_message(reader, writer=None, whole=True):
    """None at the end of the connection. `writer`: a request's sender, who may ask before it sends the body. Not `whole`:
    the body of an answer that is good is left where it is."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise Broken("half a head") from None
        return None
    start, *lines = head[:-4].split(b"\r\n")
    message = Message(start, [tuple(part.strip() for part in line.split(b":", 1)) for line in lines], b"")
    if start.startswith(b"HTTP/1.1 1"):
        return await read_message(reader, whole=whole)
    if not whole and start.startswith(b"HTTP/1.1 200"):
        return message
    if writer and message.header(b"expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    message.body = await read_body(reader, message, is_answer=writer is None)
    return message


class Connection:
    """One of a client's, and the one that it needs to the server."""

    def __init__(self, link, reader, writer):
        self.link, self.reader, self.writer = link, reader, writer
        self.up = None
        self.waiting = False  # for the next piece of a stream, which had no trouble so far

    async def serve(self):
        while request := await read_message(self.reader, self.writer):
            await self.exchange(request)

    async def server(self):
        if not self.up:
            self.up = await asyncio.open_connection("127.0.0.1", self.link.port, limit=HEAD_MAX)
        return self.up

    async def send(self, data):
        _, writer = await self.server()
        writer.write(data)
        await writer.drain()

    async def answer(self):
        reader, _ = await self.server()
        answer = await read_message(reader)
        if answer is None:
            raise Broken("the server closed")
        return answer

    async def reply(self, data):
        self.writer.write(data)
        await self.writer.drain()

    def close(self):
        for writer in (self.writer, self.up and self.up[1]):
            if writer:
                writer.close()

    # -- one request

    async def exchange(self, request):
        link, network = self.link, self.link.network
        network.requests += 1
        if request.call() == STREAM:
            await self.stream(request)
            return
        fault, dice = link.decide(request.call())
        if fault and fault.startswith("partition"):
            link.part(fault, dice.uniform(0.1, network.partition_max))
            fault = None
        await self.held("partition", "partition_out")
        link.remember(request, dice)
        await getattr(self, fault or "plain")(request, dice)

    async def held(self, *kinds):
        """While one of these partitions lasts, what comes is held; in the end its connection is cut."""
        if self.link.parted in kinds:
            self.link.network.held += 1
            await self.link.joined.wait()
            raise Broken("partition")

    async def pass_on(self, request):
        await self.send(request.encode())
        answer = await self.answer()
        await self.held("partition", "partition_back")
        return self.link.redirect(request, answer)

    # -- a stream

    async def stream(self, request):
        """A request that is answered by a stream: pieces, until one of the two ends it."""
        fault, dice = self.link.decide(STREAM)
        await self.held("partition", "partition_out")
        self.link.remember(request, dice)
        if fault in ("drop_request", "cut_request"):
            await getattr(self, fault)(request, dice)
        if fault == "replay" and (old := self.link.recall(dice)):
            self.link.fire(fault)
            self.link.send_aside(old)
        if fault == "duplicate":
            self.link.fire(fault)
            self.link.send_aside(request)
        if fault == "stall_request":
            await self.stall(fault, self.send, request.encode(), dice)
        else:
            await self.send(request.encode())
        reader, _ = await self.server()
        answer = await read_message(reader, whole=False)
        if answer is None:
            raise Broken("the server closed")
        chunked = b"chunked" in answer.header(b"transfer-encoding").lower()
        if not chunked:  # a refusal
            await self.reply(answer.encode())
            return
        await self.reply(b"\r\n".join([answer.start] + [key + b": " + value for key, value in answer.headers]) + b"\r\n\r\n")
        passing = asyncio.ensure_future(self.pass_pieces(reader))
        leaving = asyncio.ensure_future(self.reader.read(1))
        try:
            done, _ = await asyncio.wait((passing, leaving), return_when=asyncio.FIRST_COMPLETED)
            if passing not in done:
                raise Broken("the client closed")
            passing.result()
        finally:
            for task in (passing, leaving):
                task.cancel()
            await asyncio.gather(passing, leaving, return_exceptions=True)
        raise Broken("the stream has ended")

    async def pass_pieces(self, reader):
        self.waiting = True
        while size := await chunk_size(reader):
            if size > BODY_MAX:
                raise Broken("too large")
            data = await reader.readexactly(size)
            await reader.readexactly(2)
            self.waiting = False
            await self.pass_piece(data)
            self.waiting = True
        await self.reply(b"0\r\n\r\n")

    async def pass_piece(self, data):
        link, network = self.link, self.link.network
        fault, dice = link.decide(PIECE)
        if fault and fault.startswith("partition"):
            link.part(fault, dice.uniform(0.1, network.partition_max))
        await self.held("partition", "partition_out", "partition_back")
        if fault == "delay":
            link.fire(fault)
            await network.pause(dice.uniform(0, network.delay_max))
        if fault == "drop_reply":
            link.fire(fault)
            raise Broken("dropped")
        if fault == "corrupt_reply":
            changed = bytearray(data)
            changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            data = bytes(changed)
            link.fire(fault)
        piece = b"%x\r\n%s\r\n" % (len(data), data)
        if fault == "cut_reply":
            await self.reply(piece[:dice.randrange(len(piece))])
            link.fire(fault)
            raise Broken("cut")
        if fault == "stall_reply":
            await self.stall(fault, self.reply, piece, dice)
        else:
            await self.reply(piece)

    async def plain(self, request, dice):
        await self.reply((await self.pass_on(request)).encode())

    async def drop_request(self, request, dice):
        self.link.fire("drop_request")
        raise Broken("dropped")

    async def drop_reply(self, request, dice):
        await self.pass_on(request)
        self.link.fire("drop_reply")
        raise Broken("dropped")

    async def delay(self, request, dice):
        self.link.fire("delay")
        await self.link.network.pause(dice.uniform(0, self.link.network.delay_max))
        answer = await self.pass_on(request)
        await self.link.network.pause(dice.uniform(0, self.link.network.delay_max))
        await self.reply(answer.encode())

    async def duplicate(self, request, dice):
        self.link.fire("duplicate")
        self.link.send_aside(request)
        await self.plain(request, dice)

    async def replay(self, request, dice):
        old = self.link.recall(dice)
        if old:
            self.link.fire("replay")
            self.link.send_aside(old)
        await self.plain(request, dice)

    async def cut_request(self, request, dice):
        data = request.encode()
        await self.send(data[:dice.randrange(len(data))])
        self.link.fire("cut_request")
        raise Broken("cut")

    async def cut_reply(self, request, dice):
        data = (await self.pass_on(request)).encode()
        await self.reply(data[:dice.randrange(len(data))])
        self.link.fire("cut_reply")
        raise Broken("cut")

    def corrupt(self, message, kind, dice):
        places = page_bytes(message.body)
        if not places:
            return
        first, end = dice.choice(places)
        body = bytearray(message.body)
        body[dice.randrange(first, end)] ^= 1 << dice.randrange(8)
        message.body = bytes(body)
        self.link.fire(kind)

    async def corrupt_request(self, request, dice):
        self.corrupt(request, "corrupt_request", dice)
        await self.plain(request, dice)

    async def corrupt_reply(self, request, dice):
        answer = await self.pass_on(request)
        if b" 200" in answer.start[:13]:
            self.corrupt(answer, "corrupt_reply", dice)
        await self.reply(answer.encode())

    async def stall(self, kind, send, data, dice):
        half = dice.randrange(len(data))
        await send(data[:half])
        self.link.fire(kind)
        await self.link.network.pause(dice.uniform(0, self.link.network.stall_max))
        await send(data[half:])

    async def stall_request(self, request, dice):
        await self.stall("stall_request", self.send, request.encode(), dice)
        answer = await self.answer()
        await self.held("partition", "partition_back")
        await self.reply(self.link.redirect(request, answer).encode())

    async def stall_reply(self, request, dice):
        await self.stall("stall_reply", self.reply, (await self.pass_on(request)).encode(), dice)


class Link:
    def __init__(self, network, name, port, watch_url=None):
        self.network, self.name, self.port, self.watch_url = network, name, port, watch_url
        self.seen = collections.Counter()  # requests, by call
        self.remembered = []
        self.is_stream = name.endswith("-watch")
        self.parted, self.joined = None, asyncio.Event()
        self.timer = None

    def decide(self, call):
        """A kind of fault or None, and the dice for its details."""
        number = self.seen[call]
        self.seen[call] += 1
        dice = random.Random(f"{self.network.seed} {self.name} {call} {number}")
        at = dice.random()
        for kind, probability in self.network.faults_of(call).items():
            if (at := at - probability) < 0:
                return (kind if self.network.lying else None), dice
        return None, dice

    def fire(self, kind):
        self.network.fired[kind] += 1
        self.network.fired_on_streams[kind] += self.is_stream

    def redirect(self, request, answer):
        """Who asks where `watch` is finds it behind a link."""
        if self.watch_url and request.start.startswith(b"GET /v1/info ") and answer.start.startswith(b"HTTP/1.1 200"):
            answer.body = json.dumps({**json.loads(answer.body), "watch": self.watch_url}).encode()
        return answer

    def part(self, kind, seconds):
        if self.parted:
            return
        self.fire(kind)
        self.parted = kind
        self.timer = asyncio.get_running_loop().call_later(seconds, self.join)

    def join(self):
        self.parted = None
        self.joined.set()
        self.joined = asyncio.Event()

    # -- old requests

    def remember(self, request, dice):
        if not request.start.startswith(b"POST") or len(request.body) > REPLAYED_MAX // 16:
            return
        if len(self.remembered) < REMEMBERED:
            self.remembered.append(request)
        else:
            self.remembered[dice.randrange(REMEMBERED)] = request

    def recall(self, dice):
        """Commits before others: they are what must not happen twice."""
        commits = [request for request in self.remembered if request.call() == "commit"]
        return dice.choice(commits or self.remembered) if self.remembered else None

    def send_aside(self, request):
        self.network.start(self.aside(request.encode()))

    async def aside(self, data):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=HEAD_MAX)
        try:
            writer.write(data)
            await asyncio.wait_for(read_message(reader), REPLAY_TIMEOUT)
        finally:
            writer.close()

    async def serve(self, reader, writer):
        connection = Connection(self, reader, writer)
        self.network.connections.add(connection)
        try:
            await connection.serve()
        finally:
            self.network.connections.discard(connection)
            connection.close()


class Network:
    """`stream_faults`: the probabilities for requests of streams and for pieces of them, where they are to be others."""

    def __init__(self, seed, faults, delay_max=0.05, stall_max=1.0, partition_max=0.6, stream_faults=None):
        for given in (faults, stream_faults or {}):
            unknown = set(given) - set(KINDS)
            assert not unknown and sum(given.values()) <= 1, (unknown, given)
        self.seed, self.faults = seed, dict(faults)
        self.stream_faults = dict(faults if stream_faults is None else stream_faults)
        self.delay_max, self.stall_max, self.partition_max = delay_max, stall_max, partition_max
        self.lying = True
        self.fired, self.fired_on_streams = collections.Counter(), collections.Counter()
        self.requests = self.held = 0
        self.links, self.servers, self.connections, self.tasks = [], [], set(), set()
        self.loop = asyncio.new_event_loop()
        self.healed = asyncio.Event()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def faults_of(self, call):
        if call in (STREAM, PIECE):
            kinds = ON_REQUESTS if call == STREAM else ON_PIECES
            return {kind: probability for kind, probability in self.stream_faults.items() if kind in kinds}
        return {kind: probability for kind, probability in self.faults.items()
                if not kind.startswith("corrupt") or PAGES.get(call) == kind}

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def link(self, name, port, watch_port=None):
        """Its URL."""
        watch_url = watch_port and self.link(f"{name}-watch", watch_port)
        return f"http://127.0.0.1:{self.do(self.listen(name, port, watch_url))}"

    async def listen(self, name, port, watch_url):
        link = Link(self, name, port, watch_url)

        async def accept(reader, writer):
            await self.guarded(link.serve(reader, writer))
        server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=HEAD_MAX)
        self.links.append(link)
        self.servers.append(server)
        return server.sockets[0].getsockname()[1]

    async def guarded(self, coroutine):
        """Connections end in many ways, all of them the network's business."""
        task = asyncio.current_task()
        self.tasks.add(task)
        try:
            await coroutine
        except (Broken, OSError, EOFError, asyncio.TimeoutError, asyncio.CancelledError, asyncio.LimitOverrunError):
            pass
        finally:
            self.tasks.discard(task)

    def start(self, coroutine):
        self.loop.create_task(self.guarded(coroutine))

    async def pause(self, seconds):
        try:
            await asyncio.wait_for(self.healed.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    def heal(self):
        """Everything passes from now on, and what was held is cut. A stream that just waits for more goes on."""
        self.do(self.end_faults())

    async def end_faults(self):
        self.lying = False
        self.healed.set()
        for link in self.links:
            if link.timer:
                link.timer.cancel()
            link.join()
        for connection in list(self.connections):
            if not connection.waiting:
                connection.close()

    def close(self):
        self.do(self.end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def end(self):
        await self.end_faults()
        for server in self.servers:
            server.close()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
