/* sync: how deltas spread, and how they become state.
 *
 * Push for speed: a delta newly minted goes to the other voters, a newly committed one to a few random nodes. Pull for correctness: every
 * second each node exchanges version-vector digests with one other and pulls what it lacks; voters pull uncommitted deltas of each
 * other too, everybody else only committed ones. Any holder may serve any range; an empty answer teaches nothing. Committed deltas are
 * applied to the map in causal order, in bounded pieces. */
#ifndef GOSSIP_SYNC_H
#define GOSSIP_SYNC_H

#include "gossip/control.h"
#include "replica/volume.h"

struct gossip_sync_options {
    uint32_t digest_ms; /* between digests; 1000 */
    uint32_t fanout;    /* nodes that a newly committed delta is pushed to; 3 */
    uint32_t pull_ms;   /* before an unanswered pull is asked elsewhere; 1000 */
};
void gossip_sync_options_default(struct gossip_sync_options *options);

#endif
