/* trials: how many seeds a test runs. A sanitizer makes a program several times slower (REMORA_TEST_SLOW, see tests/CMakeLists.txt) and looks
 * at the same code whatever the seed; all seeds are the plain build's. */
#ifndef TESTS_TRIALS_H
#define TESTS_TRIALS_H

#include <stdint.h>
#include <stdlib.h>

static inline uint64_t trials(uint64_t n)
{
    const char *text = getenv("REMORA_TEST_SLOW");
    uint64_t slow = text == NULL ? 1 : strtoull(text, NULL, 10);
    return slow <= 1 ? n : (n + slow - 1) / slow;
}

#endif
