/* One direction of a channel: c_src/channel/queue.c and queue_senders.c.
 *
 * Senders leave their message with the queue where there is no room, and wait.  Receivers take what is there,
 * or wait, and then claim what they were handed, or give up and give it back; one may be on a loop that is
 * closed, which wakes nobody.  One receiver stays to the end.  Somebody closes the queue at any time.
 *
 * Both locks are there: a receiver takes from the messages that come next with the head lock alone.  What else
 * is touched with the lock held is one step, but for the two words that a claim shares with senders without
 * it: how many have gone out, and whether somebody has to learn of a claim.
 *
 * What is to hold: a message is claimed once at most (QUEUE_ONCE); what was accepted is claimed in the end
 * (QUEUE_KEPT); with both locks free nobody waits while a message is queued (QUEUE_NO_WAIT_BESIDE); a receiver
 * that is the only one claims in the order of sending (QUEUE_ORDER); who is told `closed` is told after the last
 * message was claimed (QUEUE_CLOSED_LAST); no receiver waits for ever after the close, and no sender while there
 * is room (QUEUE_NOBODY_LEFT).
 *
 * scenario crowd: -DRECEIVERS=2 -DSENDS=1
 * scenario alone: -DRECEIVERS=1 -DSENDS=2 -DROOM=2
 * scenario room: -DRECEIVERS=2 -DSENDS=1 -DCLOSE_LAST
 *
 * fault FAULT_CANCEL_TAKES_TWICE crowd QUEUE_ONCE
 * fault FAULT_CANCEL_DROPS crowd QUEUE_NOBODY_LEFT
 * fault FAULT_DEAD_LOOP crowd QUEUE_NOBODY_LEFT
 * fault FAULT_REFUSED_YET_SENT crowd QUEUE_KEPT
 * fault FAULT_BACK_UNSEEN crowd QUEUE_NO_WAIT_BESIDE
 * fault FAULT_LOOK_THEN_WAIT crowd QUEUE_NOBODY_LEFT
 * fault FAULT_BACK_TO_TAIL alone QUEUE_ORDER
 * fault FAULT_CLOSED_EARLY crowd QUEUE_CLOSED_LAST
 * fault FAULT_CLOSE_FORGETS crowd QUEUE_NOBODY_LEFT
 * fault FAULT_LOOK_FIRST room QUEUE_NOBODY_LEFT
 * fault FAULT_ATTENTION_LATE room QUEUE_NOBODY_LEFT
 */
#ifndef RECEIVERS
#define RECEIVERS 2
#endif
#ifndef SENDERS
#define SENDERS 2
#endif
#ifndef SENDS
#define SENDS 1 /* of each */
#endif
#ifndef ROOM
#define ROOM 1 /* messages */
#endif
#ifndef QUITS
#define QUITS 1 /* times that receivers give up */
#endif
#define MESSAGES (SENDERS * SENDS)

/* Each stands in its assertions alone, and names them in the report. */
hidden byte QUEUE_ONCE, QUEUE_KEPT, QUEUE_NO_WAIT_BESIDE, QUEUE_ORDER, QUEUE_CLOSED_LAST,
    QUEUE_NOBODY_LEFT;

mtype = { IDLE, WAITING, HANDED, CLOSED, DONE, REFUSED };

bool head, mutex;

chan next = [MESSAGES] of { byte };     /* by sequence */
chan incoming = [MESSAGES] of { byte }; /* likewise */
byte in, known_out, messages_out;
bool attention, closed;
byte handed;

chan waiters = [RECEIVERS] of { byte };
mtype receiver[RECEIVERS] = IDLE;
byte given[RECEIVERS];
bool woken[RECEIVERS];
bool gone[RECEIVERS]; /* its loop is closed */

chan senders = [SENDERS] of { byte };
mtype sender[SENDERS] = IDLE;
bool told[SENDERS];

/* What the model alone knows. */
byte claims[MESSAGES];
byte accepted, claimed, last;
byte quits, deaths, tried, refused;
byte ended, senders_ended; /* processes */

#define LOCK(m) atomic { !m -> m = true }
#define UNLOCK(m) m = false
#define ALL_OUT (in == known_out)

inline claim(m)
{
  claims[m]++;
  claimed++;
  assert(QUEUE_ONCE || claims[m] == 1);
#if RECEIVERS == 1
  assert(QUEUE_ORDER || claimed == 1 || m > last);
  last = m
#endif
}

