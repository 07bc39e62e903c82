/* The pending queue and the loop's sleep on it: c_src/loop/pending.c, loop_run.c, calls.c.
 *
 * The mutex is a lock that is taken and released, and what lies between stands step by step, since the
 * count and the state are read without it.  The eventfd is its edge, which the poller takes.  The loop
 * sleeps with the GIL released, and call_soon_threadsafe runs with it held.
 *
 * A deadline passes (or another descriptor is ready) a few times only: a sleep that ends without that has
 * been ended by somebody.  The loop's own look at the count may be late, as memory allows.
 *
 * scenario posts: -DPOSTERS=2 -DEVENTS=2 -DDEADLINES=1
 * scenario calls: -DPOSTERS=1 -DEVENTS=1 -DCALLERS=2 -DDEADLINES=1
 * scenario open: -DPOSTERS=2 -DEVENTS=1 -DDEADLINES=1 -DNEVER_CLOSED
 *
 * fault FAULT_SLEEP_UNASKED open PENDING_WAKE
 * fault FAULT_COUNT_UNLOCKED open PENDING_WAKE
 * fault FAULT_SLEEP_AFTER_CLOSE posts PENDING_CLOSE
 * fault FAULT_CLOSE_UNWATCHES posts PENDING_CLOSE
 * fault FAULT_CLOSE_BY_STATE posts PENDING_CLOSE
 * fault FAULT_CLOSE_SILENT posts PENDING_CLOSE
 * fault FAULT_STATE_KEPT open PENDING_ONE_WAKE
 * fault FAULT_TAKE_UNLOCKED open PENDING_ORDER
 * fault FAULT_TAKE_TWICE open PENDING_ORDER
 * fault FAULT_POST_AFTER_CLOSE posts PENDING_REFUSED
 * fault FAULT_DROP_BEFORE_SIGNAL posts PENDING_ALIVE
 * fault FAULT_CLOCK_UNCHECKED calls PENDING_READY
 */
#ifndef CALLERS
#define CALLERS 0
#endif
#define TOTAL 4 /* events at most */

/* Each stands in its assertions alone, and names them in the report. */
hidden byte PENDING_WAKE, PENDING_CLOSE, PENDING_ONE_WAKE, PENDING_ORDER, PENDING_REFUSED,
    PENDING_ALIVE, PENDING_READY;

#define AWAKE 0
#define WAIT_COND 1
#define WAIT_POLLER 2

bit gil, lock;
byte refs;
bool freed;
byte state = AWAKE;
byte queued[TOTAL];
byte queued_n;
byte taken[TOTAL];
byte taken_n;
byte count;
bool closed;
bool waker_open = true; /* the loop opened it before it sleeps in the poller */
bool in_poller;         /* between pending_prepare and pending_awake */
bool edge;
bool cond_waits, cond_signalled;
byte deadlines = DEADLINES;

/* What the invariants speak of. */
byte accepted; /* posts that returned 0 */
byte next_out; /* the event that is to be delivered next */
byte wakes;    /* since the sleep was announced */
byte ready;    /* the ready ring, guarded by the GIL */
bool asleep_cond, asleep_poller, ended;

#define TOUCH assert(PENDING_ALIVE || !freed)
#define ACQUIRE atomic { lock == 0 -> lock = 1; TOUCH }
#define RELEASE atomic { TOUCH; lock = 0 }
#define TAKE_GIL atomic { gil == 0 -> gil = 1 }
#define DROP_GIL gil = 0

inline decref() {
  atomic {
    refs--;
    if
    :: refs == 0 -> freed = true
    :: else
    fi
  }
}

/* wake_and_unlock: lock held. */
inline wake_and_unlock(was) {
  was = state;
  if
  :: was == AWAKE -> RELEASE
  :: else ->
#ifdef FAULT_STATE_KEPT
     if
     :: was == WAIT_COND -> state = AWAKE
     :: else
     fi;
#else
     state = AWAKE;
#endif
     atomic { wakes++; assert(PENDING_ONE_WAKE || wakes <= 1) };
     if
     :: was == WAIT_POLLER && waker_open -> edge = true
     :: else
     fi;
     RELEASE;
#ifdef FAULT_DROP_BEFORE_SIGNAL
     decref();
#endif
     if
     :: was == WAIT_COND ->
        atomic {
          TOUCH;
          if
          :: cond_waits -> cond_signalled = true
          :: else
          fi
        }
     :: else
     fi;
#ifdef FAULT_DROP_BEFORE_SIGNAL
     refs++;
#endif
  fi
}

proctype poster() {
  byte was, sent;
  do
  :: sent == EVENTS -> break
  :: sent < EVENTS ->
     sent++;
     ACQUIRE;
#ifdef FAULT_POST_AFTER_CLOSE
     if
     :: true ->
#else
     if
     :: closed -> RELEASE
     :: else ->
#endif
        atomic {
          assert(PENDING_REFUSED || !closed);
          queued[queued_n] = accepted;
          queued_n++;
          accepted++
        };
        count = queued_n;
        wake_and_unlock(was)
     fi
  od;
  decref()
}

/* call_soon_threadsafe. */
proctype caller() {
  byte was;
  TAKE_GIL;
  ready++;
  if
  :: state != AWAKE -> ACQUIRE; wake_and_unlock(was)
  :: else
  fi;
  DROP_GIL
}

