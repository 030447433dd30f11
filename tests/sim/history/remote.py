# SPDX-License-Identifier: Apache-2.0
"""What the servers have: the metastore's log of each volume, the pagestore's segments and pages."""
import http.client

import wire
from history.hashes import decompress, hash64, hash128
from history.pages import WILD

SNAPSHOTS = 24  # of a volume that are read whole through the pagestore


class Commit:
    def __init__(self, fields):
        def one(number, default):
            return fields.get(number, [default])[0]
        self.lsn, self.base = one(2, 0), one(3, 0)
        self.base_chain, self.token, self.digest, self.cid = one(4, b""), one(5, b""), one(6, b""), one(7, b"")
        self.page_count, self.cut, self.chain = one(8, 0), one(9, 0), one(12, b"")
        self.deleted = bool(one(13, 0))
        self.references = [wire.decode(reference) for reference in fields.get(11, [])]

    def pages(self):
        found = set()
        for reference in self.references:
            found |= page_set(reference.get(3, [b""])[0])
        return found


class Volume:
    def __init__(self, vid, head=0, page_size=0, variable=False):
        self.vid, self.head, self.page_size, self.variable = vid, head, page_size, variable
        self.deleted = False
        self.commits = {}  # LSN: Commit

    @property
    def unknown(self):
        """It was deleted, and what its log was is not known: the metastore tells no more."""
        return self.deleted and not self.commits

    @property
    def name(self):
        return f"volume {wire.gid_text(self.vid)}"


def page_set(encoded):
    pages, at, page = set(), 0, 1
    while at < len(encoded):
        gap, at = wire.take_varint(encoded, at)
        length, at = wire.take_varint(encoded, at)
        pages.update(range(page + gap, page + gap + length))
        page += gap + length
    return pages


def fetch(cluster, vids, report, records=None):
    """{vid: Volume}. What the metastore cannot say of its own log is a hole in it. `records`: a function that reads from the
    stopped metastore's store what it no longer tells: {vid: commits' records} of deleted volumes."""
    caller = wire.Caller(cluster.metastore)
    volumes = {}
    for vid in vids:
        answer = caller.post("snapshot", {1: vid})
        if answer.code != 200:
            volumes[vid] = Volume(vid)
            if answer.detail != wire.NO_SUCH_VOLUME:
                report.add("hole in LSNs", f"{volumes[vid].name}: the metastore has no head: {answer.text}")
            continue
        head = wire.decode(answer.message[1][0])
        volume = volumes[vid] = Volume(vid, head.get(2, [0])[0], head[5][0], head[6][0] == 2)
        volume.deleted = bool(head.get(8, [0])[0])
        lsn = volume.head + 1 if volume.deleted else 1
        while lsn <= volume.head:
            why = take_commits(caller, volume, lsn)
            lsn = max(volume.commits, default=0) + 1 if max(volume.commits, default=0) >= lsn else lsn
            if lsn <= volume.head:
                report.add("hole in LSNs", f"{volume.name}: LSN {lsn} of {volume.head}: {why}")
                lsn += 1
    caller.close()
    deleted = [vid for vid, volume in volumes.items() if volume.deleted]
    for vid, found in (records(deleted) if records and deleted else {}).items():
        for record in found:
            commit = Commit(wire.decode(record))
            volumes[vid].commits[commit.lsn] = commit
        for lsn in range(1, volumes[vid].head + 1):
            if lsn not in volumes[vid].commits:
                report.add("hole in LSNs", f"{volumes[vid].name}: LSN {lsn} of {volumes[vid].head}, where it ends")
    report.count(deleted_volumes=len(deleted), remote_commits=sum(len(volume.commits) for volume in volumes.values()))
    return volumes


