/* The inside of the file back end, shared by contents_files*.c. */
#ifndef REPLICA_SRC_CONTENTS_FILES_H
#define REPLICA_SRC_CONTENTS_FILES_H

#include "contents/contents_tree.h"
#include "replica/contents_files.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#define FILES_TABLE_SIZE 4096 /* buckets of contents that are not complete; a power of two */
#define FILES_PACK_MAX                                                                                       \
    ((uint64_t)256 << 20) /* a pack is closed at this size, so that one that empties is soon removed */

/* A content that is not complete: partial or filled. */
struct files_item {
    struct contents_tree tree;
    enum replica_contents_state state;
    bool packed;           /* its bytes lie in a pack */
    uint64_t pack, offset; /* of a packed one, from FILLED on; of another, its facts once it is sealed */
    uint64_t
        claims; /* bytes of the capacity that it takes, or may come to take by what is known of its holes */
    unsigned users; /* threads writing outside the lock */
    bool dropped;   /* out of the table; the last user frees it */
    bool leftover;  /* its file is of an earlier life, nothing in it is trusted; not begun in this one */
    bool has_old;   /* … begun again: what its pages name is looked for in the old file */
    struct files_item *next;        /* in its bucket */
    struct files_item *filled_next; /* waiting for a sync */
};

struct files_place {
    bool packed;
    uint64_t pack, offset; /* of a whole file: its inode and time of change when it was sealed */
    uint64_t stored;       /* bytes that it takes: holes not counted */
};

/* What is to be unlinked, or punched, once the log that says so is durable. */
struct files_release {
    struct replica_content_id id;
    bool
        complete; /* a complete one that was removed; else the name in partial/ of one that became complete */
    struct files_place place; /* of a complete one */
};

struct files {
    struct replica_contents base;
    struct replica_kv *log;
    int directory, partial, whole, packs, draft, quarantine; /* descriptors of the directories */
    uint64_t capacity, free_floor;
    void (*on_damage)(void *context, const struct replica_content_id *id, const char *where);
    void *damage_context;
    uint64_t lost;        /* contents found missing while opening */
    pthread_mutex_t lock; /* everything below */
    struct files_item *table[FILES_TABLE_SIZE];
    struct files_item *filled; /* in order of becoming filled; the sync takes the whole list */
    struct files_item **filled_end;
    pthread_cond_t left; /* by the last user of one that is filled */
    int failed; /* the code of a sync that failed: what it covered may be lost though a second one would
                   succeed; 0: none did */
    struct files_release *releases;
    size_t releases_n, releases_capacity;
    _Atomic uint64_t releasing;            /* bytes that these, and those being let go of, will give back */
    struct replica_contents_totals totals; /* of what is complete */
    struct replica_contents_totals open;   /* of what is in the table, by its claims */
    uint64_t pack, pack_size;              /* the pack being appended to */
    int pack_fd;                           /* -1: none open */
    bool pack_dirty, pack_new;
    uint64_t next_draft, next_temporary;
    uint64_t damaged, quarantined; /* records, at least; files in quarantine/ */
    pthread_mutex_t sync_lock;     /* one sync at a time */
};

#define FILES_NAME_MAX       100
#define FILES_QUARANTINE_MAX 100 /* files kept to be looked at: whoever cares has seen enough by then */

/* table (lock held) */
struct files_item *files_find(struct files *files, const struct replica_content_id *id);
int files_add(struct files *files, const struct replica_content_id *id, uint64_t claims,
              struct files_item **ret_item);
void files_claim(struct files *files, struct files_item *item, uint64_t claims);
void files_drop(struct files *files, struct files_item *item); /* freed when its last user leaves */
void files_leave(struct files *files,
                 struct files_item *item); /* one user less; after it the item may be gone */
struct files_item *files_partial_next(struct files *files, const struct replica_content_id *after);
int files_set_filled(struct files *files, struct files_item *item);  /* records it; Errors: IO, NOSPACE */
void files_add_filled(struct files *files, struct files_item *item); /* it is recorded */

/* names */
void files_name(const struct replica_content_id *id, char ret_name[FILES_NAME_MAX]); /* partial/NAME */
bool files_parse_name(const char *name, struct replica_content_id *ret_id);
void files_whole_name(const struct replica_content_id *id, char ret_name[FILES_NAME_MAX]); /* whole/XX/NAME */
void files_pack_name(uint64_t pack, char ret_name[FILES_NAME_MAX]);

/* reading: all that is returned was verified */
struct files_bytes {
    int fd;
    bool complete;            /* where the index says; else the file of an item, or its place in a pack */
    struct files_place place; /* of its bytes */
};
int files_read(struct replica_contents *contents, const struct replica_content_id *id, uint64_t offset,
               void *data, size_t n, size_t *ret_n);
int files_read_piece(struct replica_contents *contents, const struct replica_content_id *id,
                     struct replica_piece piece, struct replica_buffer *ret_data);
/* Opens the bytes of a content in any state, of which chunks [first, last] are wanted; close it whatever comes
 * back. Errors: ABSENT, CORRUPT (the file has gone), IO. */
