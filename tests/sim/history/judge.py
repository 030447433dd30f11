# SPDX-License-Identifier: Apache-2.0
"""Holds what clients did (events) against the metastore's log (remote). Knows no network: unit tests make both up.

The log is replayed with what the tokens in it carried, so that each snapshot of the servers is known page by page, and
each replica's line of local LSNs on top of that. Then every read has one right answer.
"""
import bisect

import wire
from history.events import Remote, roll_up
from history.hashes import NO_CHAIN, blank, chain, digest, fork_digest, fork_token
from history.pages import WILD, Pages

SEARCH_MAX = 2000  # earlier snapshots that a wrong read is compared with


def judge(history, volumes, report, earlier=()):
    """{vid: Pages} of the servers. `earlier`: where the metastore was replaced by an older copy of itself, the logs that were
    lost by that: [(when the one before the copy had ended, {vid: Volume}), …]. Everything has to be of one of these histories, and
    what is asked of a copy has to be of its own."""
    report.count(**history.figures)
    for name, text in history.anomalies:
        report.add(name, text)
    replayed = {}
    for vid in volumes:
        replay_with_origins(history, vid, volumes, replayed, earlier, report)
    lost = Lost(history, volumes, replayed, earlier, report)
    strays = [content for token in history.tokens.values() for content in stray_contents(token, volumes)]
    judge_reads(history, volumes, replayed, lost, set(strays), report)
    return replayed


class Lost:
    """The histories that were lost when older copies took their places, beside the one that the servers have."""

    def __init__(self, history, volumes, replayed, earlier, report):
        self.logs = {vid: [] for vid in volumes}  # (until when, Volume, Pages), oldest first
        for until, lost in earlier:
            for vid, volume in lost.items():
                tokens = {token.token: token for token in history.tokens.values() if token.vid == vid}
                pages = replay(volume, tokens, {}, report)
                self.logs[vid].append((until, volume, pages))
        self.now = {vid: (volumes[vid], replayed[vid]) for vid in volumes}

    def locate(self, vid, lsn, chain):
        """The Pages of the history that has this commit, the servers' own if it does; None: there is none."""
        for volume, pages in [self.now[vid], *((volume, pages) for _, volume, pages in reversed(self.logs[vid]))]:
            if lsn == 0 or chain is None or (lsn in volume.commits and volume.commits[lsn].chain.hex() == chain):
                return pages
        return None

    def others(self, vid, pages):
        return [found for found in [self.now[vid][1], *(lost for _, _, lost in self.logs[vid])] if found is not pages]


def replay_with_origins(history, vid, volumes, replayed, earlier, report):
    """A fork needs what it was made from."""
    volume, fork = volumes[vid], history.forks.get(vid)
    if vid in replayed:
        return
    if fork and fork.base > 0 and fork.origin in volumes:
        replay_with_origins(history, fork.origin, volumes, replayed, earlier, report)
    tokens = {token.token: token for token in history.tokens.values() if token.vid == vid}
    copies = {}
    if judge_end(volume, history, tokens, report):
        copies = judge_copies(volume, fork, volumes, replayed, report)
        judge_log(volume, tokens, copies, report)
        lost = [log[vid] for _, log in earlier if vid in log]
        judge_tokens(volume, tokens, report, lost)
        for log in lost:
            judge_log(log, tokens, {}, report, lost=True)
    replayed[vid] = replay(volume, tokens, copies, report)
    if not volume.unknown:
        judge_pulls(volume, [pull for pull in history.pulls if pull.replica.vid == vid], tokens, report,
                    [(until, log[vid]) for until, log in earlier if vid in log])


# ---- the ends of a volume: deleted, forked

def judge_end(volume, history, tokens, report):
    """False: it was deleted, and its log with it."""
    deletion = history.deletions.get(volume.vid)
    if deletion and deletion.completed:
        judge_deletion(volume, history, deletion, tokens, report)
    ends = [lsn for lsn, commit in volume.commits.items() if commit.deleted]
    if ends and (ends != [volume.head] or not volume.deleted):
        report.add("commit after the end", f"{volume.name} ended with LSN {min(ends)} and has the head {volume.head}")
    if volume.deleted:
        if not deletion:
            report.add("volume lost", f"{volume.name} was deleted, and nobody asked for it")
        highest = max((token.settled[1] for token in tokens.values() if token.settled), default=0)
        if volume.head <= highest:
            report.add("lost acknowledgement", f"{volume.name} ends with LSN {volume.head}, and LSN {highest} was acknowledged")
    elif deletion and deletion.completed:
        report.add("deleted volume came back", f"{volume.name} has the head {volume.head}")
    return not volume.unknown


