/* The messages of one queue: lists of descriptors that keep the boundaries, and their payload.
 *
 * Plain C.  A small payload is copied into the current segment, a block that many messages share
 * and that is written again from its start when all of them are gone; a payload that is not copied
 * belongs to an attachment, whose owner says how it is released.  Where much is queued the segments are
 * blocks of the pool, so that nobody waits for new memory with a queue's lock.  Nothing here costs more when more
 * is queued: descriptors live in linked chunks, none is ever moved to grow.
 *
 * Lists and segments are guarded by the queue's locks; releasing a message is not, and needs none.
 */
#ifndef BEAMLOOP_MESSAGE_STORE_H
#define BEAMLOOP_MESSAGE_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "message_heap.h"

typedef struct message message;
typedef struct message_segment message_segment;
typedef struct message_group message_group;
typedef struct message_chunk message_chunk;
typedef struct message_attachment message_attachment;

typedef struct message_part {
  const uint8_t *data;
  size_t size;
} message_part;

/* What the attachments of several messages share; of their maker. */
struct message_group {
  void (*leave)(
      message_group *self); /* nobody joins it any more; any thread, no lock held but this */
};

/* What goes along with a message until it is released: a payload that was not copied (part_count
 * parts, in order), live resources, or both.  Embedded in a struct of its maker. */
struct message_attachment {
  void (*release)(
      message_attachment *self); /* any thread, GIL or not; no lock held; exactly once */
  message_part *parts;
  size_t part_count;
  /* 0, or the size of the whole struct, parts included: the queue moves it to memory of its own, where
   * release is called, and the maker's is free again. */
  size_t movable;
  /* Of a movable one, or NULL.  Lock held; called once when it has been moved.  Takes what it keeps into
   * *group, the place's own or another that takes its place there.  0, or -1 when memory is short.  The
   * maker's keeps nothing. */
  int (*join)(message_attachment *self, message_group **group);
};

/* Where a queue's payload goes.  Zero-initialised is empty. */
typedef struct message_place message_place;

struct message_place {
  message_segment *segment; /* or NULL */
  message_group *group;     /* or NULL */
  /* How many bytes are queued, which tells how large the next segment is to be; or NULL. */
  size_t (*queued)(message_place *self);
  /* The segment is a block of the pool from now on.  Not NULL where queued is not. */
  void (*grown)(message_place *self);
  int large; /* it is one */
};

struct message {
  const uint8_t *data;            /* the payload when it was copied, else NULL */
  size_t size;                    /* of the payload, in bytes */
  uint64_t sequence;              /* position in the order of sending */
  message_segment *segment;       /* where data lies, or NULL */
  message_attachment *attachment; /* or NULL */
};

/* Zero-initialised is empty. */
typedef struct message_list {
  message_heap returned; /* come before the others */
  message_chunk *head;
  message_chunk *tail;
  message_chunk *spare; /* an empty chunk kept for the next need, or NULL */
} message_list;

/* Copies the payload to the place, and fills *out (sequence aside).  0, or -1 when memory is short.  The
 * message must be released, stored or not. */
int message_copy_in(message_place *place, const uint8_t *data, size_t size, message *out);

/* Nobody writes to it any more: what is there goes with its last message. */
void message_place_clear(message_place *place);

/* Takes a segment that is a block of the pool away, for message_segment_retire; NULL when it is none. */
message_segment *message_place_shrink(message_place *place);

/* Any thread, no lock needed: the segment goes with its last message, at once when that is gone. */
void message_segment_retire(message_segment *segment);

/* Makes the attachment the message's own: it is released with it.  A movable one, for a message without
 * copied payload, goes to the place.  0, or -1 when memory is short. */
int message_attach(message_place *place, message *m, message_attachment *attachment);

/* Undoes message_attach: the attachment is its maker's again.  What has joined a group leaves it. */
void message_detach(message *m);

/* An attachment that holds a copy of the payload, and with it another one (or NULL), which is taken over
 * on success.  NULL when memory is short. */
message_attachment *message_attachment_copy(const uint8_t *data, size_t size,
                                            message_attachment *along);

/* Appends.  0, or -1 when memory is short: nothing was stored. */
int message_push(message_list *list, const message *m);

/* Puts a message that was taken back to where its sequence belongs, before all that were not taken yet.
 * Cannot fail, as message_heap_put. */
void message_push_back(message_list *list, const message *m);

int message_list_is_empty(const message_list *list);

/* Takes the first message: 1, or 0 when there is none. */
int message_pop(message_list *list, message *out);

/* Moves all of from, of which none was given back, to the empty list to, however many they are, and gives
 * back a spare chunk. */
void message_move_all(message_list *from, message_list *to);

/* Releases what is in the list, and empties it. */
void message_list_clear(message_list *list);

/* Takes away the first bytes, fewer than there are, of a message that is in no list. */
void message_trim(message *m, size_t count);

/* Any thread; without the queue's lock.  Gives back the payload and what is attached. */
void message_release(message *m);

/* Blocks of payload and attachments alive in the whole process. */
size_t message_live_blocks(void);

#endif
