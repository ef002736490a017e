#include "replica/hlc.h"

#include <assert.h>

uint64_t replica_hlc_from_ms(uint64_t ms)
{
    return ms << REPLICA_HLC_COUNTER_BITS;
}

uint64_t replica_hlc_to_ms(uint64_t hlc)
{
    return hlc >> REPLICA_HLC_COUNTER_BITS;
}

uint64_t replica_hlc_stamp(uint64_t highest, uint64_t own_ms, uint64_t *clocks_ms, size_t n)
{
    uint64_t clock;
    assert(n >= 1);
    for (size_t i = 1; i < n; i++) /* insertion sort: n is the number of voters */
        for (size_t j = i; j > 0 && clocks_ms[j - 1] > clocks_ms[j]; j--) {
            uint64_t swap = clocks_ms[j];
            clocks_ms[j] = clocks_ms[j - 1];
            clocks_ms[j - 1] = swap;
        }
    clock = clocks_ms[(n - 1) / 2];
    if (own_ms < clock)
        clock = own_ms;
    clock = replica_hlc_from_ms(clock);
    if (highest < UINT64_MAX) /* the end of time: nothing can be ordered after it, and wrapping round would
                                 order before everything */
        highest++;
    return highest > clock ? highest : clock;
}
