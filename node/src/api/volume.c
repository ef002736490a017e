/* The registry of volumes. Changes go through the control log; a caller that was answered finds them in this node's copy. */
#include "api/methods.h"

#include <stdlib.h>
#include <string.h>

struct naming {
    char name[GOSSIP_VOLUME_NAME_MAX + 2],
        new_name[GOSSIP_VOLUME_NAME_MAX + 2]; /* one longer than legal, to be refused by its text */
    struct replica_id id;                     /* of DELETE: the name is gone afterwards */
};

static const struct gossip_control *control_of(const struct api_call *call)
{
    return gossip_peer_control(api_peer(call));
}

/* As docs/api.md: a map of `fields` keys, of which VOLUME_FIELDS are packed here. */
#define VOLUME_FIELDS 8
static void pack_volume(struct replica_buffer *out, const struct gossip_member *member,
                        const struct gossip_volume *volume, size_t fields)
{
    replica_pack_map(out, fields);
    api_pack_key(out, "name");
    replica_pack_cstr(out, volume->name);
    api_pack_key(out, "id");
    replica_pack_id(out, &volume->id);
    api_pack_key(out, "version");
    replica_pack_uint(out, volume->version);
    api_pack_key(out, "created_ms");
    replica_pack_uint(out, volume->created_ms);
    api_pack_key(out, "creator");
    api_pack_store_name(out, member, &volume->creator);
    api_pack_key(out, "voters");
    replica_pack_array(out, volume->configuration.voters_n);
    for (size_t i = 0; i < volume->configuration.voters_n; i++)
        api_pack_store_name(out, member, &volume->configuration.voters[i]);
    api_pack_key(out, "voters_wanted");
    replica_pack_uint(out, volume->voters_wanted);
    api_pack_key(out, "deleted");
    replica_pack_bool(out, volume->deleted);
}

static void reply_volume(struct api_call *call, const struct gossip_volume *volume)
{
    struct replica_buffer reply;
    api_reply_begin(call, &reply);
    if (volume == NULL)
        replica_pack_nil(&reply);
    else
        pack_volume(&reply, gossip_peer_member(api_peer(call)), volume, VOLUME_FIELDS);
    api_reply(call, &reply);
}

static void on_changed(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    const struct naming *naming = call->state;
    const char *name = naming->new_name[0] != '\0' ? naming->new_name : naming->name;
    (void)context;
    if (code == REPLICA_E_EXISTS)
        api_fail(call, code, "a volume \"%s\" exists already", name);
    else if (code == REPLICA_E_NOTFOUND)
        api_fail(call, code, "there is no volume \"%s\"", naming->name);
    else if (code == REPLICA_E_INVALID)
        api_fail(call, code,
                 "\"%s\" cannot be the name of a volume: 1 to %d letters, digits, \"-\", \"_\" and \".\"",
                 name, GOSSIP_VOLUME_NAME_MAX);
    else if (code == REPLICA_E_DENIED)
        api_fail(call, code, "this node's credential may not create, rename or delete the volume \"%s\"",
                 name);
    else if (code != 0)
        api_fail_answer(call, name, code, result, n);
    else if (replica_id_is_zero(&naming->id))
        reply_volume(call, gossip_control_volume_by_name(control_of(call), name));
    else
        reply_volume(call, gossip_control_volume(control_of(call), &naming->id));
}

/* NULL: answered. */
static struct naming *new_naming(struct api_call *call)
{
    struct naming *naming = calloc(1, sizeof *naming);
    call->state = naming;
    call->free_state = free;
    if (naming == NULL)
        api_fail(call, REPLICA_E_NOMEM, NULL);
    else if (api_get_name(call, "name", true, naming->name, sizeof naming->name) != 0)
        naming = NULL;
    return naming;
}

static void change(struct api_call *call, struct gossip_peer_request *request)
{
    struct naming *naming = call->state;
    request->kind = GOSSIP_PEER_CONTROL;
    request->control.name = naming->name;
    request->control.new_name = naming->new_name[0] != '\0' ? naming->new_name : NULL;
    api_request(call, request, on_changed, NULL);
}