def judge_deletion(volume, history, deletion, tokens, report):
    """Once it was acknowledged, nobody is told anything else."""
    for pull in history.pulls:
        if pull.replica.vid == volume.vid and pull.invoked > deletion.completed:
            report.add("deletion not learned", f"{pull.replica.name} asked for the head after the volume had been deleted, and "
                       f"got LSN {pull.remote}")
    for token in tokens.values():
        if token.sent and token.settled and token.sent > deletion.completed:
            report.add("deletion not learned", f"{token.name} was sent after the volume had been deleted, and was acknowledged")
    for replica, time, deleted in history.settled:
        if replica.vid == volume.vid and time > deletion.completed and not deleted:
            report.add("deletion not learned", f"{replica.name} is settled as if {volume.name} was not deleted")


def judge_copies(volume, fork, volumes, replayed, report):
    """{LSN: (Pages, LSN)}: the commits by which the servers made a fork what its origin was there."""
    copies = {}
    if not fork or fork.base == 0 or fork.origin not in volumes or fork.base not in volumes[fork.origin].commits:
        return copies
    if not fork.made and volume.head == 0:  # it was asked for and did not come to be
        return copies
    origin = volumes[fork.origin]
    chained = origin.commits[fork.base].chain
    pages, named = replayed[fork.origin], set()
    for lsn, commit in sorted(volume.commits.items()):
        if commit.token != fork_token(fork.origin, fork.base, chained, volume.vid, lsn):
            break
        copies[lsn] = pages, fork.base
        named |= commit.pages()
        if commit.digest != fork_digest([(ref[1][0], ref[2][0], ref[3][0]) for ref in commit.references]):
            report.add("wrong digest", f"{volume.name}, LSN {lsn}, a fork's, does not have the digest of its references")
    if not copies:
        report.add("lost acknowledgement", f"{volume.name} does not begin as a fork of LSN {fork.base} of {origin.name}")
    elif named != pages.state(fork.base).keys() or volume.commits[max(copies)].page_count != pages.count(fork.base):
        report.add("wrong content", f"{volume.name} names other pages than LSN {fork.base} of {origin.name} had")
    return copies


# ---- tokens and the log

def carried(token):
    """What a token's commit changes, from the local commits that it rolls up: {page: content}; None: not known."""
    if token.last is None or token.last == token.first:
        return {}
    whole = roll_up(token.replica, token.first, token.last)
    return whole.writes if whole else None


def stray_contents(token, volumes):
    """Contents that only a push which was given up carried."""
    if not token.rejected and not token.discarded:
        return ()
    if any(commit.token == token.token for commit in volumes[token.vid].commits.values()):
        return ()
    return (carried(token) or {}).values()


def judge_log(volume, tokens, copies, report, lost=False):
    """The log by itself, and what each entry says of its token; in a log that was `lost`, it may be given up later."""
    before, seen = NO_CHAIN, {}
    for lsn in range(1, volume.head + 1):
        commit = volume.commits.get(lsn)
        if commit is None:  # reported when it was fetched; made up logs have no such
            before = None
            continue
        name = f"{volume.name}, LSN {lsn}"
        if commit.base != lsn - 1 or before not in (None, commit.base_chain):
            report.add("broken chain", f"{name} is based on {commit.base}, or on another chain")
        after = chain(commit.base_chain, volume.vid, lsn, commit.token, commit.digest, commit.page_count)
        if after != commit.chain:
            report.add("broken chain", f"{name} does not have the chain of its own fields")
        before = commit.chain
        if commit.token in seen:
            report.add("duplicate commit", f"{name} has the token of LSN {seen[commit.token]} again")
            continue
        seen[commit.token] = lsn
        token = tokens.get(commit.token)
        if token:
            judge_entry(name, volume, commit, token, report, lost)
        elif lsn not in copies and not commit.deleted and not (commit.cid in (b"", bytes(16)) and not commit.references):
            report.add("token that nobody sent", f"{name} has the token {commit.token.hex()[:12]}")


