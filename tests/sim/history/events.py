# SPDX-License-Identifier: Apache-2.0
"""What clients did, from the lines that they wrote (tests/sim/recorder.h).

A client works on one thread, so its lines are its story, in order: an operation is invoked, notes say what its push does
meanwhile, it completes, or the process dies and the next one opens the volume. Followed here:

    Token     a push: what it was to carry, when it was sent, what the client was told
    Replica   one data directory's volume: which local LSN was made by what. Each opening is held against it.
    Read      what was read of which snapshot
    Pull      how far a client had come when a pull was done

Whatever is impossible by the client's own words is an anomaly here already; judge.py does the rest.
"""
import collections
import json

import wire

NAMED = ("status corrupt", "lost local commit", "local commit that nobody made", "mapping went back", "push forgotten",
         "corruption reported", "page of nobody")


class Token:
    def __init__(self, token, replica, line):
        self.token, self.replica = token, replica
        self.vid = replica.vid
        self.base, self.cut, self.page_count = line["base"], line["cut"], line["pushes"]
        self.first, self.last = line.get("from"), line.get("to")  # local LSNs (first, last]; None: carries nothing
        self.sent = None       # when it first may have left
        self.digest = None     # as it was sent
        self.settled = None    # (time, LSN)
        self.rejected = None   # time
        self.discarded = None  # time of the reset that dropped what it carried

    @property
    def name(self):
        return f"{self.replica.client}'s token {self.token.hex()[:12]}"


class Commit:
    """A local commit, as it was invoked."""

    def __init__(self, line):
        self.base, self.page_count, self.cut = line["base"], line["count"], line["cut"]
        self.writes = {page: (size, bytes.fromhex(content)) for page, size, content in line["writes"]}


class Remote:
    """A local LSN at which the replica took over a commit of the servers."""

    def __init__(self, lsn):
        self.lsn = lsn


Read = collections.namedtuple("Read", "replica time local remote count pages total opening ledger")
Past = collections.namedtuple("Past", "replica time remote count pages")
Pull = collections.namedtuple("Pull", "replica invoked completed remote")


class Replica:
    def __init__(self, client, vid):
        self.client, self.vid = client, vid
        self.opened = False
        self.syncing = False  # in the background
        self.local = self.remote = 0
        self.made = {}        # local LSN: Commit or Remote
        self.token = None     # of the push under way
        self.rejected = None  # the last Token that was rejected and not yet reset

    @property
    def name(self):
        return f"{self.client}'s replica of {wire.gid_text(self.vid)}"


class History:
    def __init__(self):
        self.tokens, self.replicas = {}, {}
        self.reads, self.pasts, self.pulls = [], [], []
        self.anomalies = []
        self.figures = collections.Counter()

    def vids(self):
        return sorted({replica.vid for replica in self.replicas.values()})

    def add(self, name, text):
        assert name in NAMED, name
        self.anomalies.append((name, text))