int files_bytes_open(struct files *files, const struct replica_content_id *id, uint32_t first, uint32_t last,
                     struct files_bytes *bytes);
void files_bytes_close(struct files_bytes *bytes);
/* One whole chunk. Errors: CORRUPT, ABSENT, NOMEM. */
int files_bytes_chunk(struct files *files, const struct replica_content_id *id,
                      const struct files_bytes *bytes, uint32_t chunk, uint8_t *data);

/* damage (lock not held) */
/* What bytes led to is not the content: it is set aside, if it is still that. CORRUPT; ABSENT: it had gone
 * meanwhile. */
int files_set_aside(struct files *files, const struct replica_content_id *id,
                    const struct files_bytes *bytes);
void files_facts(const struct stat *status, struct files_place *place);
int files_recheck(struct files *files);

/* sync */
int files_sync(struct replica_contents *contents);
int files_release_later(struct files *files, const struct files_release *release); /* lock held */

/* The records of a complete content go, its bytes at the next sync. Lock held. Errors: ABSENT, IO, NOMEM. */
int files_remove_complete(struct files *files, const struct replica_content_id *id, bool damaged);

/* index records in the log kv; pack: how much of it is live */
int files_index_get(struct files *files, const struct replica_content_id *id, struct files_place *ret_place);
void files_index_put(struct replica_kv_batch *batch, const struct files_item *item,
                     const struct files_place *place);
void files_index_place(struct replica_kv_batch *batch, const struct replica_content_id *id,
                       const struct files_place *place);
void files_index_delete(struct replica_kv_batch *batch, const struct replica_content_id *id);
int files_index_ids(struct files *files, const struct replica_content_id *id, struct replica_piece piece,
                    struct replica_buffer *ret_ids);
int files_index_pack(struct files *files, struct replica_kv_batch *batch, const struct files_place *place,
                     bool add, uint64_t *ret_live);
int files_index_pack_live(struct files *files, uint64_t pack, uint64_t *ret_live);
int files_index_next(struct files *files, const struct replica_content_id *after,
                     struct replica_content_id *ret_id);
/* Filled but not synced: named only so that a killed node finds it again, verified. */
void files_filled_put(struct replica_kv_batch *batch, const struct files_item *item);
void files_filled_delete(struct replica_kv_batch *batch, const struct replica_content_id *id);
int files_filled_next(struct files *files, const struct replica_content_id *after,
                      struct replica_content_id *ret_id, struct files_place *ret_place);
void files_going_put(struct replica_kv_batch *batch, const struct replica_content_id *id,
                     const struct files_place *place);
void files_going_delete(struct replica_kv_batch *batch, const struct replica_content_id *id);
int files_going_next(struct files *files, const struct replica_content_id *after,
                     struct replica_content_id *ret_id, struct files_place *ret_place);
void files_damaged_put(struct replica_kv_batch *batch, const struct replica_content_id *id);
void files_damaged_delete(struct replica_kv_batch *batch, const struct replica_content_id *id);
bool files_damaged_get(struct files *files, const struct replica_content_id *id);
int files_damaged_next(struct files *files, const struct replica_content_id *after,
                       struct replica_content_id *ret_id);
void files_totals_put(struct files *files, struct replica_kv_batch *batch);
int files_totals_get(struct files *files);

/* What an earlier life left: contents that were filled but not synced are taken up if they verify, partial
 * files can be resumed, the rest goes. */
int files_recover(struct files *files, bool made); /* made: directories were not there */
/* The ids of all chunks of a file that nobody writes to, malloc'ed, returned to the caller. Errors: BUSY
 * (shorter than length), IO, NOMEM. */
int files_hash(int fd, uint64_t length, struct replica_hash **ret_ids);

/* bytes */
int files_errno(void);
int files_write_all(int fd, const void *data, size_t n, uint64_t offset);
/* Puts what was written on its way to the disk, so that the sync of a large content at its end finds little left to do, and a
 * slow disk holds up its writers as they go. Errors are the sync's to find. */
void files_write_behind(int fd, uint64_t offset, size_t n);
int files_read_all(int fd, void *data, size_t n, uint64_t offset);
bool files_all_zero(const uint8_t *data, size_t n);
int files_check_capacity(struct files *files, uint64_t bytes); /* lock held */
int files_check_space(struct files *files, uint64_t bytes);    /* lock held */
/* Asked again before each chunk: whoever began at the same time, or others on the disk, took some since.
 * Any thread. Errors: NOSPACE, IO. */
int files_check_floor(const struct files *files, uint64_t bytes);
int files_pack_append(struct files *files, struct files_item *item, const void *data,
                      size_t n); /* lock held */
/* Registers what was hashed (chunk ids); its bytes are the file `name` of a directory, which stays, or data
 * if it is to be packed. takes: bytes of the disk that this needs above the floor. NOSPACE leaves everything
 * as it was. */
int files_register(struct files *files, const struct replica_hash *ids, uint64_t length, int directory,
                   const char *name, const void *data, uint64_t takes, struct replica_content_id *ret_id);

#endif