/* hand(), or to the list of those that come next (back) or that came in.  Lock held; both for back. */
inline hand_or_queue(m, back)
{
  found = false;
  do
  :: !found && len(waiters) > 0 ->
     waiters?w;
     if
     :: gone[w] ->
        receiver[w] = IDLE; /* its wake says that nobody is there */
#ifdef FAULT_DEAD_LOOP
        found = true
#endif
     :: else ->
        receiver[w] = HANDED;
        given[w] = m;
        handed++;
        woken[w] = true;
        found = true
     fi
  :: else -> break
  od;
  if
  :: found
  :: !found && back -> next!!m
  :: else -> incoming!m
  fi;
  w = 0;
  found = false
}

/* Lock held. */
inline put()
{
  hand_or_queue(in, false);
  in++;
  accepted++
}

/* queue_look() and queue_settle().  Lock held.  Two steps: claims may come between. */
inline settle()
{
  known_out = messages_out;
  d_step {
    do
    :: closed && len(senders) > 0 ->
       senders?s;
#ifdef FAULT_REFUSED_YET_SENT
       put();
#endif
       sender[s] = REFUSED;
       told[s] = true
    :: !closed && len(senders) > 0 && in - known_out < ROOM ->
       senders?s;
       put();
       sender[s] = DONE;
       told[s] = true
    :: else -> break
    od;
#ifndef FAULT_CLOSE_FORGETS
    if
    :: closed && ALL_OUT ->
       do
       :: len(waiters) > 0 ->
          waiters?w;
          receiver[w] = CLOSED;
          woken[w] = true
       :: len(waiters) == 0 -> break
       od
    :: else
    fi;
#endif
    s = 0;
    w = 0
  };
  attention = (len(senders) > 0 || closed)
}

/* account_claim(): the two words in this order.  Into look. */
inline account(m)
{
#ifdef FAULT_LOOK_FIRST
  look = attention;
  d_step { messages_out++; claim(m) }
#else
  d_step { messages_out++; claim(m) };
  look = attention
#endif
}

active [SENDERS] proctype Sender()
{
  byte i, s, w;
  bool found;
  do
  :: i < SENDS ->
     LOCK(mutex); /* queue_send_wait(), with its message */
     tried++;
     if
     :: closed -> refused++; UNLOCK(mutex); break
     :: else
     fi;
     /* has_room() looks at what has gone out where it seems full. */
     if
     :: in - known_out >= ROOM -> known_out = messages_out
     :: else
     fi;
     if
     :: len(senders) == 0 && in - known_out < ROOM ->
        d_step { put() };
        UNLOCK(mutex)
     :: else ->
        d_step {
          sender[_pid] = WAITING;
          told[_pid] = false;
          senders!_pid
        };
#ifdef FAULT_ATTENTION_LATE
        settle();
        attention = true;
#else
        attention = true;
        settle();
#endif
        UNLOCK(mutex);
        told[_pid];
        LOCK(mutex); /* queue_send_end() */
        if
        :: sender[_pid] == REFUSED -> sender[_pid] = IDLE; refused++; UNLOCK(mutex); break
        :: else -> assert(sender[_pid] == DONE); sender[_pid] = IDLE; UNLOCK(mutex)
        fi
     fi;
     i++
  :: else -> break
  od;
  atomic { senders_ended++; ended++ }
}

#define ME (_pid - SENDERS)

/* queue_cancel(): what was handed goes to the next that waits, or back. */
inline cancel()
{
  LOCK(head);
  LOCK(mutex);
  d_step {
    if
    :: receiver[ME] == WAITING -> waiters??eval(ME)
    :: receiver[ME] == HANDED ->
       handed--;
       m = given[ME];
#ifdef FAULT_CANCEL_DROPS
#elif defined(FAULT_BACK_TO_TAIL)
       incoming!m;
#elif defined(FAULT_CANCEL_TAKES_TWICE)
       claim(m);
       hand_or_queue(m, true);
#elif defined(FAULT_BACK_UNSEEN)
       next!!m;
#else
       hand_or_queue(m, true);
#endif
       m = 0
    :: else
    fi;
    receiver[ME] = IDLE;
    woken[ME] = false
  };
  UNLOCK(head);
  /* queue_finish() does what a claim or a give-back has left to do. */
  UNLOCK(mutex)
}

