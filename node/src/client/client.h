/* The inside of the C client, shared by the client*.c files. One thread at a time; no globals.
 *
 * Layers: client.c (the connection and its errors) → client_call.c (one call: bytes, frames, descriptors,
 * waiting) → client_view.c, client_file.c (each verb as a call), with client_entry.c for entries both ways.
 */
#ifndef CLIENT_CLIENT_H
#define CLIENT_CLIENT_H

#include "client/frame.h"
#include "remora/remora.h"
#include "replica/buffer.h"
#include "replica/error.h"
#include "replica/pack.h"

#define CLIENT_FDS_MAX 64 /* of one message, as the API says */
/* Received and not given out: one recvmsg's worth (253), whatever they belong to. */
#define CLIENT_FDS_WAITING 256
#define CLIENT_DATA_MAX    (1u << 20) /* bytes that travel in a message */
#define CLIENT_LIST_MAX    1000       /* entries of one listing, as the API says */
#define CLIENT_TIMEOUT_MS  30000      /* without progress, unless told otherwise */
/* The node gives up by itself after the same time, and can say more about why: it is let go first, by a tenth of
 * that time within these bounds. */
#define CLIENT_GRACE_MS_MIN 500
#define CLIENT_GRACE_MS_MAX 5000

struct remora {
    int fd; /* -1: lost, every call fails */
    char *path;
    uint64_t msgid;
    uint32_t timeout_ms; /* 0: wait for ever */
    uint32_t grace_ms;
    int (*progress)(void *context, uint64_t bytes, uint64_t total);
    void *context;
    struct replica_buffer input;
    struct frame frame;
    int fds[CLIENT_FDS_WAITING];
    size_t fds_n;
    char *error;
    char symbol[32];
    bool unanswered; /* the last call left, and no answer to it came */
};

/* client.c: keeps the sentence, returns code. */
int client_fail(struct remora *remora, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int client_fail_symbol(struct remora *remora, const char *symbol, const char *text, size_t n);
void client_lose(struct remora *remora); /* the stream is of no use any more */

/* A call whose params is `params` (taken: closed), without descriptors in the answer. ret_result: initialised
 * here, the caller's to close; reader at its map. */
struct client_result {
    void *bytes;
    size_t n;
};
int client_simple(struct remora *remora, const char *method, struct replica_buffer *params,
                  struct client_result *ret_result);
void client_result_close(struct client_result *result);
/* The value of key in a result, or NULL item: false. */
bool client_find(const struct client_result *result, const char *key, struct replica_pack_reader *ret_reader);
bool client_map_find(const struct replica_pack_reader *map, const char *key,
                     struct replica_pack_reader *ret_reader);
int client_malformed(struct remora *remora, const char *method); /* the answer is not what docs/api.md says */
/* An array of strings into *ret (each malloc'ed). Errors: NOMEM, MALFORMED (nothing is returned). */
int client_read_strings(struct replica_pack_reader *reader, char ***ret_items, size_t *ret_n);
void client_free_strings(char ***items, size_t *n);

void client_pack_key(struct replica_buffer *out, const char *key);
/* A map of 1 + more keys, begun with "view". */
void client_pack_view(struct replica_buffer *out, const struct remora_view *view, size_t more);
void client_pack_path(struct replica_buffer *out, const char *key, const char *path);

/* client_entry.c: one item each. fd_index: what the entry's descriptor is called in the message. */
void client_pack_entry(struct replica_buffer *out, const struct remora_entry *entry, size_t fd_index);
/* Leaves ret_entry freed on failure. Errors: MALFORMED, NOMEM. */
int client_read_entry(struct replica_pack_reader *reader, struct remora_entry *ret_entry);

#endif
