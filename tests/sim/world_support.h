/* What the tests over a world share. */
#ifndef TESTS_SIM_WORLD_SUPPORT_H
#define TESTS_SIM_WORLD_SUPPORT_H

#include "sim/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A world whose trace goes to standard error if REMORA_TRACE is set. */
struct world *test_world(const struct world_options *options);
/* Fails the test with the oracle's words, if any. */
void test_sound(const struct world *world);
/* All comes to rest, and nothing was lost. */
void test_converge(struct world *world, uint64_t ms);

/* Three founders with a volume and a writable view on each. */
struct test_three {
    struct world *world;
    struct replica_id volume;
    struct replica_id views[WORLD_NODES_MAX];
};
void test_three_begin(struct test_three *three, const struct world_options *options);
void test_three_end(struct test_three *three);

void test_put_text(struct world *world, size_t node, const struct replica_id *view, const char *path,
                   const char *text);
void test_expect_text(struct world *world, size_t node, const struct replica_id *view, const char *path,
                      const char *text);
/* n bytes that depend on the seed. */
void test_fill(uint8_t *bytes, size_t n, uint64_t seed);

#endif
