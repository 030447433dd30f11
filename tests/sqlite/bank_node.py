# SPDX-License-Identifier: Apache-2.0
"""A node of the bank: transfers money between accounts of a database on a volume, and pushes each transfer.

    bank_node.py EXTENSION URI SEED COUNT

It says "try TOKEN" before it commits a transfer, "ok TOKEN" once it was pushed, "rejected TOKEN" once it was dropped because
another node came first. What an earlier process of this data directory left is pushed, or dropped, before anything else.
"""
import json
import random
import sqlite3
import sys
import uuid

ACCOUNTS = 20


def call(db, name, *arguments):
    """The answer of a graft function; the error's text if the servers could not be asked."""
    marks = ", ".join("?" * len(arguments))
    return json.loads(db.execute(f"SELECT graft_{name}({marks})", arguments).fetchone()[0])


def settle(db):
    """Pushes what there is, however often that takes. False if another node came first and it was dropped."""
    while True:
        try:
            if call(db, "status")["status"] == "rejected":
                call(db, "reset")
                return False
            call(db, "push")
            return True
        except sqlite3.OperationalError:
            pass  # nobody was there, or the push was rejected: the status says which


def pull(db):
    try:
        call(db, "pull")
    except sqlite3.OperationalError:
        pass  # then this transfer is made on what is here


def transfer(db, dice, token):
    source, target = dice.sample(range(1, ACCOUNTS + 1), 2)
    amount = dice.randint(1, 50)
    db.execute("BEGIN IMMEDIATE")
    changed = db.execute("UPDATE account SET balance = balance - ? WHERE id = ? AND balance >= ?",
                         (amount, source, amount)).rowcount
    if changed == 0:
        db.execute("ROLLBACK")
        return False
    db.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (amount, target))
    db.execute("INSERT INTO ledger VALUES(?, ?, ?, ?)", (token, source, target, amount))
    print("try", token, flush=True)
    db.execute("COMMIT")
    return True


def connect(uri):
    """The first opening of a replica asks the servers, so it may take a few times."""
    for last in [False] * 30 + [True]:
        try:
            return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5)
        except sqlite3.OperationalError:
            if last:
                raise


def main():
    extension, uri, seed, count = sys.argv[1:]
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(extension)
    db = connect(uri)
    db.execute("PRAGMA foreign_keys = ON")
    dice = random.Random(int(seed))
    settle(db)
    print("begun", flush=True)
    done = 0
    while done < int(count):
        pull(db)
        token = uuid.UUID(int=dice.getrandbits(128)).hex
        try:
            if not transfer(db, dice, token):
                continue
        except sqlite3.OperationalError:
            if db.in_transaction:
                db.execute("ROLLBACK")
            continue  # a page could not be fetched, or the head moved: nothing was committed
        done += 1
        print("ok" if settle(db) else "rejected", token, flush=True)


main()
