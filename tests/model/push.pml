/* SPDX-License-Identifier: Apache-2.0
 *
 * Pushing: one volume, two clients, one metastore, and everything that can go wrong between them.
 *
 * The network is two sets that only grow, requests and answers. What was ever sent may arrive never, once or many
 * times, at any later moment, in any order: loss, duplication, delay and reordering need no further words. Whatever is
 * durable has an image in memory; a crash throws the image away. A token stands for a whole commit request: what a
 * client sends again is the same bytes (base, chain at the base, content), kept before they were sent first.
 *
 * Local commits are bits: client c makes bits c * LOCALS …, each once, and a push carries a set of them. So "is it in
 * the log", "was it thrown away" and "is it still held" are set operations. LSN n of the log holds the token that landed
 * there; CHAIN is that prefix of the log itself, where the code keeps a hash of it.
 *
 * Switches that choose a world:
 *   REFUSALS         a request on the head may be refused with SEGMENT_GONE; the client uploads again, same token
 *   FENCE            a push without an answer is given up: a void commit at the same base, and its answer awaited
 *   RESTORE          once, the metastore is replaced by an older copy of itself; `restore` adds a void commit to it
 *   CLONE            both clients started from one copied data directory whose push was under way
 *   WITNESS          must fail: shows that everything can land and both clients can be up to date
 * Switches that leave a rule out, and must fail:
 *   NO_SYNC_ACK        an OK is answered before the commit is synced
 *   NO_SYNC_DUPLICATE  a duplicate's OK is answered from a commit that is not synced yet
 *   NO_SYNC_CONFLICT   so is a CONFLICT
 *   NO_SYNC_PULL       so is a pull
 *   NO_SYNC_SEND       a request leaves before UPLOADING and COMMITTING are durable
 *   MATCH_CLIENT       a duplicate is recognized by who sent it (the copied directory sends as the same client)
 *   REFUSED_IS_REJECTED  a refusal that did not look for the token is taken as a rejection
 *   RESET_ANYTIME      a reset while COMMITTING just forgets
 *   RESET_UPLOADING    a reset forgets a push that went back to UPLOADING after it was sent
 *   PULL_OVER_LOCAL    a pull is applied over local commits
 *   PULL_OVER_PUSH     a pull is applied over a push under way
 *   NO_CHAIN           with RESTORE: requests carry no chain, so the histories are not told apart
 *   NO_VOID            with RESTORE: nothing is added to the copy
 */
#ifndef LSNS
#define LSNS 3
#endif
#ifndef TOKENS
#define TOKENS 4
#endif
#ifndef LOCALS
#define LOCALS 2 /* local commits that each client may make */
#endif
#ifndef SERVER_CRASHES
#define SERVER_CRASHES 1
#endif
#ifndef CLIENT_CRASHES
#define CLIENT_CRASHES 1 /* of each */
#endif
#define HANDLERS 2 /* commits that the metastore decides at once */

/* The properties. The names are always false; they make the checker's report say what was broken. */
#define PROPERTY(name, holds) assert(name || (holds))
hidden byte acknowledged_stays, acknowledged_at_one_lsn, token_lands_once, rejected_never_lands, discarded_never_lands,
    commit_lands_on_its_base, ok_is_next_to_its_base, client_follows_the_log, local_commit_survives, rejected_holds_nothing_landed,
    all_goes_well, base_is_known;

/* ---- the network */
byte tokens;                              /* how many were chosen */
byte base_of[TOKENS + 1];                 /* the request of a token */
short chain_of[TOKENS + 1];
byte content_of[8], sender_of[8];
bit sent[TOKENS + 1];
byte ok[TOKENS + 1];                      /* answers under way: OK at which LSNs, as bits */
bit conflict[TOKENS + 1], refused[TOKENS + 1], mismatch[TOKENS + 1];

/* ---- the metastore */
byte log[LSNS + 1], head;                 /* in memory */
byte synced_log[LSNS + 1], synced_head;
byte server_crashes;
bit restored;
#define VOID_TOKEN 7                      /* the commit that `restore` adds */

