/* Reading what a call was given. Each complaint names the method and the key. */
#include "api/call.h"

#include <string.h>

#define KEYS_MAX 4096 /* of a map; more than any method knows, few enough to walk */

bool api_map_find(const struct replica_pack_reader *map, const char *key,
                  struct replica_pack_reader *ret_reader)
{
    struct replica_pack_reader reader = *map;
    size_t n, key_n = strlen(key);
    if (replica_pack_read_map(&reader, KEYS_MAX, &n) != 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        const char *text = NULL;
        size_t size = 0;
        if (replica_pack_peek(&reader) == REPLICA_PACK_STR)
            replica_pack_read_str(&reader, FRAME_SIZE_MAX, &text, &size);
        else
            replica_pack_skip(&reader);
        if (reader.failed)
            return false;
        if (size == key_n && memcmp(text, key, key_n) == 0) {
            *ret_reader = reader;
            return replica_pack_peek(&reader) != REPLICA_PACK_NIL;
        }
        replica_pack_skip(&reader);
    }
    return false;
}

bool api_find(const struct api_call *call, const char *key, struct replica_pack_reader *ret_reader)
{
    return api_map_find(&call->params, key, ret_reader);
}

static int missing(struct api_call *call, const char *key, const char *what)
{
    api_fail(call, REPLICA_E_INVALID, "%s: `%s` is missing; it is %s", call->method->name, key, what);
    return REPLICA_E_INVALID;
}

static int wrong(struct api_call *call, const char *key, const char *what)
{
    api_fail(call, REPLICA_E_INVALID, "%s: `%s` must be %s", call->method->name, key, what);
    return REPLICA_E_INVALID;
}

int api_get_text(struct api_call *call, const char *key, bool required, const char **ret_text, size_t *ret_n)
{
    struct replica_pack_reader reader;
    const char *text;
    size_t n;
    if (!api_find(call, key, &reader))
        return required ? missing(call, key, "a string") : 0;
    if (replica_pack_read_str(&reader, FRAME_SIZE_MAX, &text, &n) != 0)
        return wrong(call, key, "a string");
    *ret_text = text;
    *ret_n = n;
    return 0;
}

int api_get_name(struct api_call *call, const char *key, bool required, char *ret_text, size_t size)
{
    const char *text = NULL;
    size_t n = 0;
    int code = api_get_text(call, key, required, &text, &n);
    if (code != 0 || text == NULL)
        return code;
    if (n >= size || memchr(text, '\0', n) != NULL) {
        api_fail(call, REPLICA_E_INVALID, "%s: `%s` is longer than %zu bytes, or has a NUL in it",
                 call->method->name, key, size - 1);
        return REPLICA_E_INVALID;
    }
    memcpy(ret_text, text, n);
    ret_text[n] = '\0';
    return 0;
}

int api_get_uint(struct api_call *call, const char *key, bool required, uint64_t max, uint64_t *ret_value)
{
    struct replica_pack_reader reader;
    uint64_t value;
    if (!api_find(call, key, &reader))
        return required ? missing(call, key, "a number") : 0;
    if (replica_pack_read_uint(&reader, max, &value) != 0) {
        api_fail(call, REPLICA_E_INVALID, "%s: `%s` must be a whole number from 0 to %llu",
                 call->method->name, key, (unsigned long long)max);
        return REPLICA_E_INVALID;
    }
    *ret_value = value;
    return 0;
}

int api_get_bool(struct api_call *call, const char *key, bool *ret_value)
{
    struct replica_pack_reader reader;
    bool value;
    if (!api_find(call, key, &reader))
        return 0;
    if (replica_pack_read_bool(&reader, &value) != 0)
        return wrong(call, key, "true or false");
    *ret_value = value;
    return 0;
}

int api_get_data(struct api_call *call, const char *key, const uint8_t **ret_data, size_t *ret_n)
{
    struct replica_pack_reader reader;
    const uint8_t *data;
    size_t n;
    if (!api_find(call, key, &reader))
        return missing(call, key, "binary data");
    if (replica_pack_read_bin(&reader, API_DATA_MAX, &data, &n) != 0)
        return wrong(call, key, "binary data of at most 1 MiB");
    *ret_data = data;
    *ret_n = n;
    return 0;
}

int api_canonical(struct api_call *call, const char *text, size_t n, struct api_path *ret_path)
{
    size_t size;
    int code = replica_path_canonicalize(text, n, ret_path->text, &size);
    if (code == REPLICA_E_TOOBIG) {
        api_fail(call, code, "%.*s%s: a path has at most %d bytes, and each of its components at most %d",
                 n > 80 ? 80 : (int)n, text, n > 80 ? "…" : "", REPLICA_PATH_MAX, REPLICA_NAME_MAX);
        return code;
    }
    if (code != 0) {
        api_fail(call, REPLICA_E_INVALID, "%.*s: a path must not contain \"..\" or a NUL",
                 n > 200 ? 200 : (int)n, text);
        return REPLICA_E_INVALID;
    }
    ret_path->path = (struct replica_path){ret_path->text, size};
    return 0;
}