class Story:
    """One client's lines, told in order."""

    def __init__(self, history, client):
        self.history, self.client = history, client
        self.current = None  # the invocation of the operation that has no answer yet
        self.left = None     # the one that the process before died in

    def replica(self, line):
        vid = wire.gid_bytes(line["vid"])
        key = self.client, vid
        if key not in self.history.replicas:
            self.history.replicas[key] = Replica(self.client, vid)
        return self.history.replicas[key]

    def tell(self, line):
        figures = self.history.figures
        if line["e"] == "invoke":
            figures["operations"] += 1
            if line["op"] == "open":
                if not self.current or self.current["op"] != "open":  # an opening that was cut short did nothing
                    self.left = self.current
                figures["runs"] += 1
                figures["interrupted_operations"] += self.left is not None
            self.current = line
            return
        if line["e"] == "note":
            getattr(self, "note_" + line["op"])(self.replica(line), line)
            return
        invoked, self.current = self.current, None
        assert invoked and invoked["i"] == line["i"] and invoked["op"] == line["op"], f"not a history: {line}"
        figures[f"{line['op']}_{line['e']}"] += 1
        if "vid" not in line:  # it could not even be opened
            self.current = self.left if line["op"] == "open" else invoked
            if line.get("error") == "CORRUPT":
                self.history.add("corruption reported", f"{self.client}, {line['op']}: {line['message']}")
            return
        replica = self.replica(line)
        if line.get("error") == "CORRUPT":
            self.history.add("corruption reported", f"{replica.name}, {line['op']}: {line['message']}")
        getattr(self, "end_" + line["op"])(replica, invoked, line)

    # ---- notes

    def note_begin(self, replica, line):
        token = bytes.fromhex(line["token"])
        known = self.history.tokens.setdefault(token, Token(token, replica, line))
        replica.token = known
        return known

    def note_send(self, replica, line):
        token = bytes.fromhex(line["token"])
        self.history.figures["fences"] += token not in self.history.tokens
        known = self.history.tokens.setdefault(token, Token(token, replica, line))
        known.sent = known.sent or line["t"]
        known.digest = bytes.fromhex(line["digest"])
        self.history.figures["commit_requests"] += 1

    def note_settle(self, replica, line):
        token = self.history.tokens.get(bytes.fromhex(line["token"]))
        token.settled = token.settled or (line["t"], line["lsn"])
        replica.token = None
        replica.remote = max(replica.remote, line["lsn"])
        self.history.figures["acknowledged_pushes"] += 1

    def note_reject(self, replica, line):
        token = self.history.tokens.get(bytes.fromhex(line["token"]))
        token.rejected = line["t"]
        replica.token, replica.rejected = None, token
        self.history.figures["rejected_pushes"] += 1

    def note_abandon(self, replica, line):
        replica.token = None

    def note_pulled(self, replica, line):
        """A local LSN that says: as the servers' LSN so and so."""
        replica.made[line["local"]] = Remote(line["remote"])
        replica.local = max(replica.local, line["local"])
        replica.remote = max(replica.remote, line["remote"])

    def note_dropped(self, replica, line):
        self.note_pulled(replica, line)
        self.discard(replica, line["t"])

    def discard(self, replica, time):
        for token in (replica.token, replica.rejected):
            if token and not token.settled:
                token.discarded = time
        replica.token = replica.rejected = None

    # ---- completions

    def end_open(self, replica, invoked, line):
        if line["e"] != "ok":
            self.current = self.left
            return
        left = self.left
        if not replica.opened:
            replica.opened = True
            replica.local, replica.remote = line["local"], line["remote"]
            if line["local"] > 0:
                replica.made[line["local"]] = Remote(line["remote"])
        else:
            self.reopened(replica, line, left)
        pushing = "token" in line and bytes.fromhex(line["token"])
        token = replica.token
        if pushing and (not token or token.token != pushing):  # chosen, but the process died before it could say so
            if token:
                self.history.add("push forgotten", f"{token.name} gave way to another")
            self.note_begin(replica, line)
        elif token and not pushing:
            self.follow_up(replica, token, left, line)
        replica.syncing = False

    def follow_up(self, replica, token, left, line):
        """The push that was under way is none any more: what became of it was decided just before the process died."""
        if line["status"] == "rejected":
            token.rejected, replica.rejected = line["t"], token
        elif line["remote"] > token.base and line["mapped"] >= (token.last or 0):
            token.settled = line["t"], token.base + 1
            self.history.figures["acknowledged_pushes"] += 1
        elif left and left["op"] == "reset":
            token.discarded = line["t"]
        else:
            self.history.add("push forgotten", f"{token.name}, on {token.base}, is neither pending nor settled")
        replica.token = None

    def reopened(self, replica, line, left):
        """Holds the state that is found against the state that is known, and takes it over. `left`: the operation that the
        process before died in."""
        local, mapped, was = line["local"], line["mapped"], replica.local
        died = f", after a {left['op']} that was cut short" if left else ""
        if local < was:
            self.history.add("lost local commit", f"{replica.name} was at local LSN {was} and is at {local}{died}")
        for lsn in range(was + 1, local + 1):
            if left and left["op"] == "commit" and left["base"] == lsn - 1 and not (lsn == mapped and not replica.token):
                replica.made[lsn] = Commit(left)
            elif lsn == mapped and (left or replica.syncing):
                replica.made[lsn] = Remote(line["remote"])
                if left and left["op"] == "reset":
                    self.discard(replica, line["t"])
            else:
                self.history.add("local commit that nobody made",
                                 f"{replica.name} was at local LSN {was} and is at {local}{died}")
                replica.made[lsn] = Remote(line["remote"])
        if line["remote"] < replica.remote:
            self.history.add("mapping went back",
                             f"{replica.name} was based on LSN {replica.remote} and is on {line['remote']}")
        replica.local, replica.remote = local, line["remote"]
        self.note_status(replica, line)

    def note_status(self, replica, line):
        if line["status"] == "corrupt":
            self.history.add("status corrupt", f"{replica.name}: {line.get('message', 'found when it was opened')}")

    def end_commit(self, replica, invoked, line):
        if line["e"] == "ok":
            lsn = line["lsn"]
            if lsn != invoked["base"] + 1 or lsn in replica.made:
                self.history.add("local commit that nobody made",
                                 f"{replica.name}: a commit on local LSN {invoked['base']} became {lsn}")
            replica.made[lsn] = Commit(invoked)
            replica.local = max(replica.local, lsn)
        elif line["e"] == "info":
            self.current = invoked  # the store failed: opening it will tell

    def end_push(self, replica, invoked, line):
        self.note_status(replica, line)

    end_reset = end_push

    def end_sync(self, replica, invoked, line):
        replica.syncing = line["e"] == "ok"

    def end_pull(self, replica, invoked, line):
        self.note_status(replica, line)
        if line["e"] == "ok":
            self.history.pulls.append(Pull(replica, invoked["t"], line["t"], line["remote"]))

    def contents(self, replica, line):
        if line["broken"]:
            self.history.add("page of nobody", f"{replica.name} read {line['broken']} pages that no workload made")
        return [(page, (size, bytes.fromhex(content))) for page, size, content in line["pages"]]

    def end_read(self, replica, invoked, line):
        if line["e"] == "ok":
            self.history.reads.append(Read(replica, invoked["t"], line["local"], line["remote"], line["count"],
                                           self.contents(replica, line), line.get("total"), line.get("opening"),
                                           line.get("ledger", ())))

    def end_past(self, replica, invoked, line):
        if line["e"] == "ok":
            self.history.pasts.append(Past(replica, invoked["t"], line["remote"], line["count"],
                                           self.contents(replica, line)))


def lines_of(path):
    """A process that was killed in the middle of a line leaves a piece of one, at the end or before the next run's."""
    with open(path, "rb") as file:
        for raw in file:
            try:
                yield json.loads(raw)
            except ValueError:
                tail = raw.rfind(b'{"t":')
                if tail > 0:
                    yield json.loads(raw[tail:])


def load(paths):
    """A file is one client's: one data directory."""
    history = History()
    for path in paths:
        story = None
        for line in lines_of(path):
            story = story or Story(history, line["c"])
            story.tell(line)
    return history


def tell(lines):
    """The same from lines in memory, of any number of clients."""
    history, stories = History(), {}
    for line in lines:
        stories.setdefault(line["c"], Story(history, line["c"])).tell(line)
    return history