def take_commits(caller, volume, first):
    """Adds what a `commits` call gives; the reason why it stopped early."""
    try:
        answer = caller.post("commits", {1: volume.vid, 2: first, 3: volume.head})
    except http.client.HTTPException as error:
        return f"the answer broke off: {error!r}"
    if answer.code != 200:
        return answer.text
    why = "the stream has no end"
    for frame in wire.frames(answer.body):
        if 1 in frame:
            commit = Commit(wire.decode(frame[1][0]))
            volume.commits[commit.lsn] = commit
        elif 2 in frame:
            end = wire.decode(frame[2][0])
            why = wire.decode(end[3][0]).get(3, [b""])[0].decode() if 3 in end else "the stream left it out"
    return why


def examine(cluster, volumes, pages, report, every_segment, snapshots):
    """Segments that the log names, and pages as the pagestore serves them. `pages`: {vid: Pages}, what they must be."""
    caller = wire.Caller(cluster.pagestore)
    for vid, volume in volumes.items():
        references = [(commit, reference) for commit in volume.commits.values() for reference in commit.references]
        if every_segment:
            examine_segments(cluster, caller, references, report)
        lsns = sorted({1 + (volume.head - 1) * i // (snapshots - 1) for i in range(snapshots)} if volume.head else ())
        for lsn in lsns:
            if lsn in volume.commits and not volume.deleted:
                examine_snapshot(caller, volume, lsn, pages[vid], report)
    caller.close()


def examine_segments(cluster, caller, references, report):
    wanted = {}  # (SID, owner): the pages that commits rely on, and one of those commits
    for commit, reference in references:
        key = reference[1][0], reference[2][0]
        wanted.setdefault(key, (set(), commit))[0].update(page_set(reference[3][0]))
    folder = cluster.segments / "objects" / "segments@"
    for (sid, owner), (pages, commit) in wanted.items():
        name = f"segment {wire.gid_text(sid)}, which LSN {commit.lsn} needs"
        answer = caller.post("segment", {1: sid})
        if answer.code != 200:
            report.add("missing segment" if answer.status == wire.NOT_FOUND else "damaged segment",
                       f"{name}: {answer.text}")
            continue
        index = {}
        for listed in answer.message.get(4, []):
            filed = wire.decode(listed)
            if filed[1][0] == owner:
                index = {entry[1][0]: entry for entry in map(wire.decode, filed.get(2, []))}
        if pages - index.keys():
            report.add("missing segment", f"{name}, lacks its pages {sorted(pages - index.keys())[:5]}")
        path = folder / wire.gid_text(sid)
        if path.exists():
            data = path.read_bytes()
            for page in pages & index.keys():
                entry = index[page]
                offset, size = entry.get(2, [0])[0], entry.get(3, [0])[0]
                if hash64(data[offset:offset + size]).to_bytes(8, "little") != entry.get(8, [bytes(8)])[0]:
                    report.add("damaged segment", f"{name}: page {page}'s bytes do not match their checksum")
        report.count(segments=1)


def examine_snapshot(caller, volume, lsn, pages, report):
    count = pages.count(lsn)
    if count == 0:
        return
    name = f"{volume.name} at LSN {lsn}, from the pagestore"
    found = caller.read_pages(volume.vid, lsn, volume.commits[lsn].chain, wire.page_set((1, count)))
    if not isinstance(found, dict):
        report.add("unreadable snapshot", f"{name}: {found.text}")
        return
    for page in range(1, count + 1):
        frame = found.get(page)
        if frame is None:
            report.add("unreadable snapshot", f"{name}: page {page} is left out")
            continue
        state, want = frame[2][0], pages.at(page, lsn)
        if state == wire.PAGE_DAMAGED:
            report.add("damaged page", f"{name}: page {page}: {wire.decode(frame[7][0]).get(3, [b''])[0].decode()}")
        elif want != WILD and (want is None) != (state == wire.PAGE_EMPTY):
            report.add("wrong page", f"{name}: page {page} is {'there' if want is None else 'empty'}")
        elif want not in (None, WILD):
            size, data = frame.get(5, [0])[0], frame.get(15, [b""])[0]
            plain = decompress(data, size) if frame.get(4, [0])[0] else data
            if plain is None or (size, hash128(plain)) != want:
                report.add("wrong page", f"{name}: page {page} has other bytes than the log's newest")
        report.count(served_pages=1)
