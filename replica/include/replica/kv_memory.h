/* The memory back end of kv, with the crash model of a disk: batches since the last sync are pending, and a crash
 * loses any suffix of them. Pure. */
#ifndef REPLICA_KV_MEMORY_H
#define REPLICA_KV_MEMORY_H

#include "replica/kv.h"

/* Errors: NOMEM. */
int replica_kv_memory_new(struct replica_kv **ret_kv);

/* How many batches were written since the last sync. */
size_t replica_kv_memory_pending(const struct replica_kv *kv);

/* The oldest n pending batches are durable, as by a sync that began when they were the only ones. n ≤ pending. */
void replica_kv_memory_sync_first(struct replica_kv *kv, size_t n);

/* Power is lost: the first `keep` pending batches survive, all later ones never happened (a torn batch is detected
 * by its checksum, so it is lost whole). keep ≤ pending. Also clears a failure. */
void replica_kv_memory_crash(struct replica_kv *kv, size_t keep);

/* The next write or sync, whichever comes first after `countdown` further successful ones, fails with `code`. */
void replica_kv_memory_fail_after(struct replica_kv *kv, size_t countdown, int code);

#endif