void api_volume_create(struct api_call *call)
{
    struct gossip_peer_request request = {.control = {.kind = GOSSIP_CONTROL_CREATE}};
    uint64_t version = 0, voters = 0;
    if (new_naming(call) == NULL || api_get_uint(call, "version", false, 2, &version) != 0 ||
        api_get_uint(call, "voters", false, GOSSIP_VOTERS_MAX, &voters) != 0 ||
        api_get_bool(call, "if_missing", &request.control.if_missing) != 0)
        return;
    if (voters != 0 && voters % 2 == 0) {
        api_fail(call, REPLICA_E_INVALID,
                 "%s: `voters` must be odd, because a majority is needed: 1, 3, 5, 7 or 9",
                 call->method->name);
        return;
    }
    if (api_need(call, ((const struct naming *)call->state)->name, NODE_RIGHT_WRITE) != 0)
        return;
    request.control.version = (uint32_t)version;
    request.control.voters_wanted = (uint32_t)voters;
    change(call, &request);
}

void api_volume_rename(struct api_call *call)
{
    struct gossip_peer_request request = {.control = {.kind = GOSSIP_CONTROL_RENAME}};
    struct naming *naming = new_naming(call);
    if (naming != NULL &&
        api_get_name(call, "new_name", true, naming->new_name, sizeof naming->new_name) == 0)
        change(call, &request);
}

void api_volume_delete(struct api_call *call)
{
    struct gossip_peer_request request = {.control = {.kind = GOSSIP_CONTROL_DELETE}};
    struct naming *naming = new_naming(call);
    const struct gossip_volume *volume;
    if (naming == NULL)
        return;
    volume = gossip_control_volume_by_name(control_of(call), naming->name);
    if (volume != NULL)
        naming->id = volume->id;
    change(call, &request);
}

void api_volume_undelete(struct api_call *call)
{
    struct gossip_peer_request request = {.control = {.kind = GOSSIP_CONTROL_UNDELETE}};
    if (new_naming(call) != NULL)
        change(call, &request);
}

void api_volume_list(struct api_call *call)
{
    const struct gossip_control *control = control_of(call);
    struct replica_buffer reply, items;
    bool deleted = false;
    size_t n = 0;
    if (api_get_bool(call, "deleted", &deleted) != 0)
        return;
    replica_buffer_init(&items);
    for (size_t i = 0; i < gossip_control_volumes(control) && items.size < API_REPLY_MAX; i++) {
        const struct gossip_volume *volume = gossip_control_volume_at(control, i);
        if ((volume->deleted && !deleted) || !api_may(call, volume->name, NODE_RIGHT_READ))
            continue;
        pack_volume(&items, gossip_peer_member(api_peer(call)), volume, VOLUME_FIELDS);
        n++;
    }
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 1);
    api_pack_key(&reply, "volumes");
    replica_pack_array(&reply, n);
    replica_buffer_append(&reply, items.data, items.size);
    replica_buffer_close(&items);
    api_reply(call, &reply);
}

/* Refreshing: a private view that nobody owns is opened at the newest state, and swept away after. */

static void on_refreshed(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    void (*done)(struct api_call * call, int code) = *(void (**)(struct api_call *, int))context;
    (void)result;
    (void)n;
    done(call, code);
}

struct refresh {
    void (*done)(struct api_call *call, int code);
    struct replica_id volume;
};

void api_refresh(struct api_call *call, const struct gossip_volume *volume, enum gossip_reload_mode mode,
                 void (*done)(struct api_call *call, int code))
{
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_VIEW_OPEN, .mode = mode};
    struct refresh *refresh = calloc(1, sizeof *refresh);
    call->state = refresh;
    call->free_state = free;
    if (refresh == NULL) {
        api_fail(call, REPLICA_E_NOMEM, NULL);
        return;
    }
    refresh->done = done;
    refresh->volume = volume->id;
    request.volume = volume->id;
    request.view_options.volume = volume->id;
    request.view_options.flags = REPLICA_VIEW_PRIVATE | REPLICA_VIEW_READ_ONLY;
    request.view_options.uid = call->uid;
    request.view_options.sub = (struct replica_path){"", 0};
    api_request(call, &request, on_refreshed, &refresh->done);
}

