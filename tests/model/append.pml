/* SPDX-License-Identifier: Apache-2.0
 *
 * Appending: several metastores over one object store that knows nothing but "create if absent".
 *
 * A metastore reads the head and the retirement mark, decides, and creates commits/<head + 1>. Between any two of its steps
 * it may sleep for ever. A create that was sent may take effect at any later moment (a time-out, a repetition inside an
 * SDK, a process believed dead); the metastore sees "created", "exists already" (perhaps by its own earlier attempt), or
 * nothing. Retirement moves the mark first and removes the commits up to it afterwards.
 *
 * A request t has the base base_of[t]; any request reaches any metastore any number of times.
 *
 * Switches that choose a world:
 *   MERGE         a request behind the head may land on it (no conflict of content): its token is searched in (base, head]
 *   RETIRE        history is retired
 * Switches that leave a rule out, and must fail:
 *   NO_GONE       with RETIRE: a base whose next commit was retired is judged like any other
 *   MARK_FIRST    with RETIRE: the mark is read before the token is looked for
 *   NO_LOOK_AFTER with RETIRE: the mark is not read again after the create
 *   BLIND         "exists already" is taken as a conflict, without looking at what exists
 *   ABSENT_IS_REJECTED  a create without an answer whose object is not there is taken as a rejection
 */
#ifndef LSNS
#define LSNS 4
#endif
#ifndef TOKENS
#define TOKENS 3
#endif

#define PROPERTY(name, holds) assert(name || (holds))
hidden byte token_lands_once, acknowledged_stays, acknowledged_at_one_lsn, rejected_never_lands;

/* ---- the object store */
byte object[LSNS + 2];                       /* 0: absent, else the token */
bit on_the_wire[(LSNS + 2) * (TOKENS + 1)];  /* creates that were sent */
#define WIRE(lsn, t) on_the_wire[(lsn) * (TOKENS + 1) + (t)]
byte mark;                                   /* history up to here is retired */
byte top;                                    /* the highest LSN of the history */

/* ---- requests */
byte tokens;
byte base_of[TOKENS + 1];
bit live[TOKENS + 1];

/* ---- metastores */
#define FREE 0
#define READ 1       /* has a request, and has read head and mark */
#define CREATING 2
#define CREATED 3
byte state[2], token[2], head[2], seen_mark[2];

/* ---- ghosts: the history, and what was answered */
byte history[LSNS + 2];
byte told_ok[TOKENS + 1];
bit told_rejected[TOKENS + 1];

inline check() {
    for (k : 1 .. TOKENS) {
        n = 0;
        for (j : 1 .. LSNS) { if :: (history[j] == k) -> n++ :: else fi }
        PROPERTY(token_lands_once, n <= 1);
        PROPERTY(acknowledged_stays, !told_ok[k] || history[told_ok[k]] == k);
        PROPERTY(rejected_never_lands, !(told_rejected[k] && n > 0))
    }
    k = 0; j = 0; n = 0
}

/* What is created at or below the mark is garbage: nobody reads it as history. */
inline take_effect(lsn_, t_) {
    object[lsn_] = t_;
    if :: (lsn_ > mark && history[lsn_] == 0) ->
            history[lsn_] = t_;
            if :: (lsn_ > top) -> top = lsn_ :: else fi
       :: else fi
}
inline end(m) { state[m] = FREE; token[m] = 0; head[m] = 0; seen_mark[m] = 0 }
inline answer_ok(m, t_, lsn_) {
    PROPERTY(acknowledged_at_one_lsn, !told_ok[t_] || told_ok[t_] == lsn_);
    told_ok[t_] = lsn_; end(m)
}
inline answer_rejected(m, t_) { told_rejected[t_] = 1; end(m) }
inline receive(m, t_) { token[m] = t_; state[m] = READ; head[m] = top; seen_mark[m] = mark }

#if !defined(RETIRE) || defined(NO_GONE)
#define IS_RETIRED(m) false
#else
#ifdef MARK_FIRST
#define IS_RETIRED(m) (base < seen_mark[m])
#else
#define IS_RETIRED(m) (base < mark)           /* read now, after the token was looked for */
#endif
#endif