def judge_entry(name, volume, commit, token, report, lost):
    if lost:
        pass
    elif token.discarded:
        report.add("discarded commit came back", f"{name} is {token.name}, which was given up and reset")
    elif token.rejected:
        report.add("rejected commit landed", f"{name} is {token.name}, which was rejected")
    if token.settled and token.settled[1] != commit.lsn:
        report.add("wrong LSN", f"{name} is {token.name}, which was acknowledged as LSN {token.settled[1]}")
    if not token.sent:
        report.add("token that nobody sent", f"{name} is {token.name}, which was chosen and never sent")
    elif token.digest != commit.digest:
        report.add("wrong digest", f"{name} is {token.name}, and has another digest than was sent")
    writes = carried(token)
    if writes is None:
        report.add("local commit that nobody made",
                   f"{name} is {token.name}, which carries local LSNs {token.first + 1} to {token.last}, not all known")
        return
    if digest(volume.vid, token.base, token.page_count, token.cut, writes) != commit.digest:
        report.add("wrong digest", f"{name} is {token.name}, and its digest is not that of what it carried")
    if (commit.page_count, commit.cut, commit.pages()) != (token.page_count, token.cut, set(writes)):
        report.add("wrong content", f"{name} is {token.name}, and names other pages than it carried")


def judge_tokens(volume, tokens, report, lost):
    """Each acknowledgement, and their order in real time."""
    landed = {commit.token: lsn for lsn, commit in sorted(volume.commits.items(), reverse=True)}
    had = {commit.token for log in lost for commit in log.commits.values()}
    for token in tokens.values():
        if token.settled and token.token not in landed and token.token not in had:
            report.add("lost acknowledgement",
                       f"{token.name} was acknowledged as LSN {token.settled[1]} of {volume.name}, whose head is "
                       f"{volume.head}, and is not in its log")
    earliest = later = None  # the first acknowledgement among higher LSNs
    for lsn in sorted(volume.commits, reverse=True):
        token = tokens.get(volume.commits[lsn].token)
        if not token or landed[token.token] != lsn:
            continue
        if earliest is not None and token.sent and earliest < token.sent:
            report.add("reordered acknowledgements", f"{volume.name}, LSN {lsn}: {token.name} was sent only after "
                       f"{later.name} was acknowledged, which has a higher LSN")
        if token.settled and (earliest is None or token.settled[0] < earliest):
            earliest, later = token.settled[0], token


def judge_pulls(volume, pulls, tokens, report, lost):
    """What was acknowledged before a pull began is there when it is done. One that got a commit which only a lost history
    has must have asked before that was lost, and is held against that."""
    since = 0
    for until, log in [*lost, (None, volume)]:
        judge_pulls_of(log, [pull for pull in pulls if pull.invoked >= since and (until is None or pull.completed < until)],
                       tokens, report, bool(lost))
        since = until or since


def judge_pulls_of(volume, pulls, tokens, report, one_of_many):
    landed = {commit.token for commit in volume.commits.values()}
    acknowledged = sorted(token.settled for token in tokens.values() if token.settled and token.token in landed)
    times, highest = [time for time, _ in acknowledged], []
    for _, lsn in acknowledged:
        highest.append(max(lsn, highest[-1] if highest else 0))
    for pull in pulls:
        before = bisect.bisect_left(times, pull.invoked)
        if before and pull.remote < highest[before - 1]:
            report.add("stale read", f"{pull.replica.name} pulled LSN {pull.remote} when LSN {highest[before - 1]} "
                       "had been acknowledged")
        commit = volume.commits.get(pull.remote)
        if one_of_many and pull.chain and pull.remote and (not commit or commit.chain.hex() != pull.chain):
            report.add("mixed history", f"{pull.replica.name} is at LSN {pull.remote} of another history than the servers "
                       "had when it asked")


def replay(volume, tokens, copies, report):
    pages = Pages()
    for lsn, commit in sorted(volume.commits.items()):
        if lsn in copies:
            pages.become(lsn, *copies[lsn])
            continue
        token = tokens.get(commit.token)
        writes = carried(token) if token else None
        if writes is None:
            writes = {page: WILD for page in commit.pages()}
        if commit.cut > min(pages.count(lsn - 1), commit.page_count):
            report.add("wrong content", f"{volume.name}, LSN {lsn}: a cut of {commit.cut}, from {pages.count(lsn - 1)} "
                       f"to {commit.page_count} pages")
        pages.apply(lsn, commit.page_count, commit.cut, writes)
    return pages


# ---- reads

def local_pages(replica, lost, report):
    """A replica's pages at each local LSN."""
    pages = Pages()
    for lsn, made in sorted(replica.made.items()):
        if isinstance(made, Remote):
            servers = lost.locate(replica.vid, made.lsn, made.chain)
            if not servers:
                report.add("mixed history", f"{replica.name}, local LSN {lsn}: nobody's history has its LSN {made.lsn}")
            pages.become(lsn, servers or lost.now[replica.vid][1], made.lsn)
        else:
            if pages.head() != lsn - 1:
                report.add("local commit that nobody made", f"{replica.name}: what lies below local LSN {lsn}?")
            pages.apply(lsn, made.page_count, made.cut, made.writes)
    return pages


