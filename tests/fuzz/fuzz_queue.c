/* The queue of a channel against a model: each answer, who is woken and with which message, what is
 * counted, and that all that came in is released once. */
#include "queue.h"

#include <string.h>

#include "fuzz.h"

#define ACTORS 40 /* receivers, and as many senders: more than one call wakes */
#define MESSAGES 2048
#define SIZE_MAX_SENT 300
#define SOME 5

/* A message that its sender keeps until it is released. */
typedef struct letter {
  message_attachment attachment;
  message_part parts[2];
  uint8_t bytes[SIZE_MAX_SENT];
  int released;
} letter;

typedef struct receiver {
  queue_waiter waiter; /* first */
  int refuses;         /* nobody is there any more to be woken */
  int wakes;
  enum queue_wake_reason reason;
  int later; /* ran after the lock was free */
} receiver;

typedef struct sender {
  queue_sender sender; /* first */
  int refuses;
  int wakes;
  letter *letter;
} sender;

/* ---- the model ---- */

enum model_state { IDLE, WAITING, HANDED, CLOSED, GRANTED, DONE };

typedef struct model_message {
  unsigned number; /* the order of sending */
  size_t size;
  letter *letter;
} model_message;

typedef struct model_receiver {
  enum model_state state;
  model_message handed;
  int wakes;
} model_receiver;

typedef struct model_sender {
  enum model_state state;
  int result;
  int wakes;
  size_t size;
  letter *letter;
} model_sender;

/* Places in line, the first at 0. */
typedef struct line {
  int who[ACTORS];
  int count;
} line;

static struct {
  queue_limits limits;
  model_message queued[MESSAGES];
  size_t count;
  model_receiver receivers[ACTORS];
  model_sender senders[ACTORS];
  line waiting;
  line sending;
  model_message stash[SOME]; /* what queue_hand_some gave */
  size_t stashed;
  size_t size, messages; /* with what is handed */
  size_t reserved_size, reserved;
  unsigned in, out, busy;
  int congested, closed;
} model;

static queue q;
static receiver receivers[ACTORS];
static sender senders[ACTORS];
static message stash[SOME];
static letter *letters[MESSAGES];
static unsigned letter_count;
static int settle_is_due;

static size_t
charge(size_t size)
{
  return size < QUEUE_MESSAGE_MIN ? QUEUE_MESSAGE_MIN : size;
}

static void
leave(line *l, int who)
{
  int at = 0;
  while (l->who[at] != who) {
    at++;
  }
  l->count--;
  memmove(&l->who[at], &l->who[at + 1], (size_t)(l->count - at) * sizeof(l->who[0]));
}

static int
first_of(line *l)
{
  int who = l->who[0];
  leave(l, who);
  return who;
}

/* To the first receiver that is there, or 0. */
static int
model_hand(model_message m)
{
  while (model.waiting.count > 0) {
    int who = first_of(&model.waiting);
    model_receiver *r = &model.receivers[who];
    r->wakes++;
    r->state = IDLE;
    if (!receivers[who].waiter.notify && !receivers[who].refuses) {
      r->state = HANDED;
      r->handed = m;
      return 1;
    }
  }
  return 0;
}

static void
model_put(size_t size, letter *l)
{
  model_message m = {model.in++, size, l};
  if (!model_hand(m)) {
    model.queued[model.count++] = m;
  }
  model.messages++;
  model.size += charge(size);
  if (model.size >= model.limits.high_watermark) {
    model.congested = 1;
  }
}

static int
model_fits(size_t size)
{
  return model.size + model.reserved_size + charge(size) <= model.limits.max_size &&
         model.messages + model.reserved < model.limits.max_messages;
}

static void
model_serve(int who)
{
  model_sender *s = &model.senders[who];
  s->wakes++;
  s->state = DONE;
  if (model.closed) {
    s->result = QUEUE_CLOSED;
  } else if (s->letter != NULL) {
    s->result = QUEUE_OK;
    model_put(s->size, s->letter);
  } else if (senders[who].refuses) {
    s->state = IDLE;
  } else {
    s->state = GRANTED;
    model.reserved++;
    model.reserved_size += charge(s->size);
  }
}

