/*
 * What a thread opened ends with it, if it asked for that: bn_end_with_thread. A worker of Node may be terminated at
 * any time, and then nobody is left who could close anything.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include "internal.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key; /* its destructor runs when a thread with a value ends */
static int is_ready;
static atomic_ulong owners;
static _Thread_local uint64_t owner;

uint64_t bn_thread_owner(void) {
  return owner;
}

/* Contexts before the models that they use. */
static void leave(void *value) {
  (void)value;
  bn_pack_end(0);
  bn_contexts_leave(owner);
  bn_models_leave(owner);
}

/* The library must not be unloaded: pools run in its code, and so does leave(), after the interface that loaded it has
 * gone. It opens itself once more, and never closes that. */
static void prepare(void) {
  Dl_info self;
  is_ready = dladdr((const void *)(uintptr_t)bn_end_with_thread, &self) && dlopen(self.dli_fname, RTLD_NOW) &&
             !pthread_key_create(&key, leave);
}

int32_t bn_end_with_thread(void) {
  pthread_once(&once, prepare);
  if (owner) return 0;
  if (!is_ready || pthread_setspecific(key, &owner)) return bn_fail("the system cannot tell when a thread ends");
  owner = atomic_fetch_add(&owners, 1) + 1;
  return 0;
}