/* Another thread that closes the core at any instant, or never. */
proctype closer() {
  byte was;
  if
#ifndef NEVER_CLOSED
  :: true ->
     ACQUIRE;
     closed = true;
     atomic { queued_n = 0; next_out = accepted };
     count = 0;
#ifdef FAULT_CLOSE_UNWATCHES
     waker_open = false;
#elif defined(FAULT_CLOSE_BY_STATE)
     if
     :: state != WAIT_POLLER -> waker_open = false
     :: else
     fi;
#else
     if
     :: !in_poller -> waker_open = false
     :: else
     fi;
#endif
#ifdef FAULT_CLOSE_SILENT
     RELEASE
#else
     wake_and_unlock(was)
#endif
#endif
  :: true
  fi;
  decref()
}

/* pending_take, and what the loop does with the events. */
inline take() {
  atomic { taken_n = 0; i = 0 };
  if
  :: count != 0 ->
#ifndef FAULT_TAKE_UNLOCKED
     ACQUIRE;
#endif
     atomic {
       do
       :: i < queued_n -> taken[i] = queued[i]; i++
       :: else -> break
       od;
       taken_n = queued_n
     };
#ifndef FAULT_TAKE_TWICE
     queued_n = 0;
#endif
     count = 0;
#ifndef FAULT_TAKE_UNLOCKED
     atomic {
       i = 0;
       do
       :: i < taken_n ->
          assert(PENDING_ORDER || closed || taken[i] == next_out);
          next_out = taken[i] + 1;
          i++
       :: else -> break
       od;
       i = 0
     };
     RELEASE
#else
     atomic {
       i = 0;
       do
       :: i < taken_n ->
          assert(PENDING_ORDER || closed || taken[i] == next_out);
          next_out = taken[i] + 1;
          i++
       :: else -> break
       od;
       i = 0
     }
#endif
  :: true /* a late look */
  fi
}

/* pending_prepare. */
inline prepare(mode) {
#ifdef FAULT_COUNT_UNLOCKED
  may_sleep = (queued_n == 0 && !closed);
  ACQUIRE;
#else
  ACQUIRE;
#ifdef FAULT_SLEEP_UNASKED
  may_sleep = !closed;
#elif defined(FAULT_SLEEP_AFTER_CLOSE)
  may_sleep = (queued_n == 0);
#else
  may_sleep = (queued_n == 0 && !closed);
#endif
#endif
  if
  :: may_sleep -> atomic { state = mode; in_poller = (mode == WAIT_POLLER); wakes = 0 }
  :: else
  fi;
  RELEASE
}

/* pending_wait.  The wait gives the lock back and begins in one step. */
inline wait_cond() {
  ACQUIRE;
  do
  :: state == WAIT_COND && !late ->
     atomic { lock = 0; cond_waits = true; cond_signalled = false; asleep_cond = true };
end_cond:
     atomic {
       if
       :: cond_signalled
       :: deadlines > 0 -> deadlines--; late = true
       fi;
       cond_waits = false; cond_signalled = false; asleep_cond = false
     };
     ACQUIRE
  :: else -> break
  od;
  state = AWAKE;
  RELEASE;
  late = false
}

/* readers_poll with a time, and pending_awake. */
inline wait_poller() {
  asleep_poller = true;
end_poller:
  atomic {
    if
    :: edge && waker_open -> edge = false
    :: deadlines > 0 -> deadlines--
    fi;
    asleep_poller = false
  };
  ACQUIRE;
  atomic { state = AWAKE; in_poller = false };
  if
  :: closed -> waker_open = false
  :: else
  fi;
  RELEASE
}

proctype loop() {
  byte i;
  bool may_sleep, late, busy;
  TAKE_GIL;
  do
  :: take();
     ready = 0;
     if
     :: closed -> break
     :: else
     fi;
     busy = ready > 0;
#if CALLERS > 0
     /* The clock may be Python's: time() is overridden. */
     DROP_GIL;
     TAKE_GIL;
#ifndef FAULT_CLOCK_UNCHECKED
     busy = ready > 0;
#endif
#endif
     if
     :: busy -> skip
     :: !busy ->
        if
        :: prepare(WAIT_COND);
           if
           :: may_sleep -> DROP_GIL; wait_cond(); TAKE_GIL
           :: else
           fi
        :: prepare(WAIT_POLLER);
           if
           :: may_sleep -> DROP_GIL; wait_poller(); TAKE_GIL
           :: else
           fi
        fi
     fi
  od;
  DROP_GIL;
  ended = true;
  decref()
}

#define ASLEEP (asleep_cond || asleep_poller)

init {
  byte n;
  atomic {
    refs = 1 + POSTERS + 1;
    run loop();
    run closer();
    do
    :: n < POSTERS -> run poster(); n++
    :: else -> break
    od;
    n = 0;
    do
    :: n < CALLERS -> run caller(); n++
    :: else -> break
    od
  };
  /* Nobody can go on. */
  timeout ->
  assert(PENDING_WAKE || !(ASLEEP && !closed && queued_n > 0));
  assert(PENDING_READY || !(ASLEEP && ready > 0));
  assert(PENDING_CLOSE || !(ASLEEP && closed));
  assert(PENDING_ORDER || closed || next_out == accepted);
  assert(PENDING_WAKE || ASLEEP || ended)
}