/* After whatever makes room, or closes. */
static void
model_settle(void)
{
  while (model.sending.count > 0) {
    if (model.size <= model.limits.low_watermark) {
      model.congested = 0;
    }
    int who = model.sending.who[0];
    if (!model.closed && (model.congested || !model_fits(model.senders[who].size))) {
      break;
    }
    leave(&model.sending, who);
    model_serve(who);
  }
  if (model.size <= model.limits.low_watermark) {
    model.congested = 0;
  }
  while (model.closed && model.messages == 0 && model.waiting.count > 0) {
    int who = first_of(&model.waiting);
    model.receivers[who].wakes++;
    model.receivers[who].state = receivers[who].waiter.notify ? IDLE : CLOSED;
  }
}

static int
model_admit(size_t size)
{
  if (model.closed) {
    return QUEUE_CLOSED;
  }
  if (charge(size) > model.limits.max_size) {
    return QUEUE_TOO_LARGE;
  }
  if (model.sending.count == 0 && !model.congested && model_fits(size)) {
    return QUEUE_OK;
  }
  if (model.limits.low_watermark != QUEUE_UNBOUNDED && model.size > model.limits.low_watermark) {
    model.congested = 1;
  }
  model.busy++;
  return QUEUE_BUSY;
}

static void
model_claimed(const model_message *m)
{
  model.size -= charge(m->size);
  model.messages--;
  model.out++;
}

static void
model_give_back(model_message m)
{
  if (!model_hand(m)) {
    size_t at = 0;
    while (at < model.count && model.queued[at].number < m.number) {
      at++;
    }
    memmove(&model.queued[at + 1], &model.queued[at], (model.count - at) * sizeof(m));
    model.queued[at] = m;
    model.count++;
  }
}

static model_message
model_first(void)
{
  model_message m = model.queued[0];
  model.count--;
  memmove(&model.queued[0], &model.queued[1], model.count * sizeof(m));
  return m;
}

/* What a receive finds. */
static int
model_there(void)
{
  return model.count > 0                       ? QUEUE_OK
         : model.closed && model.messages == 0 ? QUEUE_CLOSED
                                               : QUEUE_EMPTY;
}

/* ---- the actors ---- */

static void
ran_later(void *arg)
{
  ++*(int *)arg;
}

static int
receiver_wake(queue_waiter *w, enum queue_wake_reason reason, queue_laters *laters)
{
  receiver *r = (receiver *)w;
  r->wakes++;
  r->reason = reason;
  if (!w->notify) {
    queue_later(laters, ran_later, &r->later);
  }
  return r->refuses ? -1 : 0;
}

static int
sender_wake(queue_sender *s, queue_laters *laters)
{
  (void)laters;
  ((sender *)s)->wakes++;
  return ((sender *)s)->refuses ? -1 : 0;
}

static void
letter_release(message_attachment *self)
{
  ((letter *)self)->released++;
}

/* Byte number at of a message that is sent as that number. */
static uint8_t
byte_of(size_t size, size_t at)
{
  return (uint8_t)(size * 7 + at * 13);
}

static letter *
new_letter(size_t size)
{
  if (letter_count == MESSAGES) {
    return NULL;
  }
  letter *l = calloc(1, sizeof(*l));
  REQUIRE(l != NULL);
  letters[letter_count++] = l;
  for (size_t i = 0; i < size; i++) {
    l->bytes[i] = byte_of(size, i);
  }
  l->parts[0] = (message_part){l->bytes, size / 3};
  l->parts[1] = (message_part){l->bytes + size / 3, size - size / 3};
  l->attachment = (message_attachment){letter_release, l->parts, 2, 0, NULL};
  return l;
}

