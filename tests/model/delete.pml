/* SPDX-License-Identifier: Apache-2.0
 *
 * Deleting a segment that was uploaded and not yet committed, while a slow commit may still name it.
 *
 * Two handlers run the same commit (the request and its late duplicate): look for the token, read whether the segment is
 * condemned, create commits/<base + 1>, answer. The collector found the segment unreferenced and wants it gone:
 * condemn it durably; raise a barrier (a void commit at head + 1 of the volume); scan the log once more; delete.
 * Whoever reads the head before the condemned record then either sees that the segment is condemned, or finds its LSN
 * taken by the barrier, or was first and is seen by the scan.
 *
 * The alternative is a record per segment that one of the two creates first: CLAIM.
 *
 * Switches that leave a rule out, and must fail:
 *   NO_BARRIER   the collector condemns, scans again and deletes
 *   NO_SCAN      the collector does not look at the log again after the barrier
 *   RECHECK      no barrier; the commit reads the condemned record again after it was appended, before it is answered
 */
#if defined(RECHECK) || defined(CLAIM)
#define NO_BARRIER
#endif

#define PROPERTY(name, holds) assert(name || (holds))
hidden byte logged_segment_exists;

#define ABSENT 0
#define COMMIT 1
#define VOID 2
byte slot;                 /* commits/<base + 1> */
bit exists = 1, condemned, in_log;
#define CLAIMED 1
#define DOOMED 2
byte fate;

proctype Handler() {
    if
    :: (in_log) -> skip                                   /* the token is found: OK */
    :: else ->
#ifdef CLAIM
        atomic { if :: (fate == 0) -> fate = CLAIMED :: else fi }
        if :: (fate == DOOMED) -> goto refused :: else fi;
#else
        if :: (condemned || !exists) -> goto refused :: else fi;
#endif
#ifndef NO_BARRIER
        atomic { if :: (slot == ABSENT) -> slot = COMMIT; in_log = 1 :: (slot == COMMIT) -> skip :: (slot == VOID) -> goto refused fi }
#else
        in_log = 1;
#endif
#ifdef RECHECK
        if :: (condemned) -> goto refused :: else fi
#endif
    fi;
refused:
    skip
}

proctype Collector() {
    if :: (in_log) -> goto kept :: else fi;
#ifdef CLAIM
    atomic { if :: (fate == 0) -> fate = DOOMED :: else fi }
    if :: (fate == CLAIMED) -> goto kept :: else fi;
#endif
    condemned = 1;
#ifndef NO_BARRIER
    atomic { if :: (slot == ABSENT) -> slot = VOID :: else fi }
#endif
#ifndef NO_SCAN
    if :: (in_log) -> condemned = 0; goto kept :: else fi;
#endif
    exists = 0;
kept:
    skip
}

/* Others read what is in the log, acknowledged or not. */
proctype Reader() { do :: d_step { (in_log && !exists) -> PROPERTY(logged_segment_exists, false) } od }

init { atomic { run Handler(); run Handler(); run Collector(); run Reader() } }