#define OK 1
#define CONFLICT 2
#define REFUSED 3
#define MISMATCH 4
typedef Handler {
    bit busy;
    byte token, result, lsn;
    byte waits_for                        /* the answer leaves when this LSN is synced */
};
Handler handler[HANDLERS];

#define CHAIN(log_, n) ((n > 0 -> log_[1] : 0) + (n > 1 -> 8 * log_[2] : 0) + (n > 2 -> 64 * log_[3] : 0))
#ifdef NO_SYNC_PULL
#define SHOWN_HEAD head
#define SHOWN_LOG log
#else
#define SHOWN_HEAD synced_head
#define SHOWN_LOG synced_log
#endif

/* ---- the clients */
#define IDLE 0
#define UPLOADING 1
#define COMMITTING 2
#define REJECTED 3
#define FENCING 4   /* a void commit is under way; the old push is still remembered */
#define CORRUPT 5
typedef Replica {
    byte phase, token, fence;
    bit maybe_known;                      /* the push under way was COMMITTING once: its request may be out */
    byte unpushed, range;                 /* local commits: not pushed yet; in the push under way */
    byte base;                            /* the remote LSN that the replica follows, and the chain there */
    short chain, local_chain              /* local_chain: what the oldest unpushed commit was made upon */
};
Replica mem[2], disk[2];
byte dropped[2];                          /* thrown away by a reset that is not durable yet */
byte made[2], crashes[2];
bit pulled[2];                            /* an answer to a pull is here, and not yet applied */
byte pull_asked[2], pull_head[2];
short pull_chain[2];

/* ---- ghosts: what was told to whom */
byte told_ok[TOKENS + 1];                 /* the LSN */
bit told_rejected[TOKENS + 1];
byte acknowledged, discarded;             /* local commits, durably */

inline check() {
    for (k : 1 .. TOKENS) {
        PROPERTY(acknowledged_stays, restored || !told_ok[k] || log[told_ok[k]] == k);
        n = 0;
        for (j : 1 .. LSNS) { if :: (j <= head && log[j] == k) -> n++ :: else fi }
        PROPERTY(token_lands_once, n <= 1);
        PROPERTY(rejected_never_lands, !(told_rejected[k] && n > 0));
        PROPERTY(discarded_never_lands, !(n > 0 && (content_of[k] & discarded)));
    }
    k = 0; n = 0; j = 0;
    PROPERTY(client_follows_the_log, restored || mem[0].base <= head && mem[0].chain == CHAIN(log, mem[0].base));
    PROPERTY(client_follows_the_log, restored || mem[1].base <= head && mem[1].chain == CHAIN(log, mem[1].base));
    m = 0;
    for (j : 1 .. LSNS) { if :: (j <= head) -> m = m | content_of[log[j]] :: else fi }
    PROPERTY(local_commit_survives, restored ||
        (acknowledged & ~(m | discarded | mem[0].unpushed | mem[0].range | mem[1].unpushed | mem[1].range | dropped[0] | dropped[1])) == 0);
    PROPERTY(rejected_holds_nothing_landed, restored || !(mem[0].phase == REJECTED && ((mem[0].range | mem[0].unpushed) & m)));
    PROPERTY(rejected_holds_nothing_landed, restored || !(mem[1].phase == REJECTED && ((mem[1].range | mem[1].unpushed) & m)));
#ifdef WITNESS
    PROPERTY(all_goes_well, !(m == (1 << (2 * LOCALS)) - 1 && mem[0].base == synced_head && mem[1].base == synced_head &&
        disk[0].base == synced_head && disk[1].base == synced_head));
#endif
    j = 0; m = 0
}

/* ---- what a client does */

inline copy(to, from) {
    to.phase = from.phase; to.token = from.token; to.fence = from.fence; to.maybe_known = from.maybe_known;
    to.unpushed = from.unpushed; to.range = from.range;
    to.base = from.base; to.chain = from.chain; to.local_chain = from.local_chain
}
#define UNSYNCED(c) (mem[c].phase != disk[c].phase || mem[c].token != disk[c].token || mem[c].fence != disk[c].fence || \
    mem[c].unpushed != disk[c].unpushed || mem[c].range != disk[c].range || mem[c].base != disk[c].base || dropped[c])
