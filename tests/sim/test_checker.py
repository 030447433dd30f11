# SPDX-License-Identifier: Apache-2.0
"""The checker against histories that are made up: a clean one passes, each single lie in it is named."""
import copy
import json
import os
import random
import sys
import tempfile
import time
import unittest

import cluster
import history
import wire
from history.events import tell
from history.hashes import NO_CHAIN, blank, chain, digest, fork_digest, fork_token, hash128
from history.remote import Commit, Volume

PAGE_SIZE = 1024
VID, FORK = wire.gid(wire.VOLUME), wire.gid(wire.VOLUME)
CID = wire.gid(0x83)


class World:
    """A metastore and clients that only make lines: what a right implementation would have written."""

    def __init__(self):
        self.lines, self.volume = [], Volume(VID, 0, PAGE_SIZE, True)
        self.time = 0
        self.clients = {}
        self.states = [{}]  # {page: content} at each LSN
        self.counts = [0]

    def line(self, client, event, op, id=0, **fields):
        self.time += 1
        self.lines.append({"t": self.time, "c": client.name, "r": client.run, "i": id, "e": event, "op": op,
                           "vid": wire.gid_text(VID), **fields})
        return self.lines[-1]

    def append(self, token, base, content, page_count, cut, pages):
        """Adds an entry to the log."""
        volume = self.volume
        before = volume.commits[volume.head].chain if volume.head else NO_CHAIN
        volume.head += 1
        runs = wire.page_set(*((page, 1) for page in sorted(pages)))
        references = [wire.encode({1: wire.gid(wire.SEGMENT), 2: VID, 3: runs})] if pages else []
        volume.commits[volume.head] = Commit(
            {1: [VID], 2: [volume.head], 3: [base], 4: [before], 5: [token], 6: [content], 7: [CID], 8: [page_count],
             9: [cut], 11: references, 12: [chain(before, VID, volume.head, token, content, page_count)]})
        return volume.head

    def rechain(self):
        """After the log was tampered with: chains that fit."""
        before = NO_CHAIN
        for lsn, commit in sorted(self.volume.commits.items()):
            commit.lsn, commit.base, commit.base_chain = lsn, lsn - 1, before
            before = commit.chain = chain(before, VID, lsn, commit.token, commit.digest, commit.page_count)

    def find(self, **fields):
        """The last line that has these fields."""
        return [line for line in self.lines if all(line.get(key) == value for key, value in fields.items())][-1]


