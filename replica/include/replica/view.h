/* view: what one reader or writer works in. A snapshot of a volume, its own commits since, and its drafts; durable, so that it
 * survives its node.
 *
 * Drafts are an overlay over the snapshot, in generations. All writes go into the newest one. Freezing for a commit raises the
 * generation: one small record flips, whatever the number of drafts, and later writes land above. A generation is
 *   dirty      → writes go here (only the newest), or it was thawed after a commit that certainly did not happen
 *   frozen     → in flight under a commit id; a view has one commit in flight
 *   committed  → published, kept in the overlay until the snapshot covers the commit id
 * A path's newest overlay record wins over the snapshot. Freezing takes every dirty generation.
 *
 * Records live in the log kv under prefixes `w` (views) and `x` (overlay); docs/storage-format.md, "Views". Mutations write into
 * the log batch, which must be applied before the next call. Pure. */
#ifndef REPLICA_VIEW_H
#define REPLICA_VIEW_H

#include "replica/contents.h"
#include "replica/map.h"

#define REPLICA_VIEWS_MAX      4096 /* per store; each holds memory and pins history */
#define REPLICA_VIEW_LABEL_MAX 255

enum replica_view_flags {
    REPLICA_VIEW_READ_ONLY = 1u << 0,
    REPLICA_VIEW_PRIVATE =
        1u << 1, /* of one command or session: gone when it is closed or its session ends */
    REPLICA_VIEW_NO_LINKS = 1u << 3, /* of a version 1 volume: hard links are refused (PERM) */
    REPLICA_VIEW_AUTO = 1u << 2,     /* the background commit and shutdown publish it */
};

enum replica_commit_state {
    REPLICA_COMMIT_NONE,
    REPLICA_COMMIT_FROZEN,  /* no stamp yet: certainly not minted */
    REPLICA_COMMIT_STAMPED, /* a request to mint may have been sent: driven until its fate is known */
};

struct replica_view; /* opaque, in memory, owned by the table */

struct replica_views; /* all views of a store */

/* Loads every view of the log kv (borrowed, as the map kv; both outlive it). Errors: CORRUPT, IO, NOMEM. */
int replica_views_new(struct replica_kv *log, struct replica_kv *map, struct replica_views **ret_views);
void replica_views_destroy(struct replica_views **views);

struct replica_view_options {
    struct replica_id id; /* chosen by the caller, random */
    struct replica_id volume;
    struct replica_path sub; /* canonical; the view's root inside the volume */
    uint32_t flags;
    uint32_t uid;                 /* who opened it */
    uint64_t snapshot;            /* apply_seq */
    struct replica_vector vector; /* what the snapshot stands for */
    char label[REPLICA_VIEW_LABEL_MAX +
               1]; /* for people and to attach again: "" or a name unique per volume */
};
/* Errors: INVALID (sub, label), EXISTS (id or label), NOSPACE (too many), NOMEM. */
int replica_view_open(struct replica_views *views, const struct replica_view_options *options,
                      struct replica_kv_batch *log, struct replica_view **ret_view);
/* Forgets the view and its overlay, about max records per call: AGAIN until 0. BUSY while a commit is in flight. */
int replica_view_close(struct replica_view *view, size_t max, struct replica_kv_batch *log);

struct replica_view *replica_view_find(struct replica_views *views, const struct replica_id *id);
struct replica_view *replica_view_find_label(struct replica_views *views, const struct replica_id *volume,
                                             const char *label);
size_t replica_views_count(const struct replica_views *views);
struct replica_view *replica_views_at(struct replica_views *views, size_t index);

/* Borrowed, of the view as it is now. */
struct replica_view_info {
    struct replica_view_options options; /* snapshot and vector are current */
    uint64_t dirty;                      /* overlay records in dirty generations */
    uint64_t generation;                 /* that is written to; a freeze raises it, nothing lowers it */
    enum replica_commit_state commit;
    struct replica_id commit_id;
    struct replica_stamp stamp; /* of STAMPED */
    struct replica_vector own;  /* dots of own commits not yet covered by the snapshot */
};
const struct replica_view_info *replica_view_info(const struct replica_view *view);

/* After a restart: forgets what was left of a directory's move that it cut off, and dirty records whose content is not here, which only a
 * loss of power can bring about: they were not synced, their bytes are gone, and no commit could ever publish them. *ret_n: how many of these. */
int replica_view_forget_lost(struct replica_view *view, struct replica_contents *contents,
                             struct replica_kv_batch *log, size_t *ret_n);
/* The same for what names a draft whose file is gone. *ret_n: how many dirty or frozen records. */
int replica_view_forget_draft(struct replica_view *view, uint64_t draft, struct replica_kv_batch *log,
                              size_t *ret_n);

/* Visits each record that names a draft; path is empty for the one of a link object. A non-zero result ends it and is returned. */
int replica_view_each_draft(struct replica_view *view,
                            int (*visit)(void *context, uint64_t draft, struct replica_path path),
                            void *context);

/* Reading: the overlay over the snapshot, shown as users see it; paths are relative to the view's sub-path.
 * Errors as replica_map_lookup and replica_map_list. */
int replica_view_lookup(struct replica_view *view, struct replica_path path,
                        struct replica_version *ret_version);
int replica_view_list(struct replica_view *view, struct replica_path dir, struct replica_path after,
                      size_t max, size_t *reads, bool *ret_more,
                      int (*visit)(void *context, struct replica_path name,
                                   const struct replica_version *version),
                      void *context);

