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

/* A whole path of which something was found out. */
struct view_known {
    char text[REPLICA_PATH_MAX + 1];
    size_t size;
    bool any;
};

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
    uint64_t stage; /* not 0: a generation that is not seen, at or below `generation` or one above it */
    struct view_move
        *move; /* the directory that is being moved into it; NULL: what is in it is to be forgotten */
    struct view_scan *scan;   /* of a directory that is looked through in pieces; NULL: none */
    struct view_known parent; /* it and all above it are directories, with entries of their own */
    struct view_known listed; /* it and all above it are shown as directories */
    bool closing;
};

/* A directory on its way. All of it is written into the stage, a generation that nobody sees, and becomes visible by one record. */
struct view_move {
    char from[REPLICA_PATH_MAX + 1], to[REPLICA_PATH_MAX + 1], at[REPLICA_PATH_MAX + 1];
    size_t from_n, to_n, at_n;
    struct map_place place; /* in `at` */
    uint64_t records;       /* staged */
    bool passed;            /* a commit was in flight when it began */
    bool
        stale; /* the view is not what it was when it began: written by who had given up this move, or reloaded */
    int error; /* not 0: it is being undone, and this is the answer then */
};

struct view_scan {
    char dir[REPLICA_PATH_MAX + 1];
    size_t dir_n;
    struct map_place place;
    uint64_t snapshot;
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
int view_alias_base(struct replica_view *view, struct replica_path full, char ret_text[REPLICA_PATH_MAX + 1],
                    struct replica_path *ret_full); /* also where the view has drafted over it */
int view_alias_target(struct replica_view *view, struct replica_path full,
                      char ret_text[REPLICA_PATH_MAX + 1], struct replica_path *ret_full);
/* Writes one record into the newest generation (staged: into the stage), with its base and its indexes. */
int view_stage_put(struct replica_view *view, const struct replica_target_name *name, bool tombstone,
                   const struct replica_entry *entry, struct replica_kv_batch *log);
/* Deletes up to max of the view's overlay records of generations in [low, high]; *ret_left: there may be more. */
int view_forget_records(struct replica_view *view, uint64_t low, uint64_t high, size_t max,
                        struct replica_kv_batch *log, bool *ret_left);
/* One page of a directory that is known to be one (dir: whole): at most max that are shown, about `looks` names. place is moved. */
int view_list_page(struct replica_view *view, struct replica_path dir, struct map_place *place, size_t max,
                   size_t looks, size_t *reads, bool *ret_more,
                   int (*visit)(void *context, struct replica_path name,
                                const struct replica_version *version),
                   void *context);
/* Whether a directory (whole) shows nothing, found out in pieces: AGAIN. */
int view_is_empty(struct replica_view *view, struct replica_path dir, bool *ret_empty);
#define VIEW_LOOKS_MAX                                                                                       \
    250 /* names looked at in one step: a few milliseconds, also where each takes some reads */
/* What is shown at a whole path whose parents are known to be shown as directories. */
int view_lookup_child(struct replica_view *view, struct replica_path full,
                      struct replica_version *ret_version);
/* How many bytes of full, up to a component's end, are of what is known. */
size_t view_known_prefix(const struct view_known *known, struct replica_path full);
void view_know(struct view_known *known, struct replica_path path);
/* What is shown may have changed anywhere; or: that directory is not one any more. */
void view_know_nothing(struct replica_view *view);
void view_forget_directory(struct replica_view *view, struct replica_path full);
/* What a write to a path asks for. view_write.c */
int view_check_writable(const struct replica_view *view);
int view_check_parent(struct replica_view *view, struct replica_path full, struct replica_kv_batch *log);
int view_refuse_alias(struct replica_view *view, struct replica_path full);
int view_end_object(struct replica_view *view, const struct replica_version *shown,
                    struct replica_kv_batch *log);
int view_remove_name(struct replica_view *view, struct replica_path full, const struct replica_version *shown,
                     struct replica_kv_batch *log);
int view_overlay_put(struct replica_view *view, const struct replica_target_name *name, bool tombstone,
                     const struct replica_entry *entry, struct replica_kv_batch *log);
void view_index(const struct replica_view *view, const struct map_key *overlay_key, uint64_t generation,
                const struct replica_entry *entry, bool add, struct replica_kv_batch *log);
void view_write(const struct replica_view *view, struct replica_kv_batch *log);
void view_refresh_own(struct replica_view *view);

#endif
