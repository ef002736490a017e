/* Hybrid logical clock values (Kulkarni et al. 2014): milliseconds since 1970 in the upper 48 bits, a counter in the
 * lower 16. Pure arithmetic; the caller brings the clock. */
#ifndef REPLICA_HLC_H
#define REPLICA_HLC_H

#include <stddef.h>
#include <stdint.h>

#define REPLICA_HLC_COUNTER_BITS 16

/* The smallest value of that millisecond. */
uint64_t replica_hlc_from_ms(uint64_t ms);
uint64_t replica_hlc_to_ms(uint64_t hlc);

/* The stamp rule of a commit: max(highest + 1, min(own clock, median of the answering clocks)), so that it orders after
 * whatever a majority has seen, and one fast clock cannot drag a volume ahead. clocks_ms: n ≥ 1 values, reordered in
 * place; the lower median is taken. highest and the result are hlc values, clocks are milliseconds. */
uint64_t replica_hlc_stamp(uint64_t highest, uint64_t own_ms, uint64_t *clocks_ms, size_t n);

#endif
