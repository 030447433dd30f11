# SPDX-License-Identifier: Apache-2.0
"""The pages of a volume at each of its LSNs."""
import bisect

WILD = "anything"  # the content of a page that somebody unknown wrote


class Pages:
    """Commits are applied in order; each LSN stays readable. A content is (size, hash), or None: never written."""

    def __init__(self):
        self.lsns = [0]
        self.counts = [0]
        self.versions = {}  # page: ([LSN, …], [content, …])

    def put(self, lsn, page, content):
        lsns, contents = self.versions.setdefault(page, ([], []))
        if lsns and lsns[-1] == lsn:
            contents[-1] = content
        else:
            lsns.append(lsn)
            contents.append(content)

    def apply(self, lsn, page_count, cut, writes):
        for page, (_, contents) in self.versions.items():
            if page > cut and contents[-1] is not None:
                self.put(lsn, page, None)
        for page, content in writes.items():
            self.put(lsn, page, content)
        self.lsns.append(lsn)
        self.counts.append(page_count)

    def become(self, lsn, other, other_lsn):
        """At `lsn` all pages are what they are in `other` at `other_lsn`."""
        for page in self.versions.keys() | other.versions.keys():
            content = other.at(page, other_lsn)
            if content != self.at(page, lsn):
                self.put(lsn, page, content)
        self.lsns.append(lsn)
        self.counts.append(other.count(other_lsn))

    def at(self, page, lsn):
        lsns, contents = self.versions.get(page, ((), ()))
        found = bisect.bisect_right(lsns, lsn)
        return contents[found - 1] if found else None

    def count(self, lsn):
        return self.counts[bisect.bisect_right(self.lsns, lsn) - 1]

    def head(self):
        return self.lsns[-1]

    def state(self, lsn):
        return {page: content for page in self.versions if (content := self.at(page, lsn)) is not None}
