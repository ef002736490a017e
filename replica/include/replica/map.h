/* map: a volume's state, path → entry, with every version that is still kept.
 *
 * Keyed (target, parent, name, apply_seq descending), so that the state at any older apply_seq is a read, and the children of a
 * directory lie together. Merging is per path: the highest stamp wins (design §4); everything is a pure function of the set of
 * ops applied, whatever their order, repetition or batching.
 *
 * Raw reads give winners and tombstones as merged. Shown reads give what users see:
 *   - a directory's tombstone is shown as that directory while anything below it is live;
 *     (writers write an entry for every directory above what they make: one that never had any is found, but not listed);
 *   - where a name is a live non-directory and live paths exist below it, the directory is shown under the name (with default
 *     metadata, 0755) and the other as NAME.remora-<8 hex of its stamp's commit id>, NAME cut so that the
 *     whole is ≤ 255 bytes; operations on the alias mean the non-directory;
 *   - a LINK whose object has no live entry is not shown; one that has is shown with the object's entry.
 *
 * Writes go into batches: the kv must see them before the next call that scans. Single-path reads look through the pending
 * batch where one is passed. Keys: docs/storage-format.md, "Map". Pure. */
#ifndef REPLICA_MAP_H
#define REPLICA_MAP_H

#include "replica/delta.h"
#include "replica/kv.h"

struct replica_map {
    struct replica_kv *kv; /* borrowed */
    struct replica_id volume;
};

/* One version of a target. Owns its bytes: _init before, _close after. */
struct replica_version {
    struct replica_buffer bytes;
    struct replica_stamp stamp; /* zero: shown by rule only, never written */
    struct replica_stamp base;
    uint64_t apply_seq;
    bool tombstone;
    bool lost;                  /* set by history and lost walks */
    struct replica_id node;     /* the writer's store */
    uint64_t time_ms;           /* the writer's clock */
    struct replica_entry entry; /* points into bytes; of a LINK in a shown read: the object's entry */
    struct replica_id object;   /* of a shown LINK: its object, else zero */
    uint32_t links;             /* of a shown file: how many live names its object has; 1 without an object */
};
void replica_version_init(struct replica_version *version);
void replica_version_close(struct replica_version *version);

/* What a target is: objects and paths live in one key space. */
struct replica_target_name {
    enum replica_target target;
    struct replica_path path;
    struct replica_id object;
};

/* Running totals of a volume, a field of its head record; maintained by apply. */
struct replica_totals {
    uint64_t inodes;        /* live files, directories, links objects … : names, objects counted once */
    uint64_t files;         /* live non-directories */
    uint64_t bytes;         /* sum of live files' sizes */
    uint64_t history_bytes; /* sum of the sizes of superseded and lost versions kept */
    uint8_t state_hash
        [REPLICA_HASH_SIZE]; /* sum mod 2^256 of the hashes of the live winners (target, entry, stamp) */
};
void replica_totals_pack(struct replica_buffer *out, const struct replica_totals *totals);
int replica_totals_read(struct replica_pack_reader *reader, struct replica_totals *ret_totals);

/* Applies one op of a delta at apply_seq (> 0). Repeating it (a restart that applies again from an older point) changes nothing,
 * totals aside: those belong to the head that the caller restores. pending is the map batch to write into, looked through for
 * what earlier ops of this very step wrote. *reads grows by the reads made.
 * Errors: CORRUPT, IO, NOMEM. */
struct replica_apply {
    uint64_t apply_seq;
    struct replica_stamp stamp;
    struct replica_id node;
    uint64_t time_ms;
};
struct replica_map_run;
int replica_map_apply(const struct replica_map *map, const struct replica_apply *apply,
                      const struct replica_op *op, struct replica_kv_batch *pending,
                      struct replica_totals *totals, struct replica_map_run *run, size_t *reads);

/* How many live children a directory has is kept beside its versions. Ops come sorted by parent, so one delta's ops of one directory are a
 * run: it is counted while they are applied, and written once. Zero it at first; end it after the last op. */
struct replica_map_run {
    bool any;
    char parent[REPLICA_PATH_MAX + 1];
    size_t parent_size;
    int64_t change;
};
int replica_map_run_end(const struct replica_map *map, const struct replica_apply *apply,
                        struct replica_map_run *run, struct replica_kv_batch *pending, size_t *reads);
/* Live names in dir (as merged) at apply_seq. */
int replica_map_children(const struct replica_map *map, struct replica_path dir, uint64_t apply_seq,
                         uint64_t *ret_n);

/* The newest version at or before apply_seq, as merged. Errors: NOTFOUND. */
int replica_map_get(const struct replica_map *map, const struct replica_kv_batch *pending,
                    const struct replica_target_name *name, uint64_t apply_seq,
                    struct replica_version *ret_version);

/* As users see it. Errors: NOTFOUND; NOTDIR if a parent is shown as something else than a directory. */
int replica_map_lookup(const struct replica_map *map, struct replica_path path, uint64_t apply_seq,
                       struct replica_version *ret_version);

/* The shown children of dir in name order, an alias right behind the name that it stands for; after the name or alias `after` (empty: from the first), at most max of them, skipping what
 * is not shown; visit borrows. A non-zero result of visit stops and is returned. *reads grows. *ret_more: there may be more.
 * Errors: NOTFOUND, NOTDIR. */
int replica_map_list(const struct replica_map *map, struct replica_path dir, struct replica_path after,
                     uint64_t apply_seq, size_t max, size_t *reads, bool *ret_more,
                     int (*visit)(void *context, struct replica_path name,
                                  const struct replica_version *version),
                     void *context);

/* All versions of a path, newest stamp first, losers included and marked. */
int replica_map_history(const struct replica_map *map, struct replica_path path,
                        int (*visit)(void *context, const struct replica_version *version), void *context);

/* The version of path that a commit wrote, whether it won, was superseded or lost (and is marked so), as long as it is kept; of a LINK with
 * the object's entry as that commit wrote it, or found it. Errors: NOTFOUND. */
int replica_map_version_by(const struct replica_map *map, struct replica_path path,
                           const struct replica_id *commit, struct replica_version *ret_version);

/* All lost versions of the volume, by path: neither the winner nor named as base by any
 * version of that path. */
int replica_map_lost(const struct replica_map *map,
                     int (*visit)(void *context, struct replica_path path,
                                  const struct replica_version *version),
                     void *context);

/* Of one commit only: the paths at which it met a version that it had not seen, as found while it was applied; version is NULL. */
int replica_map_lost_by(const struct replica_map *map, const struct replica_id *commit,
                        int (*visit)(void *context, struct replica_path path,
                                     const struct replica_version *version),
                        void *context);

/* Whether any kept version of that volume (NULL: of any) refers to content. One seek. */
int replica_map_refers(struct replica_kv *kv, const struct replica_id *volume,
                       const struct replica_content_id *content, bool *ret_refers);

/* Visits each volume of which a kept version refers to content; visit's non-zero result ends it and is returned. */
int replica_map_each_volume(struct replica_kv *kv, const struct replica_content_id *content,
                            int (*visit)(void *context, const struct replica_id *volume), void *context);

/* The hash of the live winners by a full scan, to check totals->state_hash in tests and fsck. */
int replica_map_state_hash(const struct replica_map *map, uint64_t apply_seq,
                           uint8_t ret_hash[REPLICA_HASH_SIZE]);

#endif
