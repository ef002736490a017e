/* Error codes of the replica library.
 *
 * Every function that can fail returns 0 or one of these negative codes. The table is the single source of
 * the numbers and their texts; gossip uses the same codes, and the local API puts the symbol on the wire. */
#ifndef REPLICA_ERROR_H
#define REPLICA_ERROR_H

/* X(symbol, value, text) */
#define REPLICA_ERROR_TABLE(X)                                                                               \
    X(NOMEM, -1, "out of memory")                                                                            \
    X(IO, -2, "input/output error")                                                                          \
    X(CORRUPT, -3, "stored data is damaged")                                                                 \
    X(MALFORMED, -4, "malformed message or record")                                                          \
    X(NOTFOUND, -5, "no such file or directory")                                                             \
    X(EXISTS, -6, "already exists")                                                                          \
    X(NOSPACE, -7, "no space left, or over a limit")                                                         \
    X(TOOBIG, -8, "too large")                                                                               \
    X(MISMATCH, -9, "bytes do not match their content id")                                                   \
    X(ABSENT, -10, "content is not complete here")                                                           \
    X(INVALID, -11, "invalid argument")                                                                      \
    X(NOTDIR, -12, "not a directory")                                                                        \
    X(ISDIR, -13, "is a directory")                                                                          \
    X(NOTEMPTY, -14, "directory not empty")                                                                  \
    X(READONLY, -15, "read-only")                                                                            \
    X(UNAVAILABLE, -16, "no majority of voters answered in time; nothing happened")                          \
    X(INDETERMINATE, -17, "the outcome is not known yet; the node keeps trying")                             \
    X(REFUSED, -18, "refused")                                                                               \
    X(BUSY, -19, "busy")                                                                                     \
    X(STALE, -20, "a newer epoch, phase or snapshot exists")                                                 \
    X(EXPIRED, -21, "older than the tombstone floor")                                                        \
    X(DENIED, -22, "not authorised")                                                                         \
    X(VERSION, -23, "written by a newer version")                                                            \
    X(DELETED, -24, "the volume was deleted")                                                                \
    X(PERM, -25, "operation not permitted on this kind of volume")                                           \
    X(AGAIN, -26, "not finished; call again")                                                                \
    X(CANCELLED, -27, "cancelled")

enum replica_error {
    REPLICA_OK = 0,
#define X(symbol, value, text) REPLICA_E_##symbol = (value),
    REPLICA_ERROR_TABLE(X)
#undef X
};

/* The text of a code; "unknown error" for anything else. Static storage. */
const char *replica_error_text(int code);

/* The symbol ("NOSPACE") of a code, as it stands on the local API; "UNKNOWN" for anything else. */
const char *replica_error_symbol(int code);

#endif
