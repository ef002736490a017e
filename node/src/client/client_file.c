/* Files, as calls. */
#include "client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int call_only(struct remora *remora, const char *method, struct replica_buffer *params)
{
    struct client_result result;
    int code = client_simple(remora, method, params, &result);
    client_result_close(&result);
    return code;
}

/* {view, path} and more keys to come */
static void begin_path(struct replica_buffer *params, const struct remora_view *view, const char *path,
                       size_t more)
{
    replica_buffer_init(params);
    client_pack_view(params, view, 1 + more);
    client_pack_path(params, "path", path);
}

static void begin_two(struct replica_buffer *params, const struct remora_view *view, const char *from,
                      const char *to, size_t more)
{
    replica_buffer_init(params);
    client_pack_view(params, view, 2 + more);
    client_pack_path(params, "from", from);
    client_pack_path(params, "to", to);
}

static void pack_flag(struct replica_buffer *params, const char *key, bool value)
{
    client_pack_key(params, key);
    replica_pack_bool(params, value);
}

static void pack_number(struct replica_buffer *params, const char *key, uint64_t value)
{
    client_pack_key(params, key);
    replica_pack_uint(params, value);
}

/* Looking */

int remora_stat(struct remora *remora, const struct remora_view *view, const char *path,
                struct remora_entry *ret_entry)
{
    struct replica_pack_reader reader;
    struct replica_buffer params;
    struct client_result result;
    int code;
    begin_path(&params, view, path, 0);
    code = client_simple(remora, "fs.stat", &params, &result);
    if (code == 0) {
        replica_pack_reader_init(&reader, result.bytes, result.n);
        if (client_read_entry(&reader, ret_entry) != 0)
            code = client_malformed(remora, "fs.stat");
    }
    client_result_close(&result);
    return code;
}

static void free_entries(struct remora_entry *entries, size_t n)
{
    for (size_t i = 0; i < n; i++)
        remora_entry_free(&entries[i]);
    free(entries);
}

static int read_entries(const struct client_result *result, struct remora_entry **ret_entries, size_t *ret_n,
                        bool *ret_more)
{
    struct replica_pack_reader reader, more;
    struct remora_entry *entries;
    size_t n, done = 0;
    int code = 0;
    if (!client_find(result, "entries", &reader) ||
        replica_pack_read_array(&reader, CLIENT_LIST_MAX, &n) != 0)
        return REPLICA_E_MALFORMED;
    if (!client_find(result, "more", &more) || replica_pack_read_bool(&more, ret_more) != 0)
        return REPLICA_E_MALFORMED;
    entries = calloc(n > 0 ? n : 1, sizeof *entries);
    if (entries == NULL)
        return REPLICA_E_NOMEM;
    while (done < n && code == 0) {
        code = client_read_entry(&reader, &entries[done]);
        done += code == 0;
    }
    if (code != 0) {
        free_entries(entries, done);
        return code;
    }
    *ret_entries = entries;
    *ret_n = n;
    return 0;
}

int remora_list(struct remora *remora, const struct remora_view *view, const char *path, const char *after,
                size_t limit, struct remora_entry **ret_entries, size_t *ret_n, bool *ret_more)
{
    struct replica_buffer params;
    struct client_result result;
    int code;
    begin_path(&params, view, path, after != NULL ? 2 : 1);
    pack_number(&params, "limit", limit == 0 || limit > CLIENT_LIST_MAX ? CLIENT_LIST_MAX : limit);
    if (after != NULL)
        client_pack_path(&params, "after", after);
    code = client_simple(remora, "fs.list", &params, &result);
    if (code == 0 && read_entries(&result, ret_entries, ret_n, ret_more) != 0)
        code = client_malformed(remora, "fs.list");
    client_result_close(&result);
    return code;
}

/* Changing names */