int api_get_path(struct api_call *call, const char *key, bool required, struct api_path *ret_path)
{
    const char *text = "";
    size_t n = 0;
    int code = api_get_text(call, key, required, &text, &n);
    return code != 0 ? code : api_canonical(call, text, n, ret_path);
}

struct replica_view *api_view(const struct api_call *call, const struct replica_id *id)
{
    return replica_view_find(gossip_peer_views(api_peer(call)), id);
}

int api_need(struct api_call *call, const char *volume, enum node_right right)
{
    if (api_may(call, volume, right))
        return 0;
    api_fail(call, REPLICA_E_DENIED,
             "user %u may not %s volume \"%s\" through this node; its operator can allow it "
             "(`remora node --allow`)",
             (unsigned)call->uid, right == NODE_RIGHT_READ ? "read" : "change", volume);
    return REPLICA_E_DENIED;
}

int api_need_map(struct api_call *call, const struct replica_id *volume)
{
    uint64_t behind = gossip_peer_behind(api_peer(call), volume);
    if (behind == 0)
        return 0;
    api_fail(call, REPLICA_E_UNAVAILABLE,
             "the state of this volume is being rebuilt from the log after a crash or damage: %llu commits "
             "to go; try "
             "again",
             (unsigned long long)behind);
    return REPLICA_E_UNAVAILABLE;
}

/* By the volume's name of now. One that is gone for good has none that a rule could fit. */
static int need_of_view(struct api_call *call, struct replica_view *view, struct replica_view **ret_view)
{
    const struct gossip_volume *volume =
        gossip_control_volume(gossip_peer_control(api_peer(call)), &replica_view_info(view)->options.volume);
    int code = api_need(call, volume == NULL ? "" : volume->name, call->method->needs);
    if (code == 0)
        code = api_need_map(call, &replica_view_info(view)->options.volume);
    if (code == 0)
        *ret_view = view;
    return code;
}

int api_get_view(struct api_call *call, struct replica_view **ret_view)
{
    struct replica_pack_reader reader;
    struct replica_view *view;
    struct replica_id id;
    if (!api_find(call, "view", &reader))
        return missing(call, "view", "what view.open returned");
    if (replica_pack_read_id(&reader, &id) != 0)
        return wrong(call, "view", "what view.open returned, 16 bytes of binary data");
    view = api_view(call, &id);
    if (view == NULL || !api_may_use_view(call, view)) {
        api_fail(call, REPLICA_E_NOTFOUND,
                 "%s: there is no such view; it was closed, or belongs to another connection",
                 call->method->name);
        return REPLICA_E_NOTFOUND;
    }
    return need_of_view(call, view, ret_view);
}

static void looked_up(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    (void)context;
    if (code != 0 && code != REPLICA_E_NOTFOUND && code != REPLICA_E_DENIED && code != REPLICA_E_INVALID)
        api_fail_answer(call, "the cluster's log could not be asked for the volume",
                        code == REPLICA_E_INDETERMINATE ? REPLICA_E_UNAVAILABLE : code,
                        code == REPLICA_E_INDETERMINATE ? NULL : result,
                        code == REPLICA_E_INDETERMINATE ? 0 : n);
    else
        call->method->run(call);
}

static void look_up(struct api_call *call, const char name[GOSSIP_VOLUME_NAME_MAX + 1])
{
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_CONTROL,
                                          .control = {.kind = GOSSIP_CONTROL_LOOKUP}};
    call->looked_up = true;
    memcpy(call->lookup_name, name, sizeof call->lookup_name);
    request.control.name = call->lookup_name;
    api_request(call, &request, looked_up, NULL);
}

int api_get_volume(struct api_call *call, const char *key, const struct gossip_volume **ret_volume)
{
    char name[GOSSIP_VOLUME_NAME_MAX + 1];
    const struct gossip_volume *volume;
    int code = api_get_name(call, key, true, name, sizeof name);
    if (code == 0)
        code = api_need(call, name, call->method->needs);
    if (code != 0)
        return code;
    volume = gossip_control_volume_by_name(gossip_peer_control(api_peer(call)), name);
    if (volume == NULL) {
        const char *waiting = gossip_control_waiting(gossip_peer_control(api_peer(call)));
        if (waiting[0] != '\0')
            api_fail(call, REPLICA_E_UNAVAILABLE, "the node is not part of a cluster yet: %s", waiting);
        else if (!call->looked_up)
            look_up(call, name);
        else
            api_fail(call, REPLICA_E_NOTFOUND,
                     "there is no volume \"%s\"; `remora volume create %s` makes it", name, name);
        return REPLICA_E_NOTFOUND;
    }
    *ret_volume = volume;
    return 0;
}
