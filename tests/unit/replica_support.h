/* What the tests of replica share: seeded randomness, names, batches. */
#ifndef TESTS_REPLICA_SUPPORT_H
#define TESTS_REPLICA_SUPPORT_H

#include "replica/contents.h"
#include "replica/delta.h"
#include "replica/error.h"
#include "replica/kv.h"
#include "replica/map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* xorshift64*: the same numbers on every machine. */
struct support_random {
    uint64_t state;
};
uint64_t support_random(struct support_random *random);
uint64_t support_random_below(struct support_random *random, uint64_t n);
void support_random_fill(struct support_random *random, void *data, size_t n);

/* An id whose first bytes are `n`, the rest `kind`. */
struct replica_id support_id(uint8_t kind, uint64_t n);
struct replica_path support_path(const char *text);
struct replica_actor support_actor(uint64_t store, uint64_t epoch);

/* Applies and clears a batch. */
void support_apply(struct replica_kv *kv, struct replica_kv_batch *batch);

/* Entries. */
struct replica_entry support_directory(uint32_t mode);
struct replica_entry support_file(const char *text);                    /* inline; text is borrowed */
struct replica_entry support_content_file(uint8_t kind, uint64_t size); /* by a made-up content id */

/* Every entry of a map as "text" → for comparing: the number of keys under a kv prefix. */
size_t support_count(struct replica_kv *kv, const void *prefix, size_t n);

#endif