/* take_next(): with the head lock alone.  Into result: DONE or IDLE. */
inline take_next()
{
  LOCK(head);
  result = IDLE;
  look = false;
  if
  :: len(next) > 0 ->
     next?m;
     result = DONE;
     account(m);
     m = 0
  :: len(next) == 0
  fi;
  UNLOCK(head);
  if
  :: look ->
     LOCK(mutex);
     settle();
     UNLOCK(mutex)
  :: else
  fi
}

/* take_any(), and among the waiters if there is nothing.  Into result: DONE, CLOSED or WAITING. */
inline take_any_or_wait()
{
  LOCK(head);
  LOCK(mutex);
  d_step {
    do
    :: len(next) == 0 && len(incoming) > 0 ->
       do
       :: len(incoming) > 0 -> incoming?m; next!m
       :: len(incoming) == 0 -> break
       od
    :: else -> break
    od
  };
  if
  :: len(next) > 0 ->
     next?m;
     result = DONE;
     account(m);
     m = 0;
     if
     :: look -> settle()
     :: else
     fi
  :: len(next) == 0 ->
     known_out = messages_out;
     d_step {
       if
#ifdef FAULT_CLOSED_EARLY
       :: closed -> result = CLOSED
#else
       :: closed && ALL_OUT -> result = CLOSED
#endif
       :: else ->
          result = WAITING;
#ifndef FAULT_LOOK_THEN_WAIT
          receiver[ME] = WAITING;
          woken[ME] = false;
          waiters!ME
#endif
       fi
     }
  fi;
  UNLOCK(head);
  UNLOCK(mutex);
#ifdef FAULT_LOOK_THEN_WAIT
  if
  :: result == WAITING ->
     LOCK(mutex);
     d_step { receiver[ME] = WAITING; woken[ME] = false; waiters!ME };
     UNLOCK(mutex)
  :: else
  fi;
#endif
  look = false
}

/* queue_claim().  Into result: DONE or CLOSED. */
inline claim_handed()
{
  LOCK(mutex);
  if
  :: receiver[ME] == HANDED ->
     d_step {
       receiver[ME] = IDLE;
       handed--;
       m = given[ME];
       result = DONE
     };
     account(m);
     m = 0;
     if
     :: look -> settle()
     :: else
     fi
  :: else ->
     assert(receiver[ME] == CLOSED);
     receiver[ME] = IDLE;
     result = CLOSED
  fi;
  UNLOCK(mutex);
  look = false
}

active [RECEIVERS] proctype Receiver()
{
  byte m, s, w;
  bool look, found;
  mtype result = IDLE;
  do
  :: result != CLOSED ->
     take_next();
     if
     :: result == IDLE ->
        take_any_or_wait();
        if
        :: result == WAITING ->
           if
           :: woken[ME] ->
              /* It has been woken: claims, or is cancelled before it does. */
              if
              :: claim_handed()
              :: d_step { quits < QUITS -> quits++ }; cancel()
              fi
           :: d_step { quits < QUITS -> quits++ }; cancel()
           :: d_step { ME != 0 && deaths == 0 -> deaths++; gone[ME] = true };
              /* The loop is closed; later the awaitable is collected. */
              cancel();
              break
           fi
        :: else
        fi
     :: else
     fi
  :: else ->
     assert(QUEUE_CLOSED_LAST || claimed == accepted);
     break
  od;
  ended++
}

active proctype Closer()
{
  byte s, w;
  bool found;
#ifdef CLOSE_LAST
  senders_ended == SENDERS;
#endif
  LOCK(mutex); /* queue_close() */
  closed = true;
  attention = true;
  settle();
  UNLOCK(mutex);
  ended++
}

/* Looks at any time at what must hold when nobody holds a lock. */
active proctype Watch()
{
end:
  do
  :: atomic {
       !head && !mutex && len(waiters) > 0 && (len(next) > 0 || len(incoming) > 0) ->
       assert(QUEUE_NO_WAIT_BESIDE || false)
     }
  :: atomic {
       timeout ->
       assert(QUEUE_NOBODY_LEFT || ended == SENDERS + RECEIVERS + 1);
       assert(QUEUE_KEPT || (claimed == accepted && accepted + refused == tried));
       break
     }
  od
}
