/* The file back end of contents: whole files for large contents, append-only packs for small ones. Not pure.
 *
 * Under one directory: `partial/ID` (sparse, being filled), `whole/XX/ID` (complete, mode 0444, never written again),
 * `packs/N.pack` (contents ≤ 64 KiB), `draft/N` (files being written by views), `quarantine/ID` (what was found damaged). The index of what is complete, the chunk
 * ids and the place inside a pack are records of the log kv (prefix `C`, see docs/storage-format.md), so that nothing is
 * scanned at start but partial/ and the names of the packs. A crash leaves at worst unreferenced bytes, which the next open removes; a
 * partial file stays, and whoever begins that content again finds in it what its hashes confirm. */
#ifndef REPLICA_CONTENTS_FILES_H
#define REPLICA_CONTENTS_FILES_H

#include "replica/contents.h"
#include "replica/kv.h"

/* Larger contents are whole files, readable through a descriptor. */
#define REPLICA_CONTENTS_PACKED_MAX (64 * 1024)

struct replica_contents_files_options {
    const char *path;       /* a directory, made if absent; borrowed for the call */
    struct replica_kv *log; /* borrowed, outlives the contents; records under prefix `C` belong to them */
    uint64_t capacity;      /* bytes of contents at most; 0: no limit but the floor */
    uint64_t free_floor;    /* bytes to leave free on the file system */
    /* A content was found damaged at `where` and set aside: it is ABSENT from now on. On the thread that found it; may be NULL. */
    void (*on_damage)(void *context, const struct replica_content_id *id, const char *where);
    void *context;
};

/* Errors: IO, NOSPACE, CORRUPT, NOMEM. */
int replica_contents_files_open(const struct replica_contents_files_options *options,
                                struct replica_contents **ret_contents);

/* Copies (by reflink where the file system can) and hashes what fd holds from offset 0 to its end; FILLED afterwards.
 * progress (may be NULL) is called about every MiB with the bytes read so far; non-zero cancels (CANCELLED).
 * Errors: IO, NOSPACE, TOOBIG, BUSY (the file changed while it was read), CANCELLED. fd is borrowed. */
int replica_contents_files_ingest_fd(struct replica_contents *contents, int fd,
                                     int (*progress)(void *context, uint64_t bytes), void *context,
                                     struct replica_content_id *ret_id);

/* A read-only descriptor to the bytes of a complete whole file, returned to the caller. Nothing is read: only that the file is there, of
 * its size, and was not touched since it was sealed. Errors: ABSENT (packed or not complete), STALE (touched: verify it, then ask again),
 * CORRUPT (missing or of another size; set aside), IO. */
int replica_contents_files_fd(struct replica_contents *contents, const struct replica_content_id *id,
                              int *ret_fd);

/* Reads a content that is filled or complete through; what is damaged is set aside. progress as for ingest_fd.
 * Errors: CORRUPT, ABSENT, CANCELLED, IO, NOMEM. */
int replica_contents_files_verify(struct replica_contents *contents, const struct replica_content_id *id,
                                  int (*progress)(void *context, uint64_t bytes), void *context);
/* Whether the bytes of a complete content can be there at all, at the price of one stat. Errors: ABSENT (not complete), CORRUPT (set
 * aside), IO. */
int replica_contents_files_glance(struct replica_contents *contents, const struct replica_content_id *id);

/* Set aside, and not complete again since. */
bool replica_contents_files_was_damaged(struct replica_contents *contents,
                                        const struct replica_content_id *id);
/* The first of those behind after (NULL: of all). Errors: NOTFOUND at the end. */
int replica_contents_files_damaged_next(struct replica_contents *contents,
                                        const struct replica_content_id *after,
                                        struct replica_content_id *ret_id);
/* How many were found missing while opening, because whole directories were. */
uint64_t replica_contents_files_lost(const struct replica_contents *contents);

/* Bytes of contents that were removed, and that the next sync gives back to the disk. */
uint64_t replica_contents_files_releasing(struct replica_contents *contents);

/* A new draft file, opened read-write; *ret_number names it for good. The descriptor is returned to the caller. */
int replica_contents_files_draft_new(struct replica_contents *contents, uint64_t *ret_number, int *ret_fd);
int replica_contents_files_draft_open(struct replica_contents *contents, uint64_t number, int *ret_fd);
int replica_contents_files_draft_remove(struct replica_contents *contents, uint64_t number);
/* Of an earlier life: moves a draft to quarantine/draft-N, for people. Errors: NOTFOUND, IO. */
int replica_contents_files_draft_set_aside(struct replica_contents *contents, uint64_t number);
/* Removes every draft but those named (sorted, n of them), and makes these durable. Numbers given later are greater than *ret_last.
 * Before any draft is made in this life. Errors: IO, NOSPACE. */
int replica_contents_files_draft_keep(struct replica_contents *contents, const uint64_t *named, size_t n,
                                      uint64_t *ret_last);
/* Makes all drafts durable; nobody writes to any. Errors: IO, NOSPACE. */
int replica_contents_files_draft_sync(struct replica_contents *contents);
/* Hashes a draft nobody writes to any more and makes its file the content, without a copy if it becomes a whole file. The draft stays, as
 * another name of the same bytes that draft_open gives read-only, until draft_remove: to be called once the record that names the content
 * in its place is durable. progress and errors as for ingest_fd. */
int replica_contents_files_draft_adopt(struct replica_contents *contents, uint64_t number,
                                       int (*progress)(void *context, uint64_t bytes), void *context,
                                       struct replica_content_id *ret_id);

#endif