/* The message is that of the model, and is released by this. */
static void
check_message(message *m, const model_message *expected)
{
  REQUIRE(m->size == expected->size && m->sequence == expected->number);
  REQUIRE((m->attachment != NULL) == (expected->letter != NULL));
  if (expected->letter != NULL) {
    REQUIRE(m->attachment == &expected->letter->attachment && expected->letter->released == 0);
  } else {
    for (size_t i = 0; i < m->size; i++) {
      REQUIRE(m->data[i] == byte_of(m->size, i));
    }
  }
  message_release(m);
  REQUIRE(expected->letter == NULL || expected->letter->released == 1);
}

static const enum queue_waiter_state waiter_states[] = {[IDLE] = WAITER_IDLE,
                                                        [WAITING] = WAITER_WAITING,
                                                        [HANDED] = WAITER_HANDED,
                                                        [CLOSED] = WAITER_CLOSED};
static const enum queue_sender_state sender_states[] = {[IDLE] = SENDER_IDLE,
                                                        [WAITING] = SENDER_WAITING,
                                                        [GRANTED] = SENDER_GRANTED,
                                                        [DONE] = SENDER_DONE};

static void
check_all(void)
{
  queue_info info;
  while (settle_is_due) {
    settle_is_due = queue_settle_more(&q);
  }
  for (int i = 0; i < ACTORS; i++) {
    REQUIRE(receivers[i].wakes == model.receivers[i].wakes);
    REQUIRE(receivers[i].waiter.state == waiter_states[model.receivers[i].state]);
    REQUIRE(receivers[i].waiter.notify || receivers[i].later == receivers[i].wakes);
    REQUIRE(senders[i].wakes == model.senders[i].wakes);
    REQUIRE(senders[i].sender.state == sender_states[model.senders[i].state]);
  }
  queue_get_info(&q, &info);
  REQUIRE(info.size == model.size && info.messages == model.messages);
  REQUIRE(info.total_in == model.in && info.total_out == model.out && info.busy == model.busy);
  REQUIRE(info.closed == model.closed);
  REQUIRE(queue_count_kinds(info.waiters) == (size_t)model.waiting.count);
  REQUIRE(queue_count_kinds(info.senders) == (size_t)model.sending.count);
}

static void
settle_later(queue *queue)
{
  (void)queue;
  settle_is_due = 1;
}

/* ---- the operations ---- */

static void
op_send(size_t size, int by_letter)
{
  uint8_t bytes[SIZE_MAX_SENT];
  letter *l = by_letter ? new_letter(size) : NULL;
  for (size_t i = 0; i < size; i++) {
    bytes[i] = byte_of(size, i);
  }
  int expected = model_admit(size);
  int result = queue_send(&q, l == NULL ? bytes : NULL, size, l == NULL ? NULL : &l->attachment);
  REQUIRE(result == expected);
  if (expected == QUEUE_OK) {
    model_put(size, l);
  }
}

static void
op_receive(int who, int wait)
{
  model_receiver *r = &model.receivers[who];
  message m;
  int expected = model_there();
  if (r->state != IDLE || receivers[who].waiter.notify) {
    wait = 0;
  }
  REQUIRE((wait ? queue_wait(&q, &receivers[who].waiter, &m) : queue_take(&q, &m)) == expected);
  if (expected == QUEUE_OK) {
    model_message first = model_first();
    check_message(&m, &first);
    model_claimed(&first);
  } else if (expected == QUEUE_EMPTY && wait) {
    model.waiting.who[model.waiting.count++] = who;
    r->state = WAITING;
  }
}

static void
op_notify(int who)
{
  model_receiver *r = &model.receivers[who];
  if (r->state == IDLE && receivers[who].waiter.notify) {
    int there = model_there();
    REQUIRE(queue_notify(&q, &receivers[who].waiter) ==
            (there == QUEUE_EMPTY ? QUEUE_EMPTY : QUEUE_OK));
    if (there == QUEUE_EMPTY) {
      model.waiting.who[model.waiting.count++] = who;
      r->state = WAITING;
    }
  }
}

static void
op_claim(int who)
{
  model_receiver *r = &model.receivers[who];
  message m;
  /* An idle one has nothing to claim, and is told that it is over. */
  int expected = r->state == HANDED ? QUEUE_OK : r->state == WAITING ? QUEUE_EMPTY : QUEUE_CLOSED;
  REQUIRE(queue_claim(&q, &receivers[who].waiter, &m) == expected);
  if (expected == QUEUE_OK) {
    check_message(&m, &r->handed);
    model_claimed(&r->handed);
  }
  if (expected != QUEUE_EMPTY) {
    r->state = IDLE;
  }
}