#ifdef NO_SYNC_SEND
#define MAY_GO_ON(c) true
#else
#define MAY_GO_ON(c) (!UNSYNCED(c))
#endif
#ifdef MATCH_CLIENT
#define NAME(c) 0
#else
#define NAME(c) c
#endif

inline forget_pull(c) { pulled[c] = 0; pull_asked[c] = 0; pull_head[c] = 0; pull_chain[c] = 0 }
inline end_push(c) { mem[c].range = 0; mem[c].token = 0; mem[c].fence = 0; mem[c].maybe_known = 0; mem[c].phase = IDLE }
inline reset(c) {
    dropped[c] = dropped[c] | mem[c].unpushed | mem[c].range;
    mem[c].unpushed = 0; end_push(c);
    mem[c].base = synced_head; mem[c].chain = CHAIN(synced_log, synced_head); mem[c].local_chain = mem[c].chain
}
inline choose_token(base_, chain_, content, c) {
    tokens++; base_of[tokens] = base_; chain_of[tokens] = chain_; content_of[tokens] = content; sender_of[tokens] = NAME(c)
}

#ifdef PULL_OVER_PUSH
#define MAY_PULL(c) (pull_head[c] > mem[c].base)
#else
#ifdef PULL_OVER_LOCAL
#define MAY_PULL(c) (mem[c].phase == IDLE && pull_asked[c] == mem[c].base)
#else
#define MAY_PULL(c) (mem[c].phase == IDLE && mem[c].unpushed == 0 && pull_asked[c] == mem[c].base)
#endif
#endif
#if defined(RESTORE) && !defined(NO_CHAIN)
#define CHAIN_MATCHES(c) (mem[c].chain == CHAIN(SHOWN_LOG, mem[c].base))
#else
#define CHAIN_MATCHES(c) true
#endif

