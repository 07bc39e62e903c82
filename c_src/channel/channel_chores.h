/* Work on channels that is too long for whoever has it to do: a scheduler, or a thread with the GIL.
 *
 * Plain C.  One thread does it, in small steps of each chore in turn; it is there while there is something
 * to do, and a second longer.  Any thread, GIL or not, no lock held.
 */
#ifndef BEAMLOOP_CHANNEL_CHORES_H
#define BEAMLOOP_CHANNEL_CHORES_H

typedef struct channel_chore channel_chore;

/* Embedded in what it is about; posted again only after it has ended. */
struct channel_chore {
  channel_chore *next; /* guarded by the chores' lock */
  /* Does one step: 1 when there are more.  After 0 the chore is not touched any more. */
  int (*step)(channel_chore *chore);
};

/* Where there can be no thread, does all of it at once. */
void channel_chore_post(channel_chore *chore);

#endif
