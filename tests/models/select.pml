/* A receiver that waits for several channels at once: c_src/channel/queue_select.c.
 *
 * A selecting receiver has an arm among the waiters of each of two queues, and one word that says which of
 * them has won.  Beside it a plain receiver waits at the first queue.  One message is sent to each queue, and
 * each is closed, at any time.  The selecting one may give up, or be timed out, once, and tries again.
 *
 * What is done with a queue's lock held is one step; the word is changed by steps of its own.
 *
 * What is to hold: a select returns with one message at most, and no arm of it holds another then
 * (SELECT_ONE); a message is claimed once at most (SELECT_ONCE), and what was sent is claimed in the end
 * (SELECT_KEPT); whoever waits is woken when a message is there or all is closed (SELECT_NOBODY_LEFT); it is
 * told `closed` only then (SELECT_CLOSED_LAST).
 *
 * scenario two: -DSENDS=1
 * scenario four: -DSENDS=2
 *
 * fault FAULT_TAKE_AND_GO two SELECT_ONE
 * fault FAULT_TIMED_OUT_BLINDLY two SELECT_ONE
 * fault FAULT_BACK_TWICE two SELECT_ONCE
 * fault FAULT_LOSER_DROPS two SELECT_NOBODY_LEFT
 * fault FAULT_WIN_AND_REFUSE two SELECT_KEPT
 * fault FAULT_CLOSED_ALONE two SELECT_CLOSED_LAST
 */
#define QUEUES 2
#define ARMS QUEUES
#define PLAIN 2 /* the plain receiver's number; the arms are 0 and 1 */
#ifndef SENDS
#define SENDS 2 /* to each queue */
#endif

/* Each stands in its assertions alone, and names them in the report. */
hidden byte SELECT_ONE, SELECT_ONCE, SELECT_KEPT, SELECT_NOBODY_LEFT, SELECT_CLOSED_LAST;

mtype = { IDLE, WAITING, HANDED, CLOSED };

/* won: which arm, and one of these. */
#define NOBODY 0
#define ALL_CLOSED 100
#define STOPPED 101

chan messages[QUEUES] = [SENDS] of { byte };
chan waiters[QUEUES] = [2] of { byte };
byte there[QUEUES]; /* sent and not claimed, so handed ones too */
bool closed[QUEUES];

mtype arm[3] = IDLE;
byte given[3];

byte won = STOPPED;
byte open;
bool woken, plain_woken;

byte claims[QUEUES * SENDS];
byte sent, claimed, gave_up;
byte ended; /* processes */

inline claim(m)
{
  claims[m]++;
  claimed++;
  assert(SELECT_ONCE || claims[m] == 1)
}

/* wake_arm() for a message: whether it may be handed.  The word is changed by others without the lock, and
 * so is the wake of the owner, but in one step with it: who has won wakes. */
inline try_win(w, ok)
{
  if
  :: w == PLAIN -> plain_woken = true; ok = true
  :: w != PLAIN && won == NOBODY -> won = w + 1; woken = true; ok = true
  :: w != PLAIN && won != NOBODY -> ok = false
  fi
}

/* hand(), or to the list.  Lock of q held. */
inline hand_or_queue(q, m)
{
  found = false;
  do
  :: !found && len(waiters[q]) > 0 ->
     waiters[q]?w;
     arm[w] = HANDED;
     given[w] = m;
     try_win(w, found);
     if
     :: !found -> arm[w] = IDLE
     :: else
     fi
  :: else -> break
  od;
  if
#ifdef FAULT_WIN_AND_REFUSE
  :: !found && gave_up > 0 -> there[q]-- /* a word that was set is taken for a hand-off */
  :: !found && gave_up == 0 -> messages[q]!!m
#else
  :: !found -> messages[q]!!m
#endif
  :: else
  fi;
  found = false;
  w = 0
}

/* Lock of q held.  Closed and drained: tells those who wait. */
inline settle(q)
{
  if
  :: closed[q] && there[q] == 0 ->
     do
     :: len(waiters[q]) > 0 ->
        waiters[q]?w;
        arm[w] = CLOSED;
        if
        :: w == PLAIN -> plain_woken = true
        :: else ->
           open--;
           if
#ifdef FAULT_CLOSED_ALONE
           :: won == NOBODY -> won = ALL_CLOSED; woken = true
#else
           :: open == 0 && won == NOBODY -> won = ALL_CLOSED; woken = true
#endif
           :: else
           fi
        fi
     :: len(waiters[q]) == 0 -> break
     od
  :: else
  fi;
  w = 0
}