proctype Client(byte c) {
    byte k, n, j, m, lsn;
    do
    :: d_step { made[c] < LOCALS && mem[c].phase != CORRUPT ->   /* a local commit */
        if :: (mem[c].unpushed == 0 && mem[c].range == 0) -> mem[c].local_chain = mem[c].chain :: else fi;
        mem[c].unpushed = mem[c].unpushed | (1 << (c * LOCALS + made[c])); made[c]++; check() }
    :: d_step { UNSYNCED(c) ->                                                              /* the store syncs */
        copy(disk[c], mem[c]);
        acknowledged = acknowledged | mem[c].unpushed | mem[c].range;
        discarded = discarded | dropped[c]; dropped[c] = 0; check() }

    /* a push: the arrows of client/push.h */
    :: d_step { mem[c].phase == IDLE && mem[c].unpushed && tokens < TOKENS && MAY_GO_ON(c) ->
        mem[c].range = mem[c].unpushed; mem[c].unpushed = 0;
        choose_token(mem[c].base, mem[c].local_chain, mem[c].range, c);
        mem[c].token = tokens; mem[c].phase = UPLOADING; check() }
    :: d_step { mem[c].phase == UPLOADING && MAY_GO_ON(c) -> mem[c].phase = COMMITTING; mem[c].maybe_known = 1 }
    :: d_step { mem[c].phase == COMMITTING && MAY_GO_ON(c) && !sent[mem[c].token] -> sent[mem[c].token] = 1 }
    :: d_step { (mem[c].phase == COMMITTING || mem[c].phase == FENCING) && ok[mem[c].token] ->
        if :: (ok[mem[c].token] & 2) -> lsn = 1 :: else -> if :: (ok[mem[c].token] & 4) -> lsn = 2 :: else -> lsn = 3 fi fi;
        PROPERTY(ok_is_next_to_its_base, lsn == base_of[mem[c].token] + 1);
        if :: (mem[c].base == base_of[mem[c].token]) ->
                mem[c].chain = mem[c].chain + (mem[c].token << (3 * (lsn - 1))); mem[c].base = lsn
           :: else fi;
        mem[c].local_chain = mem[c].chain; end_push(c); lsn = 0; check() }
    :: d_step { mem[c].phase == COMMITTING && conflict[mem[c].token] -> mem[c].phase = REJECTED; check() }
#ifdef REFUSED_IS_REJECTED
    :: d_step { mem[c].phase == COMMITTING && refused[mem[c].token] -> mem[c].phase = REJECTED; check() }
#else
#ifdef REFUSALS
    :: d_step { mem[c].phase == COMMITTING && refused[mem[c].token] -> mem[c].phase = UPLOADING; check() }
#endif
#endif
#if defined(RESTORE) && !defined(NO_CHAIN)
    :: d_step { (mem[c].phase == COMMITTING || mem[c].phase == FENCING) && (mismatch[mem[c].token] || mismatch[mem[c].fence]) ->
        mem[c].phase = CORRUPT }
    :: d_step { mem[c].phase != CORRUPT && restored && (mem[c].base > SHOWN_HEAD || !CHAIN_MATCHES(c)) -> mem[c].phase = CORRUPT }
#endif

    /* resets */
    :: d_step { mem[c].phase == REJECTED && MAY_GO_ON(c) -> reset(c); check() }
    :: d_step { (mem[c].phase == IDLE && mem[c].unpushed || mem[c].phase == UPLOADING && !mem[c].maybe_known) && MAY_GO_ON(c) &&
        mem[c].base <= synced_head && CHAIN_MATCHES(c) -> reset(c); check() }
#ifdef RESET_UPLOADING
    :: d_step { mem[c].phase == UPLOADING && MAY_GO_ON(c) -> reset(c); check() }
#endif
#ifdef RESET_ANYTIME
    :: d_step { mem[c].phase == COMMITTING && MAY_GO_ON(c) -> reset(c); check() }
#endif
#ifdef FENCE
    :: d_step { mem[c].maybe_known && (mem[c].phase == COMMITTING || mem[c].phase == UPLOADING) && MAY_GO_ON(c) && tokens < TOKENS ->
        choose_token(base_of[mem[c].token], chain_of[mem[c].token], 0, c);
        mem[c].fence = tokens; mem[c].phase = FENCING }
    :: d_step { mem[c].phase == FENCING && MAY_GO_ON(c) && !sent[mem[c].fence] -> sent[mem[c].fence] = 1 }
    :: d_step { mem[c].phase == FENCING && ok[mem[c].fence] -> mem[c].phase = REJECTED; check() }
    /* base + 1 is taken, perhaps by the old push: its own answer is definitive now */
    :: d_step { mem[c].phase == FENCING && conflict[mem[c].fence] -> mem[c].phase = COMMITTING; mem[c].fence = 0 }
#endif

    /* a pull: answered now, applied at any later time, or never */
    :: d_step { !pulled[c] && SHOWN_HEAD > mem[c].base && CHAIN_MATCHES(c) ->
        pulled[c] = 1; pull_asked[c] = mem[c].base; pull_head[c] = SHOWN_HEAD; pull_chain[c] = CHAIN(SHOWN_LOG, SHOWN_HEAD) }
    :: d_step { pulled[c] && MAY_PULL(c) -> mem[c].base = pull_head[c]; mem[c].chain = pull_chain[c]; forget_pull(c); check() }
    :: d_step { pulled[c] -> forget_pull(c) }

    :: d_step { crashes[c] < CLIENT_CRASHES -> crashes[c]++; copy(mem[c], disk[c]); dropped[c] = 0; forget_pull(c); check() }
    od
}

/* ---- what the metastore does */

inline idle(h) { handler[h].busy = 0; handler[h].token = 0; handler[h].result = 0; handler[h].lsn = 0; handler[h].waits_for = 0 }

