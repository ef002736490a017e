/* store: a node's durable state under one data directory, and the thread that makes it durable.
 *
 *   LOCK        held (flock) while a node uses the directory; the pid inside is for people
 *   FORMAT      "remora store 1": written first, so that a directory of something else is never mistaken for ours
 *   GENERATION  a counter, raised and synced at each start before anything is sent
 *   IDENTITY    store_uuid and the node's CURVE key pair, whose hash it is; made once; mode 0600; written last
 *   log/ map/   LevelDBs: the synced log, and the map that is rebuilt from it. A damaged map is moved to
 *               map.damaged-N when it is closed, or cannot be opened
 *   contents/   files and packs (replica/contents_files.h)
 *   RESERVE     room that is given back when somebody else fills the disk
 * docs/storage-format.md has the bytes. Threads: opening and closing on the loop thread, before and after all
 * others. */
#ifndef NODE_STORE_STORE_H
#define NODE_STORE_STORE_H

#include "loop.h"
#include "replica/contents.h"
#include "replica/kv.h"

#define NODE_STORE_VERSION      1
#define NODE_STORE_CURVE_SIZE   32
#define NODE_STORE_MESSAGE_HINT "see docs/operations.md, \"A damaged store\""

struct node_store_options {
    const char *path;
    uint64_t capacity;   /* bytes of contents at most; 0: what the disk has */
    uint64_t free_floor; /* bytes to leave free */
    /* of the contents: replica/contents_files.h */
    void (*on_damage)(void *context, const struct replica_content_id *content, const char *where);
    void *context;
};

#define NODE_STORE_ASIDE_TEXT 64

struct node_store {
    struct replica_id id;
    uint64_t generation;
    uint8_t curve_public[NODE_STORE_CURVE_SIZE];
    uint8_t curve_secret[NODE_STORE_CURVE_SIZE];
    struct replica_kv *log, *map;
    struct replica_contents *contents;
    char *path;
    int directory, lock; /* descriptors */
    char aside
        [NODE_STORE_ASIDE_TEXT]; /* the name that a damaged map was given when this was opened; "": none */
};

/* Opens, or makes in a directory that is absent or empty. When it returns, identity and generation are
 * durable. Errors: BUSY (another node uses it), VERSION (written by a newer version), EXISTS (the directory
 * holds something else), CORRUPT, NOSPACE, DENIED, IO, NOMEM; then nothing was changed but for what a first
 * start had begun. ret_message: malloc'ed, returned to the caller; names the directory and what to do. */
int node_store_open(const struct node_store_options *options, struct node_store **ret_store,
                    char **ret_message);
void node_store_close(struct node_store **store);
/* The map was found damaged: closed and opened again, the store has one that is empty, to be rebuilt. */
bool node_store_map_is_damaged(const struct node_store *store);

/* Bytes that are free on the store's disk, for who is not root. */
uint64_t node_store_space(const struct node_store *store);
/* How large a reserve fits the disk. */
uint64_t node_store_reserve_size(const struct node_store *store);
/* Errors: NOSPACE, IO (also where a file system cannot promise room): then there is none. Any thread, one at a
 * time. */
int node_store_reserve_make(struct node_store *store, uint64_t size);
void node_store_reserve_release(struct node_store *store);
bool node_store_reserve_is_made(const struct node_store *store);

/* Group commit, on a thread of its own: contents first, then the log; one sync at a time. A sync covers
 * whatever was written before it began, and the next starts at once if more waits. */
struct node_syncer;

/* synced(context, batch, code): on the loop; batches up to `batch` are durable, or code says why not: then
 * nothing more ever will be. Errors: NOMEM. */
int node_syncer_new(struct node_loop *loop, struct node_store *store,
                    void (*synced)(void *context, uint64_t batch, int code), void *context,
                    struct node_syncer **ret_syncer);
/* Everything that was written or filled so far, batches up to `batch` among it, is to be made durable. Loop
 * thread. */
void node_syncer_request(struct node_syncer *syncer, uint64_t batch);
/* Ends the thread after the sync in course; what waits is not synced. A last call of synced may still be
 * posted to the loop. */
void node_syncer_stop(struct node_syncer *syncer);
/* Stopped, and nothing of it is posted any more. */
void node_syncer_destroy(struct node_syncer **syncer);

#endif