static void
op_cancel(int who)
{
  model_receiver *r = &model.receivers[who];
  enum model_state state = r->state;
  queue_cancel(&q, &receivers[who].waiter);
  r->state = IDLE;
  if (state == WAITING) {
    leave(&model.waiting, who);
  } else if (state == HANDED) {
    model_give_back(r->handed);
  }
}

static void
op_withdraw(int who)
{
  model_receiver *r = &model.receivers[who];
  REQUIRE(queue_is_waiting(&q, &receivers[who].waiter) == (r->state == WAITING));
  REQUIRE(queue_withdraw(&q, &receivers[who].waiter) == (r->state == WAITING));
  if (r->state == WAITING) {
    leave(&model.waiting, who);
    r->state = IDLE;
  }
}

static void
op_take_some(size_t wanted)
{
  if (model.stashed == 0) {
    size_t expected = wanted < model.count ? wanted : model.count;
    REQUIRE(queue_hand_some(&q, stash, wanted) == expected);
    for (model.stashed = 0; model.stashed < expected; model.stashed++) {
      model.stash[model.stashed] = model_first();
    }
    return;
  }
  size_t count = model.stashed, claimed = wanted < count ? wanted : count;
  queue_claim_some(&q, stash, claimed, count);
  for (size_t i = 0; i < claimed; i++) {
    check_message(&stash[i], &model.stash[i]);
    model_claimed(&model.stash[i]);
  }
  for (size_t i = claimed; i < count; i++) {
    model_give_back(model.stash[i]);
  }
  model.stashed = 0;
}

static void
op_send_wait(int who, size_t size, int by_letter)
{
  model_sender *s = &model.senders[who];
  if (s->state != IDLE) {
    return;
  }
  letter *l = by_letter ? new_letter(size) : NULL;
  int expected = model_admit(size);
  s->size = size;
  s->letter = l;
  REQUIRE(queue_send_wait(&q, &senders[who].sender, size, l == NULL ? NULL : &l->attachment) ==
          (expected == QUEUE_BUSY ? QUEUE_EMPTY : expected));
  if (expected == QUEUE_BUSY) {
    model.sending.who[model.sending.count++] = who;
    s->state = WAITING;
  } else if (expected == QUEUE_OK && l != NULL) {
    model_put(size, l);
  } else if (expected == QUEUE_OK) {
    s->state = GRANTED;
    model.reserved++;
    model.reserved_size += charge(size);
  }
}

static void
model_release_room(model_sender *s)
{
  s->state = IDLE;
  model.reserved--;
  model.reserved_size -= charge(s->size);
}

static void
op_send_end(int who, size_t less)
{
  model_sender *s = &model.senders[who];
  int expected = s->state == GRANTED ? QUEUE_OK : s->state == DONE ? s->result : QUEUE_EMPTY;
  REQUIRE(queue_send_end(&q, &senders[who].sender) == expected);
  REQUIRE(queue_sender_is_waiting(&q, &senders[who].sender) == (s->state == WAITING));
  if (s->state == DONE) {
    s->state = IDLE;
  } else if (s->state == GRANTED) {
    uint8_t bytes[SIZE_MAX_SENT];
    size_t size = less < s->size ? s->size - less : s->size;
    for (size_t i = 0; i < size; i++) {
      bytes[i] = byte_of(size, i);
    }
    REQUIRE(queue_send_granted(&q, &senders[who].sender, bytes, size, NULL) ==
            (model.closed ? QUEUE_CLOSED : QUEUE_OK));
    model_release_room(s);
    if (!model.closed) {
      model_put(size, NULL);
    }
  }
}