/* queue_wait() at q by the arm a.  Into result: HANDED (m is claimed), CLOSED or WAITING. */
inline wait_at(q, a)
{
  d_step {
    if
    :: len(messages[q]) > 0 ->
       messages[q]?m;
       there[q]--;
       claim(m);
       settle(q);
       result = HANDED
    :: len(messages[q]) == 0 && closed[q] && there[q] == 0 -> result = CLOSED
    :: else ->
       arm[a] = WAITING;
       waiters[q]!a;
       result = WAITING
    fi
  }
}

/* queue_claim() at q by the arm a.  Into result: HANDED or CLOSED. */
inline claim_at(q, a)
{
  d_step {
    if
    :: arm[a] == HANDED ->
       m = given[a];
       there[q]--;
       claim(m);
       settle(q);
       result = HANDED
    :: else -> result = CLOSED
    fi;
    arm[a] = IDLE
  }
}

/* queue_cancel() at q of the arm a. */
inline cancel_at(q, a)
{
  d_step {
    if
    :: arm[a] == WAITING -> waiters[q]??eval(a)
    :: arm[a] == HANDED ->
       arm[a] = IDLE;
#ifdef FAULT_BACK_TWICE
       messages[q]!!given[a];
#endif
#ifdef FAULT_LOSER_DROPS
       skip
#else
       hand_or_queue(q, given[a])
#endif
    :: else
    fi;
    arm[a] = IDLE
  }
}

/* queue_select_cancel() */
inline cancel_all()
{
  d_step {
    if
    :: won == NOBODY -> won = STOPPED
    :: else
    fi
  };
  cancel_at(0, 0);
  cancel_at(1, 1)
}

inline select_wait()
{
  d_step { woken = false; open = ARMS };
  won = NOBODY;
  i = 0;
  result = WAITING;
  do
  :: i < ARMS && won == NOBODY ->
     if
     :: i == 0 -> wait_at(0, 0)
     :: else -> wait_at(1, 1)
     fi;
     if
     :: result == HANDED ->
#ifndef FAULT_TAKE_AND_GO
        cancel_all();
#endif
        result = HANDED;
        break
     :: result == CLOSED ->
        d_step {
          open--;
          result = (open == 0 -> CLOSED : WAITING)
        };
        if
        :: result == CLOSED -> cancel_all(); result = CLOSED; break
        :: else
        fi
     :: else
     fi;
     i++
  :: else -> result = WAITING; break
  od
}

inline select_claim()
{
  if
  :: won == ALL_CLOSED -> result = CLOSED
  :: won == 1 -> claim_at(0, 0)
  :: won == 2 -> claim_at(1, 1)
  fi;
  won_before = (result == HANDED);
  cancel_all();
  result = (won_before -> HANDED : CLOSED)
}

active proctype Selecting()
{
  byte m, w, i;
  bool found, won_before;
  mtype result = IDLE;
  do
  :: result != CLOSED ->
     select_wait();
     if
     :: result == WAITING ->
        if
        :: woken -> select_claim()
        :: woken && gave_up < 1 -> gave_up++; cancel_all() /* cancelled before it could claim */
        :: gave_up < 1 -> gave_up++; cancel_all()          /* or before it was woken */
        :: gave_up < 1 ->
           /* Timed out: only if nobody has won. */
           gave_up++;
           if
#ifdef FAULT_TIMED_OUT_BLINDLY
           :: won = STOPPED
#else
           :: d_step { won == NOBODY -> won = STOPPED }; cancel_all()
#endif
           :: won != NOBODY -> woken; select_claim()
           fi
        fi
     :: else
     fi;
     assert(SELECT_ONE || (arm[0] == IDLE && arm[1] == IDLE))
  :: else -> break
  od;
  assert(SELECT_CLOSED_LAST || (closed[0] && closed[1] && there[0] + there[1] == 0));
  ended++
}

active proctype Plain()
{
  byte m, w;
  bool found;
  mtype result = IDLE;
  do
  :: result != CLOSED ->
     d_step { plain_woken = false };
     wait_at(0, PLAIN);
     if
     :: result == WAITING ->
        plain_woken;
        claim_at(0, PLAIN)
     :: else
     fi
  :: else -> break
  od;
  ended++
}

inline send(q)
{
  d_step {
    there[q]++;
    sent++;
    hand_or_queue(q, q * SENDS + i)
  }
}

inline close(q)
{
  d_step {
    closed[q] = true;
    settle(q)
  }
}

active proctype First()
{
  byte i, w;
  bool found;
  do
  :: i < SENDS -> send(0); i++
  :: else -> break
  od;
  close(0);
  ended++
}

active proctype Second()
{
  byte i, w;
  bool found;
  do
  :: i < SENDS -> send(1); i++
  :: else -> break
  od;
  close(1);
  ended++
}

active proctype Watch()
{
end:
  atomic {
    timeout ->
    assert(SELECT_NOBODY_LEFT || ended == 4);
    assert(SELECT_KEPT || claimed == sent)
  }
}
