# SPDX-License-Identifier: Apache-2.0
"""What a check found."""
import collections


class Report:
    def __init__(self, allow=()):
        self.allow = set(allow)
        self.anomalies = []  # (name, text)
        self.figures = collections.Counter()
        self.faults = collections.Counter()  # injected, by kind

    def add(self, name, text):
        if name not in self.allow:
            self.anomalies.append((name, text))

    def count(self, **figures):
        self.figures.update(figures)

    def inject(self, kind, count=1):
        self.faults[kind] += count

    def merge(self, other):
        self.anomalies += other.anomalies
        self.figures.update(other.figures)
        self.faults.update(other.faults)

    def names(self):
        return {name for name, _ in self.anomalies}

    def __str__(self):
        figures = ", ".join(f"{value} {name.replace('_', ' ')}"
                            for name, value in sorted([*self.figures.items(), *self.faults.items()]) if value)
        lines = [f"{name}: {text}" for name, text in self.anomalies[:20]]
        if len(self.anomalies) > 20:
            lines.append(f"… and {len(self.anomalies) - 20} more")
        return "\n".join([f"{len(self.anomalies)} anomalies in {figures}"] + lines)

    def require(self):
        assert not self.anomalies, str(self)
