/* contents: immutable bytes by content id, in verified pieces.
 *
 * A content is a Merkle tree seen at three heights (replica/merkle.h): 64 KiB leaves, 1 MiB chunks, 1 GiB pages. What
 * can be written, read and transferred is a *piece*:
 *   ROOT  0      the page ids of a content larger than one page: 32 B each, at most 1024 (1 TiB)
 *   PAGE  i      the chunk ids of page i: 32 B each, at most 1024. Absent for a content of one chunk
 *   CHUNK i      the bytes of chunk i: 1 MiB, the last one shorter
 * write verifies a piece against the content id through the pieces above it, so nothing unverified is ever stored.
 * A chunk whose id is that of zeros is a hole: present as soon as its PAGE is, never stored.
 *
 * States: ABSENT → PARTIAL (begun) → FILLED (every piece present) → COMPLETE (bytes and their directory entries synced).
 * Only COMPLETE may be announced as held or counted by a voter. A complete content is never written again.
 *
 * Thread rule: every function may be called from any thread; the back end locks. */
#ifndef REPLICA_CONTENTS_H
#define REPLICA_CONTENTS_H

#include "replica/buffer.h"
#include "replica/ids.h"

/* An op list at its largest; more is streamed from a file. */
#define REPLICA_CONTENTS_INGEST_MAX ((size_t)64 << 20)

enum replica_piece_kind { REPLICA_PIECE_ROOT, REPLICA_PIECE_PAGE, REPLICA_PIECE_CHUNK };

struct replica_piece {
    enum replica_piece_kind kind;
    uint32_t index;
};

enum replica_contents_state {
    REPLICA_CONTENTS_ABSENT,
    REPLICA_CONTENTS_PARTIAL,
    REPLICA_CONTENTS_FILLED,
    REPLICA_CONTENTS_COMPLETE,
};

struct replica_contents_totals {
    uint64_t count; /* contents that are not absent */
    uint64_t bytes; /* that they take or may come to take: holes are not counted once they are known */
};

struct replica_contents;

struct replica_contents_ops {
    enum replica_contents_state (*state)(struct replica_contents *contents,
                                         const struct replica_content_id *id);
    int (*begin)(struct replica_contents *contents, const struct replica_content_id *id);
    int (*write)(struct replica_contents *contents, const struct replica_content_id *id,
                 struct replica_piece piece, const void *data, size_t n);
    int (*ingest)(struct replica_contents *contents, const void *data, size_t n,
                  struct replica_content_id *ret_id);
    int (*sync)(struct replica_contents *contents);
    bool (*has)(struct replica_contents *contents, const struct replica_content_id *id,
                struct replica_piece piece);
    int (*read_piece)(struct replica_contents *contents, const struct replica_content_id *id,
                      struct replica_piece piece, struct replica_buffer *ret_data);
    int (*read)(struct replica_contents *contents, const struct replica_content_id *id, uint64_t offset,
                void *data, size_t n, size_t *ret_n);
    int (*remove)(struct replica_contents *contents, const struct replica_content_id *id);
    int (*next)(struct replica_contents *contents, const struct replica_content_id *after,
                struct replica_content_id *ret_id, enum replica_contents_state *ret_state);
    void (*totals)(struct replica_contents *contents, struct replica_contents_totals *ret_totals);
    void (*destroy)(struct replica_contents *contents);
};

struct replica_contents {
    const struct replica_contents_ops *ops;
};

enum replica_contents_state replica_contents_state(struct replica_contents *contents,
                                                   const struct replica_content_id *id);

/* Makes a partial content to be written piece by piece; no effect if it is not absent. Errors: NOSPACE (free-space
 * floor or capacity), TOOBIG (over 1 TiB), IO, NOMEM. */
int replica_contents_begin(struct replica_contents *contents, const struct replica_content_id *id);

/* Verifies and stores one piece (data borrowed; n must be the piece's exact size). A piece that is present is left
 * alone. When the last one arrives the content is FILLED.
 * Errors: MISMATCH (wrong bytes; nothing stored), ABSENT (not begun, or a piece above it is missing), INVALID (no such
 * piece), NOSPACE, IO. */
int replica_contents_write(struct replica_contents *contents, const struct replica_content_id *id,
                           struct replica_piece piece, const void *data, size_t n);

/* Hashes and stores n bytes that are all in memory; FILLED afterwards, or as it was if known.
 * Errors: TOOBIG (over REPLICA_CONTENTS_INGEST_MAX), NOSPACE, IO, NOMEM. */
int replica_contents_ingest(struct replica_contents *contents, const void *data, size_t n,
                            struct replica_content_id *ret_id);

/* Makes COMPLETE everything that was FILLED when the call began: bytes, then directory entries, then the index record
 * (which is durable with the next sync of the log kv). Errors: IO, NOSPACE: then nothing changed state, and the
 * caller must stop voting; every later sync fails with the same code, until the contents are opened again. */
int replica_contents_sync(struct replica_contents *contents);

/* Whether that piece is present and verified (in any state but ABSENT). */
bool replica_contents_has(struct replica_contents *contents, const struct replica_content_id *id,
                          struct replica_piece piece);

/* One whole piece into ret_data (cleared first). Errors: ABSENT, INVALID, IO, CORRUPT (as of read). */
int replica_contents_read_piece(struct replica_contents *contents, const struct replica_content_id *id,
                                struct replica_piece piece, struct replica_buffer *ret_data);

/* Up to n bytes from offset, verified; *ret_n < n only at the end. Errors: ABSENT (a chunk of the range is missing), CORRUPT (the bytes
 * are not what they were: they are let go of, and the content is ABSENT if it was complete), IO. */
int replica_contents_read(struct replica_contents *contents, const struct replica_content_id *id,
                          uint64_t offset, void *data, size_t n, size_t *ret_n);

/* Forgets a content; its bytes are freed by the next sync, once that is durable. The caller has checked that nothing refers to it. Open
 * descriptors keep reading. Errors: ABSENT, BUSY (FILLED: a sync is to come; or a piece of it is being written), IO. */
int replica_contents_remove(struct replica_contents *contents, const struct replica_content_id *id);

/* The first content whose id is greater than after (NULL: the first of all) among those that are COMPLETE or PARTIAL. Whether a PARTIAL
 * one is being fetched is the caller's to know. Errors: NOTFOUND at the end. */
int replica_contents_next(struct replica_contents *contents, const struct replica_content_id *after,
                          struct replica_content_id *ret_id, enum replica_contents_state *ret_state);

void replica_contents_totals(struct replica_contents *contents, struct replica_contents_totals *ret_totals);
void replica_contents_destroy(struct replica_contents **contents);

#endif