/* The rules, in the order of judge() in metastore/sequencer.c: token, chain, head. */
inline decide(h, t) {
    handler[h].token = t; handler[h].busy = 1; b = base_of[t];
    if
#ifdef MATCH_CLIENT
    :: (head > b && sender_of[log[b + 1]] == sender_of[t]) ->
#else
    :: (head > b && log[b + 1] == t) ->
#endif
        handler[h].result = OK; handler[h].lsn = b + 1;
#ifdef NO_SYNC_DUPLICATE
        handler[h].waits_for = 0
#else
        handler[h].waits_for = b + 1
#endif
    :: else ->
        if
#if defined(RESTORE) && !defined(NO_CHAIN)
        :: (b > head || chain_of[t] != CHAIN(log, b)) -> handler[h].result = MISMATCH; handler[h].waits_for = 0
        :: (b == head && chain_of[t] == CHAIN(log, b)) ->
#else
        :: (b == head) ->
#endif
            PROPERTY(commit_lands_on_its_base, chain_of[t] == CHAIN(log, b));
            head++; log[head] = t;
            handler[h].result = OK; handler[h].lsn = head;
#ifdef NO_SYNC_ACK
            handler[h].waits_for = 0
#else
            handler[h].waits_for = head
#endif
#if defined(RESTORE) && !defined(NO_CHAIN)
        :: (b < head && chain_of[t] == CHAIN(log, b)) ->
#else
        :: (b < head) ->
#endif
            handler[h].result = CONFLICT; handler[h].lsn = 0;
#ifdef NO_SYNC_CONFLICT
            handler[h].waits_for = 0
#else
            handler[h].waits_for = b + 1
#endif
        :: else -> PROPERTY(base_is_known, restored); idle(h)
        fi
    fi;
    b = 0; check()
}

inline answer(h) {
    t = handler[h].token;
    if :: (handler[h].result == OK) ->
            ok[t] = ok[t] | (1 << handler[h].lsn);
            PROPERTY(acknowledged_at_one_lsn, restored || !told_ok[t] || told_ok[t] == handler[h].lsn);
            told_ok[t] = handler[h].lsn
       :: (handler[h].result == CONFLICT) -> conflict[t] = 1; told_rejected[t] = 1
       :: (handler[h].result == REFUSED) -> refused[t] = 1;
#ifdef REFUSED_IS_REJECTED
            told_rejected[t] = 1
#endif
       :: (handler[h].result == MISMATCH) -> mismatch[t] = 1
       :: else fi;
    t = 0; idle(h); check()
}

/* The second handler begins only while the first is busy: the two are alike. */
#define RECEIVE(t) \
    :: d_step { !handler[0].busy && sent[t] && base_of[t] < LSNS -> decide(0, t) } \
    :: d_step { handler[0].busy && !handler[1].busy && sent[t] && base_of[t] < LSNS -> decide(1, t) }
#define REFUSE(t) \
    :: d_step { !handler[0].busy && sent[t] && base_of[t] == head -> \
        handler[0].busy = 1; handler[0].token = t; handler[0].result = REFUSED; handler[0].waits_for = 0 }

proctype Metastore() {
    byte k, n, j, m, b, t;
    do
    RECEIVE(1)
    RECEIVE(2)
    RECEIVE(3)
#if TOKENS > 3
    RECEIVE(4)
#endif
#if defined(REFUSALS) || defined(REFUSED_IS_REJECTED)
    REFUSE(1)
    REFUSE(2)
    REFUSE(3)
#endif
    :: d_step { synced_head < head -> synced_head++; synced_log[synced_head] = log[synced_head]; check() }
    :: d_step { handler[0].busy && handler[0].waits_for <= synced_head -> answer(0) }
    :: d_step { handler[1].busy && handler[1].waits_for <= synced_head -> answer(1) }
    :: d_step { server_crashes < SERVER_CRASHES -> server_crashes++;
        for (j : 1 .. LSNS) { if :: (j > synced_head) -> log[j] = 0 :: else fi }
        j = 0; head = synced_head; idle(0); idle(1); check() }
#ifdef RESTORE
    :: d_step { !restored && synced_head > 0 -> restored = 1;
        synced_log[synced_head] = 0; synced_head--;
#ifndef NO_VOID
        synced_head++; synced_log[synced_head] = VOID_TOKEN;
#endif
        for (j : 1 .. LSNS) { log[j] = (j <= synced_head -> synced_log[j] : 0) }
        j = 0; head = synced_head; idle(0); idle(1) }
#endif
    od
}

init {
    atomic {
#ifdef CLONE
        tokens = 1; content_of[1] = 1; made[0] = 1; acknowledged = 1;
        mem[0].phase = COMMITTING; mem[0].token = 1; mem[0].range = 1; mem[0].maybe_known = 1;
        copy(disk[0], mem[0]); copy(mem[1], mem[0]); copy(disk[1], mem[0]);
#endif
        run Metastore(); run Client(0); run Client(1)
    }
}