const struct replica_id *api_refreshed(const struct api_call *call)
{
    return &((const struct refresh *)call->state)->volume;
}

void api_fail_refresh(struct api_call *call, int code)
{
    const struct gossip_volume *volume = gossip_control_volume(control_of(call), api_refreshed(call));
    if (code == REPLICA_E_UNAVAILABLE)
        api_fail(call, code,
                 "no majority of the volume's voters answered in time; `local` (--local) asks for what this "
                 "node knows");
    else if (code == REPLICA_E_DENIED && volume != NULL)
        api_fail(call, code, "this node's credential may not read the volume \"%s\"", volume->name);
    else
        api_fail(call, code != 0 ? code : REPLICA_E_UNAVAILABLE, NULL);
}

#define WARNINGS_MAX 3

static size_t collect_warnings(struct api_call *call, const struct gossip_volume *volume, int code,
                               const char **ret_warnings)
{
    const struct gossip_member *member = gossip_peer_member(api_peer(call));
    size_t n = 0, dead = 0;
    for (size_t i = 0; i < volume->configuration.voters_n; i++)
        dead += !gossip_member_is_alive(member, &volume->configuration.voters[i]);
    if (code != 0)
        ret_warnings[n++] = "no majority of the voters answered: these figures are what this node knows";
    if (dead > 0)
        ret_warnings[n++] = "not all voters are alive";
    if (volume->configuration.voters_n < GOSSIP_VOTERS_WANTED)
        ret_warnings[n++] = "fewer than three voters: the loss of one node may lose the volume, or stop it";
    return n;
}

#define INFO_FIELDS 7

static void reply_info(struct api_call *call, int code)
{
    static const struct replica_volume_state UNKNOWN;
    const struct gossip_volume *volume = gossip_control_volume(control_of(call), api_refreshed(call));
    const struct replica_volume *replica = gossip_peer_volume(api_peer(call), api_refreshed(call));
    const struct replica_volume_state *state = replica == NULL ? &UNKNOWN : replica_volume_state(replica);
    const char *warnings[WARNINGS_MAX];
    struct replica_buffer reply;
    size_t n;
    if (volume == NULL) {
        api_fail(call, REPLICA_E_DELETED, NULL);
        return;
    }
    if (code == REPLICA_E_DENIED) {
        api_fail_refresh(call, code);
        return;
    }
    n = collect_warnings(call, volume, code, warnings);
    api_reply_begin(call, &reply);
    pack_volume(&reply, gossip_peer_member(api_peer(call)), volume, VOLUME_FIELDS + INFO_FIELDS);
    api_pack_key(&reply, "size");
    replica_pack_uint(&reply, state->totals.bytes);
    api_pack_key(&reply, "files");
    replica_pack_uint(&reply, state->totals.files);
    api_pack_key(&reply, "inodes");
    replica_pack_uint(&reply, state->totals.inodes);
    api_pack_key(&reply, "history_size");
    replica_pack_uint(&reply, state->totals.history_bytes);
    api_pack_key(&reply, "last_commit_ms");
    if (state->last_commit_ms == 0)
        replica_pack_nil(&reply);
    else
        replica_pack_uint(&reply, state->last_commit_ms);
    api_pack_key(&reply, "state_hash");
    replica_pack_bin(&reply, state->totals.state_hash, REPLICA_HASH_SIZE);
    api_pack_key(&reply, "warnings");
    replica_pack_array(&reply, n);
    for (size_t i = 0; i < n; i++)
        replica_pack_cstr(&reply, warnings[i]);
    api_reply(call, &reply);
}

void api_volume_info(struct api_call *call)
{
    const struct gossip_volume *volume;
    if (api_get_volume(call, "name", &volume) == 0)
        api_refresh(call, volume, GOSSIP_RELOAD_QUORUM, reply_info);
}
