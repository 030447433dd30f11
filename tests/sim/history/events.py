# SPDX-License-Identifier: Apache-2.0
"""What clients did, from the lines that they wrote (tests/sim/recorder.h).

A client works on one thread, so its lines are its story, in order: an operation is invoked, notes say what its push does
meanwhile, it completes, or the process dies and the next one opens its volumes. Followed here:

    Token     a push: what it was to carry, when it was sent, what the client was told
    Replica   one data directory's volume: which local LSN was made by what. Each opening is held against it.
    Fork      a volume that began as a snapshot of another, and what of the other's unpushed commits it took along
    Read      what was read of which snapshot
    Pull      how far a client had come when it had asked the servers
    Deletion  when the end of a volume was asked for, and acknowledged

Whatever is impossible by the client's own words is an anomaly here already; judge.py does the rest.
"""
import collections
import copy
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
    """A local LSN at which the replica took over a commit of the servers. `chain`: which history that is of, if known."""

    def __init__(self, line):
        self.lsn, self.chain = line["remote"], line.get("chain")


def roll_up(replica, first, last):
    """The local commits (first, last] as one: a Commit; None: not all are known."""
    commits = [replica.made.get(lsn) for lsn in range(first + 1, last + 1)]
    if not commits or not all(isinstance(commit, Commit) for commit in commits):
        return None
    whole = copy.copy(commits[-1])
    whole.base, whole.cut, whole.writes = commits[0].base, min(commit.cut for commit in commits), {}
    for commit in commits:
        for page in [page for page in whole.writes if page > commit.cut]:
            del whole.writes[page]
        whole.writes.update(commit.writes)
    return whole


# VID, the servers' LSN there, what it took along or None, whose it is, and whether it is known to be there
Fork = collections.namedtuple("Fork", "origin base commit client made")
Deletion = collections.namedtuple("Deletion", "invoked completed")
Read = collections.namedtuple("Read", "replica time local remote count pages total opening ledger attached")
Past = collections.namedtuple("Past", "replica time remote count pages")
Pull = collections.namedtuple("Pull", "replica invoked completed remote chain")


class Replica:
    def __init__(self, client, vid):
        self.client, self.vid = client, vid
        self.opened = False
        self.syncing = False  # in the background
        self.local = self.mapped = self.remote = 0
        self.reattached = 0   # the local LSN at which it took over another history last
        self.kept = 0         # the local LSN up to which everything was synced, whatever the durability
        self.made = {}        # local LSN: Commit or Remote
        self.token = None     # of the push under way
        self.rejected = None  # the last Token that was rejected and not yet reset

    @property
    def name(self):
        return f"{self.client}'s replica of {wire.gid_text(self.vid)}"


class History:
    """`power_fails`: where a process ended, so did its machine. With durability `normal` that takes the latest local
    commits along, but none on which something rested that was synced."""

    def __init__(self, power_fails=False):
        self.power_fails = power_fails
        self.tokens, self.replicas = {}, {}
        self.forgotten = []   # replicas that are no more
        self.forks, self.deletions = {}, {}  # by VID
        self.reads, self.pasts, self.pulls = [], [], []
        self.settled = []     # (replica, time, whether the servers said that the volume has ended)
        self.anomalies = []
        self.figures = collections.Counter()

    def vids(self):
        return sorted({replica.vid for replica in self.every_replica()} | self.forks.keys())

    def every_replica(self):
        return [*self.replicas.values(), *self.forgotten]

    def add(self, name, text):
        assert name in NAMED, name
        self.anomalies.append((name, text))


