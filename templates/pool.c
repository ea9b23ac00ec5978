/*
 * A thread pool for one context. All threads run the same job and meet at barriers. A waiting thread spins for a while,
 * since the next step usually comes within microseconds, and then sleeps; with spin = 0 (more threads than CPUs) it
 * sleeps at once, and so it does on a machine that is busy with other things.
 *
 * Sleeping without lost wake-ups: the waiter announces itself in `sleepers` before it looks at the counter a last time
 * under the lock; whoever changes the counter afterwards looks at `sleepers` and takes the lock to wake it. Both
 * accesses are sequentially consistent, so at least one of the two sees the other.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "internal.h"

/* About 50 us of pauses: longer than a step of the forward pass, shorter than a scheduler tick. */
enum { SPINS = 4000 };

/* Where the other threads wait for a CPU, spinning only uses up the own time on one, and the scheduler is slow to give
 * more; who sleeps is woken at once. So a thread that spun in vain so often in a row rests for so many waits. Measured
 * in docs/measurements.md, for 1 to 8 in vain alike; 8, so that a quiet machine, where it is rare, hardly sees it. */
enum { VAIN = 8, RESTS = 64 };
static _Thread_local int vain, rests; /* within jobs: before one, nobody knows how long it takes to come */

/* A counter that threads wait on; a cache line of its own. */
typedef struct {
  _Alignas(64) atomic_uint value;
} counter;

struct bn_pool {
  counter epoch;    /* grows with every job */
  counter finished; /* workers that are done with the job */
  counter arrived;  /* threads at the barrier */
  counter phase;    /* grows with every passed barrier */
  atomic_int sleepers;
  atomic_int stop;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bn_job *job;
  void *argument;
  int threads, spins, started;
  bn_stopwatch *watches; /* [threads] while the time is taken, else NULL */
  pthread_t *workers;
};

typedef struct {
  bn_pool *pool;
  int thread;
} start;

/* After a counter changed. */
static void wake(bn_pool *p) {
  if (atomic_load(&p->sleepers) == 0) return;
  pthread_mutex_lock(&p->lock);
  pthread_cond_broadcast(&p->changed);
  pthread_mutex_unlock(&p->lock);
}

/* Waits until the counter differs from `old` and returns its value. */
static unsigned await_change(bn_pool *p, counter *c, unsigned old) {
  unsigned now;
  const int within = p->spins && c != &p->epoch, spins = within && rests > 0 ? 0 : p->spins;
  for (int i = 0; i < spins; i++) {
    if ((now = atomic_load_explicit(&c->value, memory_order_acquire)) != old) {
      if (within) vain = 0;
      return now;
    }
    BN_PAUSE();
  }
  if (within && rests > 0)
    rests--;
  else if (within && ++vain >= VAIN)
    rests = RESTS;
  pthread_mutex_lock(&p->lock);
  atomic_fetch_add(&p->sleepers, 1);
  while ((now = atomic_load(&c->value)) == old) pthread_cond_wait(&p->changed, &p->lock);
  atomic_fetch_sub(&p->sleepers, 1);
  pthread_mutex_unlock(&p->lock);
  return now;
}

/* A thread's part of the job; outside the steps that say what they are its time counts as the rest. */
static void take_part(bn_pool *p, int thread) {
  bn_watch_with(p->watches ? &p->watches[thread] : NULL);
  bn_time(BN_TIME_REST);
  p->job(p->argument, thread, p->threads);
  bn_time(BN_TIME_WAIT);
  bn_watch_with(NULL);
}

static void *work(void *argument) {
  const start s = *(start *)argument;
  free(argument);
  bn_pool *p = s.pool;
  unsigned epoch = 0;
  for (;;) {
    epoch = await_change(p, &p->epoch, epoch);
    if (atomic_load(&p->stop)) return NULL;
    take_part(p, s.thread);
    atomic_fetch_add(&p->finished.value, 1);
    wake(p);
  }
}

bn_pool *bn_pool_create(int threads, int spin) {
  bn_pool *p = aligned_alloc(64, sizeof *p);
  if (!p) return NULL;
  *p = (bn_pool){.threads = threads, .spins = spin ? SPINS : 0};
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->changed, NULL);
  p->workers = calloc((size_t)threads, sizeof *p->workers);
  for (int t = 1; p->workers && t < threads; t++) {
    start *s = malloc(sizeof *s);
    if (s) *s = (start){p, t};
    if (!s || pthread_create(&p->workers[t], NULL, work, s)) {
      free(s);
      break;
    }
    p->started++;
  }
  if (p->started == threads - 1) return p;
  bn_pool_destroy(p);
  return NULL;
}

void bn_pool_destroy(bn_pool *p) {
  if (!p) return;
  atomic_store(&p->stop, 1);
  atomic_fetch_add(&p->epoch.value, 1);
  wake(p);
  for (int t = 1; t <= p->started; t++) pthread_join(p->workers[t], NULL);
  pthread_cond_destroy(&p->changed);
  pthread_mutex_destroy(&p->lock);
  free(p->watches);
  free(p->workers);
  free(p);
}

void bn_pool_run(bn_pool *p, bn_job *job, void *argument) {
  p->job = job;
  p->argument = argument;
  if (p->watches) bn_watches_start(p->watches, p->threads);
  atomic_store(&p->finished.value, 0);
  atomic_fetch_add(&p->epoch.value, 1);
  wake(p);
  take_part(p, 0);
  for (unsigned done = 0; done < (unsigned)p->threads - 1;) done = await_change(p, &p->finished, done);
  if (p->watches) bn_watches_stop(p->watches, p->threads);
}

void bn_pool_barrier(bn_pool *p) {
  if (p->threads == 1) return;
  const int operation = bn_time(BN_TIME_WAIT);
  const unsigned phase = atomic_load(&p->phase.value);
  if (atomic_fetch_add(&p->arrived.value, 1) + 1 == (unsigned)p->threads) {
    atomic_store(&p->arrived.value, 0);
    atomic_fetch_add(&p->phase.value, 1);
    wake(p);
  } else {
    await_change(p, &p->phase, phase);
  }
  bn_time(operation);
}

int bn_pool_profile(bn_pool *p, int on, float *seconds) {
  for (int i = 0; seconds && i < BN_TIMES; i++) seconds[i] = 0;
  if (p->watches && seconds) bn_watches_read(p->watches, p->threads, seconds);
  if (!on) {
    free(p->watches);
    p->watches = NULL;
  } else if (!p->watches) {
    const size_t bytes = (size_t)p->threads * sizeof *p->watches;
    p->watches = aligned_alloc(_Alignof(bn_stopwatch), bytes);
    if (!p->watches) return -1;
    memset(p->watches, 0, bytes);
  }
  return 0;
}

int bn_pool_threads(const bn_pool *p) {
  return p->threads;
}

void bn_span(long n, int thread, int threads, long *first, long *end) {
  *first = n * thread / threads;
  *end = n * (thread + 1) / threads;
}
