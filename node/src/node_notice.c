/* What an operator reads about the cluster and its members, seen by looking: the cores do not log. And the
 * hints about free capacity. */
#include "node_internal.h"

#include "replica/contents_files.h"
#include "replica/error.h"

#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#define LOOK_MS     1000  /* between looks at the members */
#define CAPACITY_MS 60000 /* between hints about free capacity … */
#define CHANGED_MS  3000  /* … and when it has changed much */

struct seen {
    struct replica_id store;
    uint64_t generation;
    bool alive;
};

struct node_notice {
    struct seen *seen;
    size_t n, capacity;
};

static const char *short_id(const struct replica_id *id, char text[33])
{
    replica_id_format(id, text);
    return text;
}

static struct seen *find(struct node_notice *notice, const struct replica_id *store, size_t guess)
{
    if (guess < notice->n &&
        replica_id_equal(&notice->seen[guess].store, store)) /* members keep their order, mostly */
        return &notice->seen[guess];
    for (size_t i = 0; i < notice->n; i++)
        if (replica_id_equal(&notice->seen[i].store, store))
            return &notice->seen[i];
    return NULL;
}

static struct seen *add(struct node_notice *notice, const struct replica_id *store)
{
    if (notice->n == notice->capacity) {
        size_t wanted = notice->capacity == 0 ? 16 : notice->capacity * 2;
        struct seen *more = realloc(notice->seen, wanted * sizeof *more);
        if (more == NULL)
            return NULL;
        notice->seen = more;
        notice->capacity = wanted;
    }
    notice->seen[notice->n] = (struct seen){.store = *store};
    return &notice->seen[notice->n++];
}

static void look_at(struct node *node, const struct gossip_member_record *record, size_t index)
{
    bool alive = gossip_member_is_alive(gossip_peer_member(node->peer), &record->store);
    struct seen *seen = find(node->notice, &record->store, index);
    bool was = seen != NULL && seen->alive && seen->generation == record->generation;
    char store[33];
    if (seen == NULL)
        seen = add(node->notice, &record->store);
    if (seen == NULL)
        return;
    if (alive && !was)
        node_log(NODE_LOG_INFO, "member_alive", "name=%s store=%s endpoint=%s zone=%s version=%s",
                 record->name, short_id(&record->store, store), record->endpoint,
                 record->zone[0] == '\0' ? "-" : record->zone, record->version);
    else if (!alive && seen->alive)
        node_log(NODE_LOG_WARNING, "member_dead", "name=%s store=%s endpoint=%s state=%s", record->name,
                 short_id(&record->store, store), record->endpoint,
                 record->state == GOSSIP_MEMBER_LEFT ? "left" : "dead");
    seen->alive = alive;
    seen->generation = record->generation;
}

static void look(struct node *node)
{
    const struct gossip_member *member = gossip_peer_member(node->peer);
    for (size_t i = 0; i < gossip_member_count(member); i++) {
        const struct gossip_member_record *record = gossip_member_at(member, i);
        if (!replica_id_equal(&record->store, &node->store->id))
            look_at(node, record, i);
    }
}

uint64_t node_capacity_limit(const struct node_config *config, bool votes)
{
    if (!votes)
        return config->cache_size;
    return config->capacity == 0 || config->cache_size == 0 ? config->capacity
                                                            : config->capacity + config->cache_size;
}

uint64_t node_capacity_free(struct node *node)
{
    bool votes = node_votes(node);
    uint64_t limit = node_capacity_limit(node->config, votes), floor = node_config_free_space(node->config),
             space = 0;
    struct replica_contents_totals totals;
    struct statvfs disk;
    if (statvfs(node->config->data, &disk) == 0)
        space = (uint64_t)disk.f_bavail * disk.f_frsize;
    space = space > floor ? space - floor : 0;
    replica_contents_totals(node->store->contents, &totals);
    if (limit > 0 && (totals.bytes >= limit || limit - totals.bytes < space))
        space = totals.bytes >= limit ? 0 : limit - totals.bytes;
    return space;
}

/* By more than an eighth: less is no news to others, and makes no difference to what is cached. */
static bool changed_much(uint64_t before, uint64_t after)
{
    return (after > before ? after - before : before - after) > before / 8;
}

static void tell_capacity(struct node *node, uint64_t now_ms)
{
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_CAPACITY};
    if (now_ms < node->capacity_told_ms + CHANGED_MS)
        return;
    event.bytes = node_capacity_free(node);
    if (now_ms < node->capacity_told_ms + CAPACITY_MS && !changed_much(node->capacity_told, event.bytes) &&
        !node->space.low)
        return;
    node->capacity_told_ms = now_ms;
    node->capacity_told = event.bytes;
    node_step(node, &event);
}

static void on_look(void *context)
{
    struct node *node = context;
    uint64_t now_ms = node_now_ms();
    look(node);
    node_space_look(node);
    if (replica_contents_files_releasing(node->store->contents) > 0)
        node_contents_filled(node); /* for its sync */
    node_space_reopen(node);
    tell_capacity(node, now_ms);
    node_timer_set(node->look, now_ms + LOOK_MS);
}

void node_notice_cluster(struct node *node)
{
    const struct gossip_control *control = gossip_peer_control(node->peer);
    struct replica_id cluster = gossip_control_cluster(control);
    struct gossip_control_status status;
    const char *text;
    char id[33];
    if (node->cluster_known)
        return;
    if (!replica_id_is_zero(&cluster)) {
        node->cluster_known = true;
        node_transport_set_cluster(node->transport, &cluster);
        gossip_control_status(control, &status);
        node_log(NODE_LOG_INFO, status.voting ? "cluster_begun" : "cluster_joined", "cluster=%s members=%zu",
                 short_id(&cluster, id), status.members_n);
        return;
    }
    text = gossip_control_waiting(control);
    if (text[0] != '\0' && strncmp(text, node->waiting_text, sizeof node->waiting_text - 1) != 0) {
        strncpy(node->waiting_text, text, sizeof node->waiting_text - 1);
        node_log(NODE_LOG_INFO, "waiting", "text=\"%s\"", text);
    }
}

int node_notice_init(struct node *node)
{
    int rv = node_timer_new(node->loop, on_look, node, &node->look);
    if (rv != 0)
        return rv;
    node->notice = calloc(1, sizeof *node->notice);
    if (node->notice == NULL)
        return REPLICA_E_NOMEM;
    node->capacity_told_ms = node_now_ms();
    node->capacity_told = node_capacity_free(node);
    node_timer_set(node->look, node_now_ms() + LOOK_MS);
    return 0;
}

void node_notice_close(struct node *node)
{
    if (node->notice != NULL)
        free(node->notice->seen);
    free(node->notice);
    node->notice = NULL;
    node_timer_destroy(&node->look);
}