class Story:
    """One client's lines, told in order."""

    def __init__(self, history, client):
        self.history, self.client = history, client
        self.process = None
        self.current = None  # the invocation of the operation that has no answer yet
        self.failed = None   # of the first one that gave up with a store that failed, as long as nothing is done since
        self.left = {}       # by volume: the one that a process died in
        self.asked = {}      # by volume: when it was first asked for

    def replica(self, line):
        vid = wire.gid_bytes(line["vid"])
        key = self.client, vid
        if key not in self.history.replicas:
            self.history.replicas[key] = Replica(self.client, vid)
        return self.history.replicas[key]

    def tell(self, line):
        if line["r"] != self.process:
            self.begin_process(line["r"])
        if line["e"] == "invoke":
            self.invoke(line)
        elif line["e"] == "note":
            getattr(self, "note_" + line["op"])(self.replica(line), line)
        else:
            self.complete(line)

    def begin_process(self, process):
        left, self.process, self.current, self.failed = self.current or self.failed, process, None, None
        self.history.figures["runs"] += 1
        if left and left["op"] != "open":  # an opening that was cut short did nothing
            self.left[left.get("vid")] = left
            self.history.figures["interrupted_operations"] += 1

    def invoke(self, line):
        self.history.figures["operations"] += 1
        self.current = line
        if line["op"] == "open":
            self.asked.setdefault(line.get("vid"), line["t"])
        elif line["op"] == "delete":
            self.history.deletions.setdefault(wire.gid_bytes(line["vid"]), Deletion(line["t"], None))

    def complete(self, line):
        invoked, self.current = self.current, None
        assert invoked and invoked["i"] == line["i"] and invoked["op"] == line["op"], f"not a history: {line}"
        self.history.figures[f"{line['op']}_{line['e']}"] += 1
        # Who gave up with a store that failed did not learn whether it was done: opening it will tell. What is tried after
        # that meets a store that does nothing any more.
        if line["e"] == "info" and (line["op"] == "commit" or line.get("error") == "INTERNAL"):
            self.current = self.failed = self.failed or invoked
        elif line["e"] == "ok" and line["op"] not in ("read", "past"):
            self.failed = None
        if "vid" not in line:  # it could not even be opened
            if line.get("error") == "CORRUPT":
                self.history.add("corruption reported", f"{self.client}, {line['op']}: {line['message']}")
            return
        replica = self.replica(line)
        if line.get("error") == "CORRUPT":
            self.history.add("corruption reported", f"{replica.name}, {line['op']}: {line['message']}")
        replica.mapped = line.get("mapped", replica.mapped)
        replica.kept = max(replica.kept, replica.mapped)
        getattr(self, "end_" + line["op"])(replica, invoked, line)

    # ---- notes

    def note_begin(self, replica, line):
        token = bytes.fromhex(line["token"])
        known = self.history.tokens.setdefault(token, Token(token, replica, line))
        replica.token = known
        replica.kept = max(replica.kept, line.get("to", 0))
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

    def note_calm(self, replica, line):
        self.note_status(replica, line)

    def note_pulled(self, replica, line):
        """A local LSN that says: as the servers' LSN so and so."""
        replica.made[line["local"]] = Remote(line)
        replica.local = max(replica.local, line["local"])
        replica.kept = max(replica.kept, line["local"])
        replica.remote = max(replica.remote, line["remote"])

    def note_dropped(self, replica, line):
        self.note_pulled(replica, line)
        self.discard(replica, line["t"])
        if self.current and self.current["op"] == "reattach":  # to another history, in which it may be less far
            replica.remote = line["remote"]
            replica.reattached = line["local"]

    def discard(self, replica, time):
        for token in (replica.token, replica.rejected):
            if token and not token.settled:
                token.discarded = time
        replica.token = replica.rejected = None

    # ---- completions

    def end_open(self, replica, invoked, line):
        if line["e"] != "ok":
            return
        self.history.figures["opens_with_normal"] += line.get("durability") == "normal"
        left = self.left.pop(line["vid"], None)
        if left and left["op"] == "forget" and line.get("cloned"):  # it was done
            self.forget(replica)
            replica = self.replica(line)
        if replica.opened:
            if self.history.power_fails and line.get("durability") == "normal" and replica.kept <= line["local"] < replica.local:
                replica = self.without_the_latest(replica, line["local"])
            self.reopened(replica, line, left)
        else:
            self.opened_first(replica, invoked, line)
        pushing = "token" in line and bytes.fromhex(line["token"])
        token = replica.token
        if pushing and (not token or token.token != pushing):  # chosen, but the process died before it could say so
            if token:
                self.history.add("push forgotten", f"{token.name} gave way to another")
            self.note_begin(replica, line)
        elif token and not pushing:
            self.follow_up(replica, token, left, line)
        replica.syncing = False

    def without_the_latest(self, replica, local):
        """The replica with its latest commits gone, whose LSNs others will get. What was read of them stays the old one's."""
        self.history.figures["lost_with_normal"] += replica.local - local
        earlier = copy.copy(replica)
        self.history.forgotten.append(replica)
        earlier.made = {lsn: made for lsn, made in replica.made.items() if lsn <= local}
        earlier.local = local
        self.history.replicas[self.client, replica.vid] = earlier
        return earlier

    def opened_first(self, replica, invoked, line):
        """A volume that was made here, a clone, or a fork, whether somebody was told of it or not."""
        replica.opened = True
        replica.local, replica.remote = line["local"], line["remote"]
        replica.kept = replica.local
        fork = self.history.forks.get(replica.vid)
        if fork and (fork.client != self.client or line.get("cloned")):
            fork = None
        if fork:
            self.history.forks[replica.vid] = fork._replace(made=True)
        if line["mapped"] > 0:
            replica.made[line["mapped"]] = Remote(line)
        if fork and fork.commit and line["local"] == line["mapped"] + 1:
            replica.made[line["local"]] = fork.commit
        elif fork and fork.commit:
            self.history.add("lost local commit", f"{replica.name} is a fork and lacks what was unpushed where it came from")
        elif line["local"] > line["mapped"]:
            self.history.add("local commit that nobody made", f"{replica.name} is new and is at local LSN {line['local']}")
        asked = self.asked.pop(line["vid"] if "vid" in invoked else None, invoked["t"])
        if not fork and line["remote"] > 0:
            self.history.pulls.append(Pull(replica, asked, line["t"], line["remote"], line.get("chain")))

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
                replica.made[lsn] = Remote(line)
                if left and left["op"] == "reset":
                    self.discard(replica, line["t"])
            else:
                self.history.add("local commit that nobody made",
                                 f"{replica.name} was at local LSN {was} and is at {local}{died}")
                replica.made[lsn] = Remote(line)
        if left and left["op"] == "reattach" and mapped > was:
            self.discard(replica, line["t"])
            replica.reattached = mapped
        elif line["remote"] < replica.remote:
            self.history.add("mapping went back",
                             f"{replica.name} was based on LSN {replica.remote} and is on {line['remote']}")
        replica.local = replica.kept = local
        replica.remote = line["remote"]
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

    def end_push(self, replica, invoked, line):
        self.note_status(replica, line)

    def note_forking(self, replica, line):
        """The fork's name is chosen, and it may come to be from now on, as the replica is now."""
        replica.kept = max(replica.kept, line["local"])
        commit = roll_up(replica, line["mapped"], line["local"])
        self.history.forks[wire.gid_bytes(line["fork"])] = Fork(replica.vid, line["remote"], commit, self.client, False)

    def end_fork(self, replica, invoked, line):
        if line["e"] == "ok":
            vid = wire.gid_bytes(line["fork"])
            self.history.forks[vid] = self.history.forks[vid]._replace(made=True)

    def forget(self, replica):
        self.history.forgotten.append(self.history.replicas.pop((self.client, replica.vid)))
        self.left.pop(wire.gid_text(replica.vid), None)

    def note_settled(self, replica, line):
        self.history.settled.append((replica, line["t"], line["deleted"]))

    def end_forget(self, replica, invoked, line):
        if line["e"] == "ok":
            self.forget(replica)

    def end_delete(self, replica, invoked, line):
        if line["e"] == "ok":
            self.history.deletions[replica.vid] = self.history.deletions[replica.vid]._replace(completed=line["t"])

    def end_sync(self, replica, invoked, line):
        replica.syncing = line["e"] == "ok"

    def end_pull(self, replica, invoked, line):
        self.note_status(replica, line)
        if line["e"] == "ok":
            self.history.pulls.append(Pull(replica, invoked["t"], line["t"], line["remote"], line.get("chain")))

    end_reset = end_reattach = end_pull

    def contents(self, replica, line):
        if line["broken"]:
            self.history.add("page of nobody", f"{replica.name} read {line['broken']} pages that no workload made")
        return [(page, (size, bytes.fromhex(content))) for page, size, content in line["pages"]]

    def end_read(self, replica, invoked, line):
        if line["e"] == "ok":
            self.history.reads.append(Read(replica, invoked["t"], line["local"], line["remote"], line["count"],
                                           self.contents(replica, line), line.get("total"), line.get("opening"),
                                           line.get("ledger", ()), replica.reattached))

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


def load(paths, power_fails=False):
    """Any number of clients may share a file, each in its own order."""
    return tell((line for path in paths for line in lines_of(path)), power_fails)


def tell(lines, power_fails=False):
    """The same from lines in memory."""
    history, stories = History(power_fails), {}
    for line in lines:
        if line["c"] not in stories:
            stories[line["c"]] = Story(history, line["c"])
        stories[line["c"]].tell(line)
    return history