class Client:
    def __init__(self, world, name):
        self.world, self.name, self.run, self.id = world, name, 0, 0
        self.pages, self.count = {}, 0
        self.local = self.mapped = self.remote = 0
        self.pending = []  # (writes, page_count, cut) that were not pushed
        self.push_state = {}
        self.status = "ok"
        self.open()

    def state(self):
        return {"local": self.local, "mapped": self.mapped, "remote": self.remote, "count": self.count,
                "status": self.status, **self.push_state}

    def invoke(self, op, **fields):
        self.id += 1
        self.world.line(self, "invoke", op, self.id, **fields)
        return self.id

    def open(self):
        self.run += 1
        self.world.line(self, "ok", "open", self.invoke("open"), **self.state())

    def commit(self, writes, truncate=None, dies=False, lands=True):
        """`dies`: the process ends within, before or after the commit became durable."""
        count = max([self.count if truncate is None else truncate, *writes])
        cut = min(self.count, self.count if truncate is None else truncate)
        contents = {page: (len(data), hash128(data)) for page, data in writes.items()}
        id = self.invoke("commit", base=self.local, count=count, cut=cut,
                         writes=[[page, size, content.hex()] for page, (size, content) in contents.items()])
        if dies and not lands:
            return
        self.pages = {**{page: content for page, content in self.pages.items() if page <= cut}, **contents}
        self.count = count
        self.pending.append((contents, count, cut))
        self.local += 1
        if not dies:
            self.world.line(self, "ok", "commit", id, lsn=self.local, **self.state())

    def push(self, answer="ok", lands=True):
        """`answer`: ok, rejected, or none: the push stays under way, whether it landed or not."""
        id = self.invoke("push")
        if not self.push_state:
            self.carries = {}
            cut = self.world.counts[self.remote]
            for writes, count, lowest in self.pending:
                self.carries = {page: c for page, c in self.carries.items() if page <= lowest} | writes
                cut = min(cut, lowest)
            self.push_state = {"token": os.urandom(16).hex(), "base": self.remote, "from": self.mapped, "to": self.local,
                               "cut": cut, "pushes": self.count}
            self.world.line(self, "note", "begin", **self.push_state)
        state, token = self.push_state, bytes.fromhex(self.push_state["token"])
        content = digest(VID, state["base"], state["pushes"], state["cut"], self.carries)
        self.world.line(self, "note", "send", token=token.hex(), digest=content.hex(), base=state["base"],
                        pushes=state["pushes"], cut=state["cut"], segments=1)
        world, landed = self.world, None
        for lsn, commit in world.volume.commits.items():
            if commit.token == token:
                landed = lsn
        if answer != "rejected" and lands and not landed:
            landed = world.append(token, self.remote, content, state["pushes"], state["cut"], self.carries)
            world.states.append(dict(self.pages))
            world.counts.append(self.count)
        if answer == "ok":
            world.line(self, "note", "settle", token=token.hex(), digest=content.hex(), lsn=landed)
            self.push_state, self.mapped, self.remote, self.pending = {}, state["to"], landed, []
        elif answer == "rejected":
            world.line(self, "note", "reject", token=token.hex(), error="CONFLICT", detail="NOT_HEAD", message="")
            self.push_state, self.status = {}, "rejected"
        event = {"ok": "ok", "rejected": "fail", "none": "info"}[answer]
        world.line(self, event, "push", id, **self.state(), **({} if answer == "ok" else {"error": "", "message": ""}))

    def follow(self, op):
        id = self.invoke(op)
        self.remote = self.world.volume.head
        self.pages, self.count = dict(self.world.states[self.remote]), self.world.counts[self.remote]
        self.local += 1
        self.mapped, self.pending, self.status = self.local, [], "ok"
        self.world.line(self, "note", "pulled" if op == "pull" else "dropped", local=self.local, remote=self.remote)
        self.world.line(self, "ok", op, id, **self.state())

    def pull(self):
        if self.remote < self.world.volume.head:
            self.follow("pull")
        else:
            self.world.line(self, "ok", "pull", self.invoke("pull"), **self.state())

    def reset(self):
        self.follow("reset")

    def read(self):
        pages = [[page, *self.pages.get(page, blank(0))] for page in range(1, self.count + 1)]
        return self.world.line(self, "ok", "read", self.invoke("read"), local=self.local, remote=self.remote,
                               count=self.count, broken=0, pages=[[p, size, content.hex()] for p, size, content in pages])

    def past(self, lsn):
        pages = [[page, *self.world.states[lsn].get(page, blank(0))] for page in range(1, self.world.counts[lsn] + 1)]
        return self.world.line(self, "ok", "past", self.invoke("past"), local=0, remote=lsn,
                               count=self.world.counts[lsn], broken=0,
                               pages=[[p, size, content.hex()] for p, size, content in pages])


def bytes_of(*what):
    return repr(what).encode().ljust(64)


