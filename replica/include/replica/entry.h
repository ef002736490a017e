/* An entry: what a volume knows of one path (or of one link object) besides its history. */
#ifndef REPLICA_ENTRY_H
#define REPLICA_ENTRY_H

#include "replica/pack.h"

#define REPLICA_INLINE_MAX     256  /* bytes small enough to live in the entry */
#define REPLICA_SYMLINK_MAX    4096 /* as Linux */
#define REPLICA_XATTR_NAME_MAX 255  /* as Linux */
/* Bounded so that an entry stays a small record; Linux allows 64 KiB. */
#define REPLICA_XATTR_VALUE_MAX (16 * 1024)
#define REPLICA_XATTRS_MAX      64
#define REPLICA_XATTRS_SIZE_MAX (24 * 1024) /* all names and values of an entry */
#define REPLICA_ENTRY_SIZE_MAX  (40 * 1024) /* an encoded entry: xattrs, link target, rest */

enum replica_kind {
    REPLICA_KIND_FILE = 1,
    REPLICA_KIND_DIRECTORY = 2,
    REPLICA_KIND_SYMLINK = 3,
    REPLICA_KIND_FIFO = 4,
    REPLICA_KIND_SOCKET = 5,
    REPLICA_KIND_CHARACTER_DEVICE = 6,
    REPLICA_KIND_BLOCK_DEVICE = 7,
    REPLICA_KIND_LINK =
        8, /* a name of a link object: only `object` counts, all else is in the object's entry */
};

/* How anything names bytes: inline, by content id, or (in a view only) by the number of a draft file. */
enum replica_blob_kind { REPLICA_BLOB_INLINE = 0, REPLICA_BLOB_CONTENT = 1, REPLICA_BLOB_DRAFT = 2 };

struct replica_blob {
    enum replica_blob_kind kind;
    const uint8_t *data; /* INLINE: borrowed bytes */
    size_t size;         /* INLINE: ≤ REPLICA_INLINE_MAX */
    struct replica_content_id content;
    uint64_t draft; /* DRAFT: its number; never leaves the node */
};

struct replica_entry {
    enum replica_kind kind;
    uint32_t mode; /* permission bits, set-id and sticky: 0–07777 */
    uint32_t uid, gid;
    int64_t mtime_ns;         /* since 1970 */
    uint64_t size;            /* of a file, in bytes; agrees with blob */
    struct replica_blob blob; /* of a file */
    const char *target;       /* of a symbolic link; borrowed */
    size_t target_size;       /* 1–4096 */
    uint32_t major, minor;    /* of a device */
    struct replica_id object; /* of a LINK */
    const uint8_t
        *xattrs; /* encoded, borrowed: a MessagePack array of name, value, name, value …; NULL: none */
    size_t xattrs_size;
};

/* Appends the encoding (docs/storage-format.md). entry must be valid (replica_entry_check). */
void replica_entry_pack(struct replica_buffer *out, const struct replica_entry *entry);

/* Reads and checks one entry; its pointers are borrowed from the reader's bytes. Errors: MALFORMED. */
int replica_entry_read(struct replica_pack_reader *reader, struct replica_entry *ret_entry);

/* Whether an entry that came from an app is well formed. Errors: INVALID, TOOBIG. */
int replica_entry_check(const struct replica_entry *entry);

/* Visits the xattrs; stops at the first non-zero result and returns it. Errors: MALFORMED. */
int replica_entry_each_xattr(const struct replica_entry *entry,
                             int (*visit)(void *context, const char *name, size_t name_n,
                                          const uint8_t *value, size_t n),
                             void *context);

/* Byte for byte the same meaning. */
bool replica_entry_equal(const struct replica_entry *a, const struct replica_entry *b);

#endif