def judge_reads(history, volumes, replayed, lost, strays, report):
    local = {replica: local_pages(replica, lost, report) for replica in history.every_replica()
             if not volumes[replica.vid].unknown}
    newest = {}  # replica: the last read's (local LSN, remote LSN), or another if it took over another history since
    for read in history.reads:
        replica = read.replica
        if replica not in local:
            continue
        before, attached = newest.get(replica, ((0, 0), 0))
        if read.local < before[0] or (read.remote < before[1] and read.attached == attached):
            report.add("non-monotonic read", f"{replica.name} read local LSN {read.local}, remote {read.remote} after "
                       f"local {before[0]}, remote {before[1]}")
        newest[replica] = (read.local, read.remote), read.attached
        name = f"{replica.name}, local LSN {read.local}"
        views = (local[replica], read.local), (replayed[replica.vid], read.remote)
        compare(name, read, views, volumes[replica.vid], strays, report, lost.others(replica.vid, replayed[replica.vid]))
        judge_bank(name, read, volumes[replica.vid], report)
    for past in history.pasts:
        volume = volumes[past.replica.vid]
        if volume.unknown:
            continue
        histories = [replayed[volume.vid], *(pages for until, _, pages in lost.logs[volume.vid] if past.time < until)]
        whole = [pages for pages in histories if past.count == pages.count(past.remote) and
                 all(matches(got, pages.at(page, past.remote), volume) for page, got in past.pages)]
        if whole and past.remote <= max(pages.head() for pages in whole):
            continue
        if past.remote > volume.head:
            report.add("lost acknowledgement", f"{past.replica.name} read LSN {past.remote} of {volume.name}, whose head "
                       f"is {volume.head}")
            continue
        compare(f"{past.replica.name}, remote LSN {past.remote}", past, ((replayed[volume.vid], past.remote),), volume,
                strays, report)
    report.count(reads=len(history.reads) + len(history.pasts),
                 pages_read=sum(len(read.pages) for read in history.reads + history.pasts))


def matches(got, want, volume):
    if want is None:
        return got == blank(0 if volume.variable else volume.page_size)
    return want == WILD or got == want


def compare(name, read, views, volume, strays, report, others=()):
    """`views`: (Pages, LSN) where the read was made, and where else its pages may have come from. `others`: histories that
    were lost."""
    pages, lsn = views[0]
    if read.count != pages.count(lsn):
        report.add("wrong length", f"{name}: {read.count} pages, and not {pages.count(lsn)}")
    wrong = [(page, got) for page, got in read.pages if not matches(got, pages.at(page, lsn), volume)]
    if wrong:
        which = ", ".join(str(page) for page, _ in wrong[:5])
        report.add(classify(read, wrong, views, volume, strays, others), f"{name}: {len(wrong)} pages, such as {which}")


def versions(pages, page):
    return zip(*pages.versions.get(page, ((), ())))


def was_cut_off(pages, lsn, page, got):
    """`got` is a version of the page that a truncation ended before `lsn`."""
    return any(got == content and any(ended is None and version < end <= lsn for end, ended in versions(pages, page))
               for version, content in versions(pages, page))


def classify(read, wrong, views, volume, strays, others):
    """How a read is wrong."""
    if any(got == content and not any(got == known for view, _ in views for _, known in versions(view, page))
           for pages in others for page, got in wrong for _, content in versions(pages, page)):
        return "mixed history"
    if any(all(was_cut_off(pages, lsn, page, got) for page, got in wrong) for pages, lsn in views):
        return "resurrected page"
    if any(got in strays for _, got in wrong):
        return "discarded commit came back"
    for pages, lsn in views:
        for earlier in [at for at in pages.lsns if at < lsn][:-SEARCH_MAX - 1:-1]:
            if all(matches(got, pages.at(page, earlier), volume) for page, got in read.pages):
                return "stale read"
    if all(got == blank(got[0]) or any(got == content for pages, _ in views for _, content in versions(pages, page))
           for page, got in wrong):
        return "mixed snapshot"
    return "wrong bytes"


def judge_bank(name, read, volume, report):
    if read.total != read.opening:
        report.add("money made or lost", f"{name}: {read.total} in all accounts, and not {read.opening}")
    for lsn, token in read.ledger:
        commit = volume.commits.get(lsn)
        if not commit or commit.token.hex() != token:
            report.add("lost acknowledgement", f"{name}: the ledger has {token[:12]} as LSN {lsn} of {volume.name}, "
                       f"whose log has {commit.token.hex()[:12] if commit else 'no such'}")