class CheckerTest(unittest.TestCase):
    def setUp(self):
        """Two clients, conflicts, a truncation, a crash or two."""
        self.others = {}
        self.world = world = World()
        self.a, self.b = a, b = Client(world, "a"), Client(world, "b")
        for sequence in range(3):
            a.commit({page: bytes_of("a", sequence, page) for page in (1, 2, 3, 4, 5, 6)})
            a.push()
            b.pull()
            b.read()
        b.commit({1: bytes_of("b", 1)})
        a.commit({2: bytes_of("a", "late")})
        a.push()
        b.push("rejected")
        b.reset()
        b.read()
        a.commit({}, truncate=3)
        a.commit({6: bytes_of("a", "grown")})
        a.push("none")
        a.read()
        a.open()
        a.push()
        b.pull()
        self.grown = b.read()
        a.commit({1: bytes_of("a", "in flight")}, dies=True)
        a.open()
        a.read()
        a.push()
        b.past(2)
        b.pull()
        b.read()

    power_fails = False

    def judged(self):
        report = history.Report()
        history.judge(tell(self.world.lines, self.power_fails), {VID: self.world.volume, **self.others}, report)
        return report

    def fork(self, told=True):
        """a's, of what it has, with a local commit that was not pushed."""
        a, volume = self.a, self.world.volume
        a.commit({2: bytes_of("unpushed")})
        origin, base = volume.commits[a.remote], a.remote
        token = fork_token(VID, base, origin.chain, FORK, 1)
        runs = wire.page_set(*((page, 1) for page in sorted(self.world.states[base])))
        references = [(wire.gid(wire.SEGMENT), VID, runs)]
        content = fork_digest(references)
        self.copy = Commit({1: [FORK], 2: [1], 3: [0], 4: [NO_CHAIN], 5: [token], 6: [content], 7: [b""],
                            8: [self.world.counts[base]], 9: [0],
                            11: [wire.encode(dict(enumerate(reference, 1))) for reference in references],
                            12: [chain(NO_CHAIN, FORK, 1, token, content, self.world.counts[base])]})
        self.others[FORK] = Volume(FORK, 1, PAGE_SIZE, True)
        self.others[FORK].commits[1] = self.copy
        id = a.invoke("fork")
        self.world.line(a, "note", "forking", fork=wire.gid_text(FORK), local=a.local, mapped=a.mapped, remote=a.remote)
        if told:
            self.world.line(a, "ok", "fork", id, **a.state(), fork=wire.gid_text(FORK))
        else:
            a.open()
        self.forked = {"vid": wire.gid_text(FORK), "local": 2, "mapped": 1, "remote": 1, "count": a.count}
        id = a.invoke("open", vid=self.forked["vid"])
        self.opened = self.world.line(a, "ok", "open", id, **{**self.forked, "status": "ok"})
        read = a.read()
        read.update(self.forked)
        self.world.find(op="read", e="invoke")["vid"] = self.forked["vid"]
        return read

    def delete(self, completed=True):
        id = self.a.invoke("delete")
        if completed:
            self.world.line(self.a, "ok", "delete", id)
        self.world.volume.deleted, self.world.volume.commits = True, {}
        self.world.volume.head += 1

    def expect(self, *names):
        report = self.judged()
        self.assertEqual(report.names(), set(names), str(report))

    def test_a_right_history_passes(self):
        report = self.judged()
        report.require()
        self.assertGreater(report.figures["pages_read"], 40)

    def test_it_passes_from_a_file_with_a_piece_of_a_line(self):
        with tempfile.TemporaryDirectory() as folder:
            path = folder + "/a.jsonl"
            with open(path, "w") as file:
                for line in self.world.lines:
                    if line["c"] == "a":
                        if line["op"] == "open" and line["e"] == "invoke":
                            file.write('{"t":12,"c":"a","e":"invo')
                        file.write(json.dumps(line, separators=(",", ":")) + "\n")
            events = history.load([path])
        self.assertEqual(events.figures["runs"], 3)
        self.assertEqual(events.anomalies, [])

    def test_lost_acknowledgement(self):
        del self.world.volume.commits[self.world.volume.head]
        self.world.volume.head -= 1
        self.world.lines = [line for line in self.world.lines if line["c"] == "a"]  # b read what is gone now
        self.expect("lost acknowledgement")

    def test_duplicate_commit(self):
        first = self.world.volume.commits[2]
        self.world.append(first.token, 2, first.digest, first.page_count, first.cut, first.pages())
        self.world.rechain()
        self.expect("duplicate commit")

    def test_token_nobody_sent(self):
        self.world.append(os.urandom(16), self.world.volume.head, bytes(16), 6, 6, {1})
        self.expect("token that nobody sent")

    def test_a_token_that_was_chosen_and_never_sent(self):
        token = self.world.find(op="begin", c="a")["token"]
        self.world.lines = [line for line in self.world.lines if not (line["op"] == "send" and line["token"] == token)]
        self.expect("token that nobody sent")

    def test_what_lay_in_a_hole_is_missed(self):  # the hole itself is reported where the log is fetched
        del self.world.volume.commits[3]
        self.assertIn("lost acknowledgement", self.judged().names())

    def test_wrong_digest(self):
        self.world.volume.commits[2].digest = bytes(16)
        self.world.rechain()
        self.expect("wrong digest")

    def test_broken_chain(self):
        self.world.volume.commits[2].chain = bytes(16)
        self.expect("broken chain")

    def test_wrong_content(self):
        self.world.volume.commits[2].cut = 1
        self.expect("wrong content")

    def test_reordered_acknowledgements(self):
        commits = self.world.volume.commits
        commits[1], commits[2] = commits[2], commits[1]
        self.world.rechain()
        self.assertLessEqual({"reordered acknowledgements", "wrong LSN"}, self.judged().names())

    def test_rejected_commit_landed(self):
        reject = self.world.find(op="reject")
        self.world.lines = self.world.lines[:self.world.lines.index(reject) + 1]
        send = self.world.find(op="send", token=reject["token"])
        self.world.append(bytes.fromhex(reject["token"]), send["base"], bytes.fromhex(send["digest"]), 6, 6, {1})
        self.assertIn("rejected commit landed", self.judged().names())

    def test_discarded_commit_came_back(self):
        reject = self.world.find(op="reject")
        send = self.world.find(op="send", token=reject["token"])
        self.world.append(bytes.fromhex(reject["token"]), send["base"], bytes.fromhex(send["digest"]), 6, 6, {1})
        self.world.rechain()
        self.expect("discarded commit came back")

    def test_discarded_pages_came_back(self):
        stray = self.world.find(c="b", op="commit", e="invoke")["writes"][0]
        self.world.find(c="b", op="read")["pages"][0] = stray
        self.expect("discarded commit came back")

    def test_stale_read(self):
        reads = [line for line in self.world.lines if line["op"] == "read" and line["c"] == "b" and line["e"] == "ok"]
        reads[2]["pages"] = reads[1]["pages"]
        self.expect("stale read")

    def test_stale_pull(self):
        pulls = [line for line in self.world.lines if line["op"] == "pull" and line["c"] == "b" and line["e"] == "ok"]
        end = self.world.lines.index(pulls[1]) + 1
        self.world.lines = self.world.lines[:end] + [line for line in self.world.lines[end:] if line["c"] == "a"]
        del self.world.lines[end - 2]  # what it took over
        pulls[1].update({key: pulls[0][key] for key in ("local", "mapped", "remote", "count")})
        self.expect("stale read")

    def test_mixed_snapshot(self):
        reads = [line for line in self.world.lines if line["op"] == "read" and line["c"] == "b" and line["e"] == "ok"]
        reads[2]["pages"][1] = reads[1]["pages"][1]
        self.expect("mixed snapshot")

    def test_resurrected_page(self):
        before = [line for line in self.world.lines if line["op"] == "read" and line["c"] == "b" and line["e"] == "ok"][2]
        self.grown["pages"][4] = before["pages"][4]
        self.expect("resurrected page")

    def test_wrong_bytes(self):
        self.grown["pages"][0][2] = "00" * 16
        self.expect("wrong bytes")

    def test_wrong_length(self):
        self.grown["count"] = 7
        self.expect("wrong length")

    def test_non_monotonic_read(self):
        a, b = self.a, self.b
        b.local, b.remote = b.local - 1, b.remote - 1
        b.pages, b.count = self.world.states[b.remote], self.world.counts[b.remote]
        b.read()
        self.expect("non-monotonic read")

    def test_lost_local_commit(self):
        self.a.commit({1: bytes_of("a", "gone")})
        self.a.local -= 1
        self.a.pages = dict(self.world.states[-1])
        self.a.open()
        self.a.read()
        self.assertIn("lost local commit", self.judged().names())

    def test_local_commit_that_was_not_made(self):
        self.a.local += 1
        self.a.open()
        self.expect("local commit that nobody made")

    def test_in_flight_local_commit_may_be_lost(self):
        self.a.commit({1: bytes_of("a", "lost")}, dies=True, lands=False)
        self.a.open()
        self.a.read()
        self.expect()

    def test_a_commit_whose_sync_failed_may_be_there(self):
        """What the process tries next meets a store that takes nothing any more."""
        a, failed = self.a, {"error": "INTERNAL", "detail": "IO", "message": "the disk"}
        before = a.state()
        a.commit({1: bytes_of("a", "unsynced")}, dies=True)
        self.world.line(a, "info", "commit", a.id, lsn=0, **before, **failed)
        self.world.line(a, "info", "reset", a.invoke("reset"), **before, **failed)
        self.world.line(a, "info", "pull", a.invoke("pull"), **before, **{**failed, "error": "UNAVAILABLE"})
        a.open()
        a.read()
        self.expect()

    def test_unknown_push_may_be_lost(self):
        self.a.commit({1: bytes_of("a", "x")})
        self.a.push("none", lands=False)
        self.a.open()
        self.expect()

    def test_push_forgotten(self):
        self.a.commit({1: bytes_of("a", "x")})
        self.a.push("none", lands=False)
        self.a.push_state = {}
        self.a.open()
        self.expect("push forgotten")

    def test_a_push_whose_settling_was_not_logged(self):
        self.a.commit({1: bytes_of("a", "x")})
        self.a.push("none")
        self.a.push_state, self.a.mapped, self.a.remote = {}, self.a.local, self.world.volume.head
        self.a.open()
        self.expect()

    def lose_power(self):
        """a has two local commits, of which a loss of power takes the second; another takes its LSN."""
        self.a.commit({1: bytes_of("a", "kept")})
        self.a.read()
        pages = dict(self.a.pages)
        self.a.commit({1: bytes_of("a", "lost"), 2: bytes_of("a", "lost")})
        self.a.read()
        self.a.local, self.a.pages = self.a.local - 1, pages
        self.a.pending.pop()
        self.a.open()
        self.world.lines[-1]["durability"] = "normal"

    def test_a_loss_of_power_with_normal_durability(self):
        self.power_fails = True
        self.lose_power()
        self.a.read()
        self.a.commit({3: bytes_of("a", "another")})
        self.a.read()
        self.a.push()
        self.b.pull()
        read = self.b.read()
        self.expect()
        read["pages"][1][2] = hash128(bytes_of("a", "lost")).hex()
        self.expect("wrong bytes")

    def test_what_a_mere_end_of_the_process_may_not_take(self):
        self.lose_power()
        self.expect("lost local commit")

    def test_what_no_loss_of_power_may_take(self):
        self.power_fails = True
        self.lose_power()
        opened = self.world.lines.pop()
        self.world.lines.append({**opened, "durability": "full"})
        self.expect("lost local commit")
        begin = {**self.world.find(op="read", e="invoke"), "e": "note", "op": "begin", "token": os.urandom(16).hex(),
                 "base": self.a.remote, "from": self.a.mapped, "to": self.a.local + 1, "cut": 0, "pushes": 6}
        self.world.lines[-2:] = [begin, self.world.lines[-2], opened]
        self.expect("lost local commit", "push forgotten")
    def end_of_a_pull(self, error):
        """b's pull ends so, and is found done when b is opened again."""
        self.a.commit({1: bytes_of("a", "more")})
        self.a.push()
        b, world = self.b, self.world
        world.line(b, "info", "pull", b.invoke("pull"), **b.state(), error=error, message="")
        b.local, b.remote = b.local + 1, world.volume.head
        b.mapped, b.pages, b.count = b.local, dict(world.states[b.remote]), world.counts[b.remote]
        b.open()
        b.read()

    def test_a_pull_in_which_the_store_failed_may_be_done(self):
        self.end_of_a_pull("INTERNAL")
        self.expect()

    def test_a_pull_without_an_answer_is_not_done(self):
        self.end_of_a_pull("UNAVAILABLE")
        self.expect("local commit that nobody made")

    def test_two_volumes_of_one_client_are_two_stories(self):
        """What a process died in is held against that volume alone, whichever is opened first."""
        self.fork()
        a = self.a
        a.commit({1: bytes_of("a", "in flight")}, dies=True)
        a.run += 1
        self.world.line(a, "ok", "open", a.invoke("open", vid=self.forked["vid"]), **self.forked, status="ok")
        a.run -= 1  # the same process
        a.open()
        a.read()
        self.expect()

    def test_a_fork(self):
        self.fork()
        self.expect()

    def test_a_fork_of_which_the_process_was_never_told(self):
        self.fork(told=False)
        self.expect()

    def test_a_fork_without_what_was_unpushed(self):
        read = self.fork()
        self.opened.update(local=1)
        self.world.lines.remove(read)
        self.expect("lost local commit")

    def test_a_fork_that_reads_otherwise_than_its_origin(self):
        read = self.fork()
        read["pages"][2][2] = "00" * 16
        self.expect("wrong bytes")

    def test_a_fork_by_somebody_else(self):
        self.fork()
        self.copy.token = os.urandom(16)
        self.copy.chain = chain(NO_CHAIN, FORK, 1, self.copy.token, self.copy.digest, self.copy.page_count)
        self.assertLessEqual({"lost acknowledgement", "token that nobody sent"}, self.judged().names())

    def test_a_fork_of_other_pages(self):
        self.fork()
        self.copy.references[0][3] = [wire.page_set((1, 1))]
        self.expect("wrong content", "wrong digest")

    def test_a_volume_new_here_with_a_commit_of_nobody(self):
        self.fork()
        self.world.lines = [line for line in self.world.lines if line["op"] not in ("fork", "forking")]
        self.assertIn("local commit that nobody made", self.judged().names())

    def test_a_deleted_volume(self):
        self.delete()
        self.expect()

    def end_of_the_log(self):
        """The volume's last commit, as the metastore keeps it."""
        volume = self.world.volume
        last = volume.commits[volume.head]
        lsn = self.world.append(os.urandom(16), volume.head, bytes(16), last.page_count, last.page_count, set())
        volume.commits[lsn].deleted, volume.commits[lsn].cid = True, b""
        self.world.states.append(self.world.states[-1])
        self.world.counts.append(last.page_count)

    def test_a_deleted_volume_whose_log_is_known(self):
        self.world.line(self.a, "ok", "delete", self.a.invoke("delete"))
        self.end_of_the_log()
        self.world.volume.deleted = True
        self.expect()
        self.world.find(op="read", e="ok")["pages"][0][2] = "00" * 16
        self.expect("wrong bytes")

    def test_a_commit_after_the_end(self):
        self.world.line(self.a, "ok", "delete", self.a.invoke("delete"))
        self.end_of_the_log()
        self.world.append(os.urandom(16), self.world.volume.head, bytes(16), 6, 6, set())
        self.world.volume.deleted = True
        self.expect("commit after the end", "token that nobody sent")

    def test_a_deletion_that_is_not_learned(self):
        self.delete()
        self.world.line(self.b, "note", "settled", **self.b.state(), deleted=True)
        self.expect()
        settled = self.world.find(op="settled")
        settled["deleted"] = False
        self.expect("deletion not learned")
        settled["deleted"] = True
        self.world.line(self.b, "ok", "pull", self.b.invoke("pull"), **self.b.state())
        self.expect("deletion not learned")

    def test_a_push_that_is_acknowledged_after_the_end(self):
        self.a.commit({1: bytes_of("a", "late")})
        id = self.a.invoke("delete")
        self.world.line(self.a, "ok", "delete", id)
        self.a.push()
        self.end_of_the_log()
        self.world.volume.deleted = True
        self.expect("deletion not learned")

    def test_a_volume_that_may_have_been_deleted(self):
        self.delete(completed=False)
        self.expect()

    def test_a_volume_that_nobody_deleted(self):
        self.delete()
        self.world.lines = [line for line in self.world.lines if line["op"] != "delete"]
        self.expect("volume lost")

    def test_a_deleted_volume_came_back(self):
        volume = copy.copy(self.world.volume)
        self.delete()
        self.world.volume = volume
        self.expect("deleted volume came back")

    def test_a_volume_ends_below_what_was_acknowledged(self):
        self.delete()
        self.world.volume.head -= 1
        self.expect("lost acknowledgement")

    def test_a_clone_that_is_behind(self):
        Client(self.world, "clone")
        opened = self.world.find(c="clone", op="open", e="ok")
        opened.update(local=1, mapped=1, remote=self.world.volume.head)
        self.expect()
        opened["remote"] -= 1
        self.expect("stale read")

    def test_a_reset_that_is_behind(self):
        reset = self.world.find(op="reset", e="ok")
        acknowledged = [line for line in self.world.lines[:self.world.lines.index(reset)] if line["op"] == "settle"]
        reset["remote"] = acknowledged[-1]["lsn"] - 1
        self.expect("stale read")

    def test_the_bank(self):
        read = self.world.find(c="b", op="read", e="ok")
        last = self.world.volume.commits[2]
        read.update(total=10, opening=10, ledger=[[2, last.token.hex()]])
        self.expect()
        read["total"] = 11
        self.expect("money made or lost")
        read.update(total=10, ledger=[[2, "00" * 16]])
        self.expect("lost acknowledgement")

    def test_twenty_thousand_operations_in_seconds(self):
        world = World()
        writer, reader = Client(world, "a"), Client(world, "b")
        dice = random.Random(7)
        while len(world.lines) < 40_000:
            writer.commit({dice.randint(1, 40): bytes_of(len(world.lines)) for _ in range(4)})
            if dice.random() < .5:
                writer.push()
            if dice.random() < .3:
                reader.pull()
                reader.read()
        self.world = world
        began = time.process_time()
        report = self.judged()
        seconds = time.process_time() - began
        report.require()
        print(f"# {report.figures['operations']} operations judged in {seconds:.1f} s", flush=True)
        self.assertLess(seconds, 10)


if __name__ == "__main__":
    sys.exit(cluster.main())
