/* What the verbs share: asking without descriptors, and taking results and params apart and together. */
#include "client/client.h"

#include <stdlib.h>
#include <string.h>

#define KEYS_MAX 4096 /* of a map that is walked */

int client_simple(struct remora *remora, const char *method, struct replica_buffer *params,
                  struct client_result *ret_result)
{
    int code;
    *ret_result = (struct client_result){NULL, 0};
    if (params->failed)
        code = client_fail(remora, REPLICA_E_NOMEM, "out of memory");
    else
        code = remora_call(remora, method, params->data, params->size, NULL, 0, &ret_result->bytes,
                           &ret_result->n, NULL, NULL);
    replica_buffer_close(params);
    return code;
}

void client_result_close(struct client_result *result)
{
    free(result->bytes);
    *result = (struct client_result){NULL, 0};
}

bool client_map_find(const struct replica_pack_reader *map, const char *key,
                     struct replica_pack_reader *ret_reader)
{
    struct replica_pack_reader reader = *map;
    size_t n, key_n = strlen(key);
    if (replica_pack_peek(&reader) != REPLICA_PACK_MAP || replica_pack_read_map(&reader, KEYS_MAX, &n) != 0)
        return false;
    for (size_t i = 0; i < n && !reader.failed; i++) {
        const char *text = NULL;
        size_t size = 0;
        if (replica_pack_peek(&reader) == REPLICA_PACK_STR)
            replica_pack_read_str(&reader, FRAME_SIZE_MAX, &text, &size);
        else
            replica_pack_skip(&reader);
        if (!reader.failed && text != NULL && size == key_n && memcmp(text, key, key_n) == 0) {
            *ret_reader = reader;
            return replica_pack_peek(&reader) != REPLICA_PACK_NIL;
        }
        replica_pack_skip(&reader);
    }
    return false;
}

bool client_find(const struct client_result *result, const char *key, struct replica_pack_reader *ret_reader)
{
    struct replica_pack_reader map;
    replica_pack_reader_init(&map, result->bytes, result->n);
    return client_map_find(&map, key, ret_reader);
}

int client_malformed(struct remora *remora, const char *method)
{
    return client_fail(remora, REPLICA_E_MALFORMED,
                       "%s: the node at %s answered something else than its documentation says", method,
                       remora->path);
}

void client_free_strings(char ***items, size_t *n)
{
    for (size_t i = 0; i < *n; i++)
        free((*items)[i]);
    free(*items);
    *items = NULL;
    *n = 0;
}

int client_read_strings(struct replica_pack_reader *reader, char ***ret_items, size_t *ret_n)
{
    size_t n, done = 0;
    char **items;
    int code = replica_pack_read_array(reader, FRAME_SIZE_MAX, &n);
    if (code != 0 || n > reader->size - reader->offset) /* each takes a byte at least */
        return REPLICA_E_MALFORMED;
    items = calloc(n > 0 ? n : 1, sizeof *items);
    if (items == NULL)
        return REPLICA_E_NOMEM;
    for (; done < n && code == 0; done++) {
        const char *text;
        size_t size;
        code = replica_pack_read_str(reader, FRAME_SIZE_MAX, &text, &size);
        if (code == 0 && (items[done] = strndup(text, size)) == NULL)
            code = REPLICA_E_NOMEM;
    }
    if (code != 0) {
        client_free_strings(&items, &done);
        return code;
    }
    *ret_items = items;
    *ret_n = n;
    return 0;
}

void client_pack_key(struct replica_buffer *out, const char *key)
{
    replica_pack_cstr(out, key);
}

void client_pack_view(struct replica_buffer *out, const struct remora_view *view, size_t more)
{
    bool at = view->at[0] != '\0';
    replica_pack_map(out, 1 + at + more);
    client_pack_key(out, "view");
    replica_pack_bin(out, view->id, sizeof view->id);
    if (at)
        client_pack_path(out, "at", view->at);
}

void client_pack_path(struct replica_buffer *out, const char *key, const char *path)
{
    client_pack_key(out, key);
    replica_pack_cstr(out, path);
}