int remora_put(struct remora *remora, const struct remora_view *view, const struct remora_entry *entries,
               size_t n, bool parents)
{
    struct replica_buffer params;
    int fds[CLIENT_FDS_MAX], code = 0;
    size_t fds_n = 0;
    replica_buffer_init(&params);
    client_pack_view(&params, view, 2);
    pack_flag(&params, "parents", parents);
    client_pack_key(&params, "entries");
    replica_pack_array(&params, n);
    for (size_t i = 0; i < n && code == 0; i++) {
        const struct remora_entry *entry = &entries[i];
        bool passes = entry->kind == REMORA_FILE && entry->data == NULL && entry->fd >= 0 && entry->size > 0;
        if (passes && fds_n == CLIENT_FDS_MAX)
            code = client_fail(remora, REPLICA_E_TOOBIG,
                               "fs.put: %s: at most %d descriptors can be passed at once", entry->path,
                               CLIENT_FDS_MAX);
        else if (entry->data != NULL && entry->size > CLIENT_DATA_MAX)
            code =
                client_fail(remora, REPLICA_E_TOOBIG,
                            "fs.put: %s: at most 1 MiB can be put as data; pass a descriptor", entry->path);
        else
            client_pack_entry(&params, entry, fds_n);
        if (code == 0 && passes)
            fds[fds_n++] = entry->fd;
    }
    if (code == 0 && params.failed)
        code = client_fail(remora, REPLICA_E_NOMEM, "out of memory");
    if (code == 0)
        code = remora_call(remora, "fs.put", params.data, params.size, fds, fds_n, NULL, NULL, NULL, NULL);
    replica_buffer_close(&params);
    return code;
}

int remora_mkdir(struct remora *remora, const struct remora_view *view, const char *path, uint32_t mode,
                 bool parents)
{
    struct replica_buffer params;
    begin_path(&params, view, path, 2);
    pack_number(&params, "mode", mode);
    pack_flag(&params, "parents", parents);
    return call_only(remora, "fs.mkdir", &params);
}

int remora_remove(struct remora *remora, const struct remora_view *view, const char *path, bool recursive)
{
    struct replica_buffer params;
    begin_path(&params, view, path, 1);
    pack_flag(&params, "recursive", recursive);
    return call_only(remora, "fs.remove", &params);
}

int remora_rename(struct remora *remora, const struct remora_view *view, const char *from, const char *to)
{
    struct replica_buffer params;
    begin_two(&params, view, from, to, 0);
    return call_only(remora, "fs.rename", &params);
}

int remora_link(struct remora *remora, const struct remora_view *view, const char *from, const char *to)
{
    struct replica_buffer params;
    begin_two(&params, view, from, to, 0);
    return call_only(remora, "fs.link", &params);
}

int remora_copy(struct remora *remora, const struct remora_view *view, const char *from, const char *to,
                bool recursive)
{
    struct replica_buffer params;
    begin_two(&params, view, from, to, 1);
    pack_flag(&params, "recursive", recursive);
    return call_only(remora, "fs.copy", &params);
}

/* Bytes */

static int read_piece(struct remora *remora, const struct remora_view *view, const char *path,
                      uint64_t offset, void *data, size_t n, size_t *ret_n)
{
    struct replica_pack_reader value;
    struct replica_buffer params;
    struct client_result result;
    const uint8_t *bytes;
    int code;
    begin_path(&params, view, path, 2);
    pack_number(&params, "offset", offset);
    pack_number(&params, "length", n);
    code = client_simple(remora, "fs.read", &params, &result);
    if (code == 0 &&
        (!client_find(&result, "data", &value) || replica_pack_read_bin(&value, n, &bytes, ret_n) != 0))
        code = client_malformed(remora, "fs.read");
    if (code == 0 && *ret_n > 0)
        memcpy(data, bytes, *ret_n);
    client_result_close(&result);
    return code;
}

int remora_read(struct remora *remora, const struct remora_view *view, const char *path, uint64_t offset,
                void *data, size_t n, size_t *ret_n)
{
    size_t done = 0, got;
    do {
        size_t wanted = n - done < CLIENT_DATA_MAX ? n - done : CLIENT_DATA_MAX;
        int code = read_piece(remora, view, path, offset + done, (uint8_t *)data + done, wanted, &got);
        if (code != 0)
            return code;
        done += got;
    } while (done < n && got > 0);
    *ret_n = done;
    return 0;
}