/* The rules, in the order of metastore/sequencer.c. */
inline decide(m) {
    t = token[m]; base = base_of[t]; found = 0;
    j = base + 1;
    do
    :: (j <= head[m]) ->
#ifndef MERGE
        if :: (j > base + 1) -> break :: else fi;
#endif
        if :: (object[j] == t) -> found = j; break :: else fi;
        j++
    :: else -> break
    od;
    if
    :: (IS_RETIRED(m)) -> end(m)              /* GONE: neither OK nor rejected */
    :: (!IS_RETIRED(m) && found) -> answer_ok(m, t, found)
    :: else ->
        if
#ifdef MERGE
        :: (true) ->
#else
        :: (base < head[m]) -> answer_rejected(m, t)
        :: (base == head[m]) ->
#endif
            if :: (head[m] < LSNS) -> state[m] = CREATING; WIRE(head[m] + 1, t) = 1
               :: else -> end(m)
            fi
        fi
    fi;
    t = 0; base = 0; found = 0; j = 0; check()
}

proctype Metastore(byte m) {
    byte k, j, n, t, base, found, lsn;
    do
    :: d_step { state[m] == FREE && live[1] -> receive(m, 1) }
    :: d_step { state[m] == FREE && live[2] -> receive(m, 2) }
    :: d_step { state[m] == FREE && live[3] -> receive(m, 3) }
    :: d_step { state[m] == READ -> decide(m) }
    :: d_step { state[m] == CREATING && object[head[m] + 1] == 0 ->
        lsn = head[m] + 1; t = token[m]; take_effect(lsn, t); state[m] = CREATED; lsn = 0; t = 0; check() }
    :: d_step { state[m] == CREATING && object[head[m] + 1] != 0 ->           /* exists already, perhaps by us */
#ifdef BLIND
        t = token[m]; answer_rejected(m, t); t = 0; check()
#else
        state[m] = READ; head[m] = top; seen_mark[m] = mark
#endif
    }
    :: d_step { state[m] == CREATING -> state[m] = READ; head[m] = top; seen_mark[m] = mark } /* no answer: look again */
    :: d_step { state[m] != FREE -> end(m) }                                  /* a crash; the create stays on the wire */
#ifdef ABSENT_IS_REJECTED
    :: d_step { state[m] == CREATING && object[head[m] + 1] == 0 -> t = token[m]; answer_rejected(m, t); t = 0; check() }
#endif
    :: d_step { state[m] == CREATED ->
        lsn = head[m] + 1; t = token[m];
#if defined(RETIRE) && !defined(NO_LOOK_AFTER)
        if :: (lsn <= mark) -> end(m) :: else -> answer_ok(m, t, lsn) fi;
#else
        answer_ok(m, t, lsn);
#endif
        lsn = 0; t = 0; check() }
    od
}

proctype World() {
    byte k, j, n, lsn, t;
    do
    :: d_step { tokens < TOKENS -> tokens++; base_of[tokens] = top; live[tokens] = 1 }  /* a client begins a push */
    :: atomic {                                                              /* a late create takes effect */
        if :: lsn = 1 :: lsn = 2 :: lsn = 3 :: lsn = 4 fi;
        if :: t = 1 :: t = 2 :: t = 3 fi;
        if :: (lsn <= LSNS && t <= TOKENS && WIRE(lsn, t) && object[lsn] == 0) -> d_step { take_effect(lsn, t); check() }
           :: else
        fi;
        lsn = 0; t = 0 }
#ifdef RETIRE
    :: d_step { top > 1 && mark < top - 1 -> mark++ }
    :: d_step { mark >= 1 && object[1] -> object[1] = 0 }
    :: d_step { mark >= 2 && object[2] -> object[2] = 0 }
    :: d_step { mark >= 3 && object[3] -> object[3] = 0 }
#endif
    od
}

init { atomic { run World(); run Metastore(0); run Metastore(1) } }
