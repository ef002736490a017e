/* The LevelDB back end of kv. Not pure.
 *
 * write applies a batch without a sync; sync makes durable every log file that existed when it began: LevelDB switches
 * log files without syncing the old one, so its own sync=true on a later, empty write would not cover them. */
#ifndef REPLICA_KV_LEVELDB_H
#define REPLICA_KV_LEVELDB_H

#include "replica/kv.h"

struct replica_kv_leveldb_options {
    const char *path;         /* a directory, made if absent; borrowed for the call */
    size_t write_buffer_size; /* bytes before a memtable is written out */
    size_t cache_size;        /* bytes of block cache */
    int open_files_max;       /* descriptors LevelDB may keep */
};

/* Opens or creates. ret_message (may be NULL) receives a malloc'ed text on failure, returned to the caller.
 * Errors: BUSY (another process holds it), CORRUPT, IO, NOSPACE, NOMEM. */
int replica_kv_leveldb_open(const struct replica_kv_leveldb_options *options, struct replica_kv **ret_kv,
                            char **ret_message);

/* Whether a call on it has met damage since it was opened. Any thread. */
bool replica_kv_leveldb_is_damaged(const struct replica_kv *kv);

#endif
