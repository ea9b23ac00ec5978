/*
 * Objects by number: models and contexts. A number is a slot of a table and the slot's generation, which grows whenever
 * the slot is used again: the number of an object that was closed is nobody's, until after 2^25 others in its slot.
 *
 * Any thread may call at any time. An object that someone uses is not freed under their hands: a call that wants it
 * alone is refused meanwhile, and one that was closed goes with its last user.
 */
#include "internal.h"

enum { GENERATIONS = 1 << 25 }; /* times BN_HANDLES: 31 bits, a number is not negative */

static int32_t number_of(const bn_handles *h, const bn_slot *s) {
  return (int32_t)(s->generation * BN_HANDLES + (uint32_t)(s - h->slots));
}

/* The slot of an object that is not closed, or NULL. Under the lock. */
static bn_slot *find(bn_handles *h, int32_t number) {
  if (number < 0) return NULL;
  bn_slot *s = &h->slots[number % BN_HANDLES];
  return s->object && !s->closed && number_of(h, s) == number ? s : NULL;
}

/* Takes an object that nobody uses out of its slot. Under the lock; whoever gets it destroys it after. */
static void *take_out(bn_slot *s) {
  void *object = s->object;
  s->object = NULL;
  s->generation = (s->generation + 1) % GENERATIONS;
  return object;
}

static void destroy(const bn_handles *h, void *object) {
  if (object) h->destroy(object);
}

int32_t bn_handle_new(bn_handles *h, void *object) {
  int32_t number = -1;
  pthread_mutex_lock(&h->lock);
  for (bn_slot *s = h->slots; number < 0 && s < h->slots + BN_HANDLES; s++)
    if (!s->object) {
      *s = (bn_slot){.object = object, .generation = s->generation, .owner = bn_thread_owner()};
      number = number_of(h, s);
    }
  pthread_mutex_unlock(&h->lock);
  return number;
}

void *bn_handle_use(bn_handles *h, int32_t number, int alone) {
  pthread_mutex_lock(&h->lock);
  bn_slot *s = find(h, number);
  const int busy = s && alone && s->users;
  void *object = s && !busy ? s->object : NULL;
  if (object) s->users++;
  pthread_mutex_unlock(&h->lock);
  if (busy)
    bn_fail("another call uses %s %d; wait for its end", h->what, number);
  else if (!object)
    bn_fail("there is no %s %d", h->what, number);
  return object;
}

void bn_handle_done(bn_handles *h, const void *object) {
  void *last = NULL;
  pthread_mutex_lock(&h->lock);
  bn_slot *s = h->slots;
  while (s->object != object) s++;
  if (--s->users == 0 && s->closed) last = take_out(s);
  pthread_mutex_unlock(&h->lock);
  destroy(h, last);
}

int32_t bn_handle_close(bn_handles *h, int32_t number) {
  pthread_mutex_lock(&h->lock);
  bn_slot *s = find(h, number);
  const int users = s ? s->users : -1;
  void *last = users == 0 ? take_out(s) : NULL;
  pthread_mutex_unlock(&h->lock);
  destroy(h, last);
  if (users < 0) bn_fail("there is no %s %d", h->what, number);
  return users;
}

void bn_handles_leave(bn_handles *h, uint64_t owner) {
  for (int i = 0; i < BN_HANDLES; i++) {
    void *last = NULL;
    pthread_mutex_lock(&h->lock);
    bn_slot *s = &h->slots[i];
    if (s->object && s->owner == owner) {
      s->closed = 1;
      if (!s->users) last = take_out(s);
    }
    pthread_mutex_unlock(&h->lock);
    destroy(h, last);
  }
}