static void
op_send_cancel(int who, int withdraw)
{
  model_sender *s = &model.senders[who];
  if (withdraw) {
    REQUIRE(queue_send_withdraw(&q, &senders[who].sender) == (s->state == WAITING));
  } else {
    REQUIRE(queue_send_cancel(&q, &senders[who].sender) == (s->state != DONE));
  }
  if (s->state == WAITING) {
    leave(&model.sending, who);
    s->state = IDLE;
  } else if (s->state == GRANTED && !withdraw) {
    model_release_room(s);
  }
}

static void
op_close(unsigned chance)
{
  if (chance == 0) {
    queue_close(&q);
    model.closed = 1;
  }
}

static void
step(fuzz_input *in)
{
  int who = (int)fuzz_below(in, ACTORS);
  unsigned number = fuzz_byte(in);
  size_t size = number % 3 == 0 ? number : number % 40;
  switch (fuzz_below(in, 16)) {
  case 0:
  case 1:
  case 2:
    op_send(size, number & 1);
    break;
  case 3:
    op_receive(who, 0);
    break;
  case 4:
  case 5:
    op_receive(who, 1);
    break;
  case 6:
    op_notify(who);
    break;
  case 7:
    op_claim(who);
    break;
  case 8:
    op_cancel(who);
    break;
  case 9:
    op_withdraw(who);
    break;
  case 10:
    op_take_some(1 + number % SOME);
    break;
  case 11:
  case 12:
    op_send_wait(who, size, number & 1);
    break;
  case 13:
    op_send_end(who, number % 50);
    break;
  case 14:
    op_send_cancel(who, number & 1);
    break;
  default:
    op_close(number % 64);
  }
  model_settle();
}

/* ---- a run ---- */

static size_t
limit(fuzz_input *in, unsigned unit)
{
  unsigned number = fuzz_byte(in);
  return number % 4 == 0 ? QUEUE_UNBOUNDED : (1 + number) * unit;
}

static void
begin(fuzz_input *in)
{
  memset(&model, 0, sizeof(model));
  letter_count = 0;
  settle_is_due = 0;
  model.limits = (queue_limits){limit(in, 8), limit(in, 1), QUEUE_UNBOUNDED, QUEUE_UNBOUNDED};
  unsigned low = fuzz_byte(in);
  if (low % 2) {
    model.limits.low_watermark = low * 4;
    model.limits.high_watermark = low * 4 + 1 + 4 * fuzz_byte(in);
  }
  queue_init(&q, &model.limits);
  q.settle_later = fuzz_below(in, 2) ? settle_later : NULL;
  for (int i = 0; i < ACTORS; i++) {
    receivers[i] =
        (receiver){.waiter = {.wake = receiver_wake, .kind = i % QUEUE_KINDS, .notify = i % 5 == 4},
                   .refuses = i % 7 == 6};
    senders[i] =
        (sender){.sender = {.wake = sender_wake, .kind = i % QUEUE_KINDS}, .refuses = i % 7 == 6};
  }
}

/* Everybody leaves; then each letter was released once or is its maker's still. */
static void
end(void)
{
  for (int i = 0; i < ACTORS; i++) {
    op_cancel(i);
    model_settle();
  }
  if (model.stashed > 0) {
    op_take_some(0);
    model_settle();
  }
  check_all();
  for (int i = 0; i < ACTORS; i++) {
    op_send_cancel(i, 0);
    model_settle();
  }
  check_all();
  for (size_t i = 0; i < model.count; i++) {
    REQUIRE(model.queued[i].letter == NULL || model.queued[i].letter->released == 0);
  }
  queue_destroy(&q);
  for (size_t i = 0; i < model.count; i++) {
    REQUIRE(model.queued[i].letter == NULL || model.queued[i].letter->released == 1);
  }
  REQUIRE(message_live_blocks() == 0);
  for (unsigned i = 0; i < letter_count; i++) {
    REQUIRE(letters[i]->released <= 1);
    free(letters[i]);
  }
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
  (void)argc, (void)argv;
  return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  fuzz_input in = {data, size};
  begin(&in);
  for (int steps = 0; in.left > 0 && steps < MESSAGES; steps++) {
    step(&in);
    check_all();
  }
  end();
  return 0;
}
