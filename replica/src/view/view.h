/* The inside of views, shared by the view_*.c files. Records of the log kv:
 *   w view                                    the view
 *   x view target-key 00 inverted-generation  an overlay record
 *   X content view target-key 00 generation   an overlay record names that content
 *   D view draft target-key 00 generation     an overlay record names that draft
 *   N view object target-key 00 generation    an overlay record makes that name a link of the object
 *   J view                                    the journal of the commit in flight */
#ifndef REPLICA_SRC_VIEW_H
#define REPLICA_SRC_VIEW_H

#include "map/map.h"
#include "replica/view.h"

struct view_commit {
    uint64_t low, high; /* generations */
    struct replica_id commit;
    struct replica_stamp stamp;
    struct replica_dot dot;
    uint64_t time_ms;
};

#define VIEW_OWN_MAX 256 /* own commits that no snapshot covers yet; then commit waits for a reload */

struct replica_view {
    struct replica_views *views;
    struct replica_view_info info;
    char sub[REPLICA_PATH_MAX + 1];
    uint64_t generation; /* the one written to */
    uint64_t dirty_low;  /* the lowest dirty one */
    uint64_t floor; /* records at or below are covered by the snapshot: ignored, and forgotten bit by bit */
    struct view_commit frozen; /* info.commit != NONE */
    struct view_commit last;   /* the newest committed one: bases of what was written while it was frozen */
    struct view_commit own[VIEW_OWN_MAX];
    size_t own_n;
    uint64_t frozen_dirty; /* how many records of the frozen range were dirty */
    bool sweeping;         /* records at or below floor are left to forget */
    bool renaming;
    char rename_dir[REPLICA_PATH_MAX + 1], rename_after[REPLICA_NAME_MAX + 1];
    char parent[REPLICA_PATH_MAX + 1]; /* the last one found to be a directory */
    size_t parent_size;
    bool parent_known;
    bool closing;
};

struct replica_views {
    struct replica_kv *log, *map;
    struct replica_view **items; /* sorted by id */
    size_t n;
};

/* An overlay record. bytes back the entry. */
struct view_record {
    struct replica_buffer bytes;
    uint64_t generation;
    bool tombstone;
    uint64_t base_generation; /* not 0: the base is what this own generation becomes */
    struct replica_stamp base;
    struct replica_entry entry;
};
void view_record_init(struct view_record *record);
void view_record_close(struct view_record *record);
int view_record_decode(const uint8_t *data, size_t n, struct view_record *record);

/* Whole paths: the view's sub-path before the caller's. Errors: TOOBIG. */
int view_full_path(const struct replica_view *view, struct replica_path path,
                   char ret_text[REPLICA_PATH_MAX + 1], struct replica_path *ret_full);

void view_key_overlay(const struct replica_view *view, const struct replica_target_name *name,
                      struct map_key *ret_key);
/* The newest overlay record that counts. Errors: NOTFOUND. */
int view_overlay_get(struct replica_view *view, const struct replica_target_name *name,
                     struct view_record *ret_record);
/* Overlay, else snapshot, as merged. Errors: NOTFOUND (also for a tombstone, which ret_version then holds). */
int view_raw_get(struct replica_view *view, const struct replica_target_name *name,
                 struct replica_version *ret_version, bool *ret_overlaid);
/* Whether anything is drafted or not yet covered, so that the snapshot is not all. */
bool view_has_overlay(const struct replica_view *view);
/* How many names the object has, overlay and snapshot together. */
int view_count_links(struct replica_view *view, const struct replica_id *object, uint32_t *ret_n);
/* The whole path that an alias stands for, into ret_text. Errors: NOTFOUND: path is not an alias. */
int view_alias_target(struct replica_view *view, struct replica_path full,
                      char ret_text[REPLICA_PATH_MAX + 1], struct replica_path *ret_full);
/* Writes one record into the newest generation, with its base and its indexes. */
int view_overlay_put(struct replica_view *view, const struct replica_target_name *name, bool tombstone,
                     const struct replica_entry *entry, struct replica_kv_batch *log);
void view_index(const struct replica_view *view, const struct map_key *overlay_key, uint64_t generation,
                const struct replica_entry *entry, bool add, struct replica_kv_batch *log);
void view_write(const struct replica_view *view, struct replica_kv_batch *log);
void view_refresh_own(struct replica_view *view);

#endif
