#include "message_heap.h"

#include <stdlib.h>

#include "message_store.h"

struct message_node {
  message m;
  message_node *left; /* both later than m; the way down by right is the shorter one */
  message_node *right;
  unsigned rank; /* length of that way */
};

static unsigned
rank_of(const message_node *node)
{
  return node == NULL ? 0 : node->rank;
}

/* As deep as the ways down by right of both are long: the logarithm of their sizes. */
static message_node *
merge(message_heap *heap, message_node *a, message_node *b)
{
  if (a == NULL || b == NULL) {
    return a == NULL ? b : a;
  }
  heap->steps++;
  if (b->m.sequence < a->m.sequence) {
    message_node *first = b;
    b = a;
    a = first;
  }
  a->right = merge(heap, a->right, b);
  if (rank_of(a->left) < rank_of(a->right)) {
    message_node *longer = a->right;
    a->right = a->left;
    a->left = longer;
  }
  a->rank = rank_of(a->right) + 1;
  return a;
}

void
message_heap_put(message_heap *heap, const message *m)
{
  message_node *node = malloc(sizeof(*node));
  if (node == NULL) {
    abort();
  }
  *node = (message_node){.m = *m, .rank = 1};
  heap->first = merge(heap, heap->first, node);
}

int
message_heap_take(message_heap *heap, message *out)
{
  message_node *node = heap->first;
  if (node == NULL) {
    return 0;
  }
  *out = node->m;
  heap->first = merge(heap, node->left, node->right);
  free(node);
  return 1;
}