int remora_write(struct remora *remora, const struct remora_view *view, const char *path, uint64_t offset,
                 const void *data, size_t n, bool create)
{
    size_t done = 0;
    do {
        struct replica_buffer params;
        size_t piece = n - done < CLIENT_DATA_MAX ? n - done : CLIENT_DATA_MAX;
        int code;
        begin_path(&params, view, path, 3);
        pack_number(&params, "offset", offset + done);
        client_pack_key(&params, "data");
        replica_pack_bin(&params, piece > 0 ? (const uint8_t *)data + done : (const uint8_t *)"", piece);
        pack_flag(&params, "create", create);
        code = call_only(remora, "fs.write", &params);
        if (code != 0)
            return code;
        done += piece;
    } while (done < n);
    return 0;
}

/* Through /proc, because a sealed descriptor that could still be written to by its mode cannot be mapped
 * shared on older kernels. */
static int anonymous(struct remora *remora, const uint8_t *data, size_t n, int *ret_fd)
{
    char name[64];
    int fd = memfd_create("remora", MFD_CLOEXEC | MFD_ALLOW_SEALING), read_only;
    size_t done = 0;
    if (fd < 0)
        return client_fail(remora, REPLICA_E_IO, "fs.open: cannot make an anonymous file: %s",
                           strerror(errno));
    while (done < n) {
        ssize_t wrote = write(fd, data + done, n - done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0) {
            int error = errno;
            close(fd);
            return client_fail(remora, REPLICA_E_IO, "fs.open: cannot write an anonymous file: %s",
                               strerror(error));
        }
        done += (size_t)wrote;
    }
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    read_only = open(name, O_RDONLY | O_CLOEXEC);
    if (read_only < 0) { /* no /proc here: then at the beginning, like a file just opened */
        (void)lseek(fd, 0, SEEK_SET);
        (void)fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK);
        *ret_fd = fd;
        return 0;
    }
    close(fd);
    *ret_fd = read_only;
    return 0;
}

int remora_open(struct remora *remora, const struct remora_view *view, const char *path, int *ret_fd,
                uint64_t *ret_size)
{
    struct client_result result = {NULL, 0};
    struct replica_pack_reader value;
    struct replica_buffer params;
    const uint8_t *data;
    size_t n, fds_n = 1;
    uint64_t size = 0;
    int fd, code;
    begin_path(&params, view, path, 0);
    code = params.failed ? client_fail(remora, REPLICA_E_NOMEM, "out of memory")
                         : remora_call(remora, "fs.open", params.data, params.size, NULL, 0, &result.bytes,
                                       &result.n, &fd, &fds_n);
    replica_buffer_close(&params);
    if (code != 0)
        return code;
    if (client_find(&result, "size", &value))
        replica_pack_read_uint(&value, UINT64_MAX, &size);
    if (fds_n == 0) {
        if (client_find(&result, "data", &value) &&
            replica_pack_read_bin(&value, FRAME_SIZE_MAX, &data, &n) == 0)
            code = anonymous(remora, data, n, &fd);
        else
            code = client_malformed(remora, "fs.open");
    }
    client_result_close(&result);
    if (code != 0)
        return code;
    *ret_fd = fd;
    *ret_size = size;
    return 0;
}

int remora_verify(struct remora *remora, const struct remora_view *view, const char *path, bool *ret_damaged)
{
    struct replica_pack_reader value;
    struct replica_buffer params;
    struct client_result result;
    bool damaged = false;
    int code;
    begin_path(&params, view, path, 0);
    code = client_simple(remora, "fs.verify", &params, &result);
    if (code == 0 &&
        (!client_find(&result, "damaged", &value) || replica_pack_read_bool(&value, &damaged) != 0))
        code = client_malformed(remora, "fs.verify");
    if (code == 0 && ret_damaged != NULL)
        *ret_damaged = damaged;
    client_result_close(&result);
    return code;
}