/* The version of path that a commit wrote (replica_map_version_by), whatever the view's snapshot and drafts. Errors: NOTFOUND. */
int replica_view_version_by(struct replica_view *view, struct replica_path path,
                            const struct replica_id *commit, struct replica_version *ret_version);

/* Writing. Each takes effect whole or not at all, into the log batch. An alias (replica/map.h) can be read, removed and renamed, not
 * written: that would be READONLY, too. Errors of all: READONLY; NOTFOUND (a parent), NOTDIR, PERM (a hard link in a version 1 volume: the caller passes version). */
/* Creates or replaces path by entry (kind any but LINK; a file's blob may be DRAFT). A name of a link object keeps being one: the
 * write goes to the object and re-asserts the name. Errors: ISDIR (a non-directory over a directory), EXISTS (a directory over a
 * non-directory); a directory over a directory changes its metadata. */
int replica_view_put(struct replica_view *view, struct replica_path path, const struct replica_entry *entry,
                     struct replica_kv_batch *log);
/* Makes the missing parents of path as directories (mode 0755, the given owner). AGAIN if it made any: the next call sees them. */
int replica_view_make_parents(struct replica_view *view, struct replica_path path, uint32_t uid, uint32_t gid,
                              int64_t mtime_ns, struct replica_kv_batch *log);
/* AGAIN until it is known whether a directory is empty of which many names have gone. Errors: NOTEMPTY for a directory with shown
 * children; INVALID for the root. */
int replica_view_remove(struct replica_view *view, struct replica_path path, struct replica_kv_batch *log);
/* rename(2): replaces a non-directory or an empty directory. A directory moves with all that is below it, about max entries per call:
 * AGAIN until 0. Nothing of it is seen before the last call, by this view's readers neither, and a commit in between has nothing of it. After
 * an error, or if it is given up (no further call), or cut off by a restart, all is as it was; what else is written meanwhile makes it
 * begin again. Errors: NOTFOUND, NOTEMPTY, ISDIR, NOTDIR, INVALID (into itself), TOOBIG (a path below would be too long). */
int replica_view_rename(struct replica_view *view, struct replica_path from, struct replica_path to,
                        size_t max, struct replica_kv_batch *log);
/* link(2); object is a fresh random id, used if `from` has one name so far. */
int replica_view_link(struct replica_view *view, struct replica_path from, struct replica_path to,
                      const struct replica_id *object, struct replica_kv_batch *log);

/* Committing. */
/* Freezes every dirty generation under a commit id. Errors: BUSY (one is in flight), NOTFOUND (nothing is dirty). */
int replica_view_freeze(struct replica_view *view, const struct replica_id *commit, uint64_t time_ms,
                        struct replica_kv_batch *log);
/* The next draft of the frozen generations that is not a content yet, after `after` (0: first). Errors: NOTFOUND: all are. */
int replica_view_next_draft(struct replica_view *view, uint64_t after, uint64_t *ret_draft);
/* Replaces draft by the blob it became (INLINE or CONTENT), wherever the overlay names it. */
int replica_view_settle(struct replica_view *view, uint64_t draft, const struct replica_blob *blob,
                        uint64_t size, struct replica_kv_batch *log);
/* Appends the frozen op list to ops in order, about max records per call; AGAIN until 0. position: opaque, empty at first. Counts are
 * added to. Ops that change nothing against their base are kept: an op is always recorded (design §4). */
int replica_view_ops(struct replica_view *view, struct replica_buffer *position, size_t max,
                     struct replica_buffer *ops, uint64_t *op_count, uint64_t *byte_count);
/* The journal of the commit in flight, chosen by the quorum room: kept with the view, given back after a restart. */
int replica_view_journal(struct replica_view *view, const void *data, size_t n, struct replica_kv_batch *log);
int replica_view_journal_read(struct replica_view *view, struct replica_buffer *ret_data);
int replica_view_stamp(struct replica_view *view, const struct replica_stamp *stamp,
                       struct replica_kv_batch *log);
/* It certainly did not happen: the frozen generations are dirty again. */
int replica_view_thaw(struct replica_view *view, struct replica_kv_batch *log);
/* It is committed, at that dot. */
int replica_view_committed(struct replica_view *view, const struct replica_stamp *stamp,
                           const struct replica_dot *dot, struct replica_kv_batch *log);

/* Moves the snapshot; drafts stay. Committed generations whose commit id `covers` says is in it leave the overlay, about max records per
 * call: AGAIN until 0 (reads are right meanwhile). */
int replica_view_reload(struct replica_view *view, uint64_t snapshot, const struct replica_vector *vector,
                        size_t max,
                        bool (*covers)(void *context, const struct replica_id *commit,
                                       const struct replica_dot *dot),
                        void *context, struct replica_kv_batch *log);

/* Whether the overlay of a view of that volume (NULL: of any) names content. Indexed: one seek, and one more for each view of another
 * volume that names it, of which at most REPLICA_VIEWS_VISITED_MAX are passed over. */
#define REPLICA_VIEWS_VISITED_MAX 256
int replica_views_refer(struct replica_views *views, const struct replica_id *volume,
                        const struct replica_content_id *content, bool *ret_refers);

/* The lowest snapshot that any view of volume holds; UINT64_MAX if none. */
uint64_t replica_views_floor(const struct replica_views *views, const struct replica_id *volume);

#endif
