/* Damaged contents: said to the operator, and to the peer until they are whole again.
 *
 * Whoever reads a content finds its damage, on whatever thread (replica/contents_files.h); by then it has been
 * set aside. Readers fetch it again for themselves; a voter fetches it at once. */
#include "node_internal.h"

#include "replica/contents_files.h"

#include <stdio.h>
#include <stdlib.h>

#define HEAL_MS     30000 /* between looks at what is still not whole: a fetch may have been given up */
#define HEAL_A_TURN 64    /* contents in one turn of the loop, with a few reads each */
#define WHERE_TEXT  192

struct node_damage {
    struct node_damage *next;
    struct replica_content_id content;
    char where[WHERE_TEXT];
};

static void tell_peer(struct node *node, const struct replica_content_id *content)
{
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_DAMAGED, .content = *content};
    node_step(node, &event);
}

static void say(const struct node *node, const struct node_damage *damage)
{
    char root[2 * REPLICA_HASH_SIZE + 1];
    for (size_t i = 0; i < REPLICA_HASH_SIZE; i++)
        snprintf(root + 2 * i, 3, "%02x", damage->content.root[i]);
    node_log(
        NODE_LOG_ERROR, "content_damaged",
        "where=\"%s/contents/%s\" content=%s length=%llu text=\"set aside in %s/contents/quarantine, to be "
        "fetched from another holder; check this disk\"",
        node->config->data, damage->where, root, (unsigned long long)damage->content.length,
        node->config->data);
}

static struct node_damage *take_all(struct node_damages *damages)
{
    struct node_damage *all;
    pthread_mutex_lock(&damages->mutex);
    all = damages->first;
    damages->first = NULL;
    damages->last = &damages->first;
    damages->posted = false;
    pthread_mutex_unlock(&damages->mutex);
    return all;
}

static void handle(void *context)
{
    struct node *node = context;
    struct node_damage *damage = take_all(&node->damages);
    while (damage != NULL) {
        struct node_damage *next = damage->next;
        say(node, damage);
        if (node->peer != NULL)
            tell_peer(node, &damage->content);
        free(damage);
        damage = next;
    }
    if (node->heal != NULL && !node->ending)
        node_timer_set(node->heal, node_now_ms() + HEAL_MS);
}

void node_on_damage(void *context, const struct replica_content_id *content, const char *where)
{
    struct node *node = context;
    struct node_damages *damages = &node->damages;
    struct node_damage *damage = calloc(1, sizeof *damage);
    if (damage == NULL)
        return; /* the next look at what is not whole finds it */
    damage->content = *content;
    snprintf(damage->where, sizeof damage->where, "%s", where);
    pthread_mutex_lock(&damages->mutex);
    *damages->last = damage;
    damages->last = &damage->next;
    if (!damages->posted) {
        damages->posted = true;
        damages->post = (struct node_post){.call = handle, .context = node};
        node_loop_post(node->loop, &damages->post);
    }
    pthread_mutex_unlock(&damages->mutex);
}

/* One turn of a pass over all that is not whole. */
static void heal_some(void *context)
{
    struct node *node = context;
    struct replica_content_id content;
    int rv = 0;
    for (int i = 0; i < HEAL_A_TURN && rv == 0 && !node->ending; i++) {
        rv = replica_contents_files_damaged_next(node->store->contents, node->healing ? &node->healed : NULL,
                                                 &content);
        if (rv == 0) {
            node->healing = true;
            node->healed = content;
            tell_peer(node, &content);
        }
    }
    if (node->ending)
        return;
    if (rv == 0) {
        node_timer_set(node->heal, node_now_ms()); /* others have the loop in between */
        return;
    }
    if (node->healing)
        node_timer_set(node->heal, node_now_ms() + HEAL_MS);
    node->healing = false;
}

void node_damage_init(struct node *node)
{
    pthread_mutex_init(&node->damages.mutex, NULL);
    node->damages.last = &node->damages.first;
}

int node_damage_start(struct node *node)
{
    uint64_t lost = replica_contents_files_lost(node->store->contents);
    int rv = node_timer_new(node->loop, heal_some, node, &node->heal);
    if (rv != 0)
        return rv;
    if (lost > 0)
        node_log(
            NODE_LOG_ERROR, "contents_lost",
            "count=%llu text=\"directories in %s/contents were missing; what was in them is fetched again "
            "from other holders\"",
            (unsigned long long)lost, node->config->data);
    node_timer_set(node->heal, node_now_ms());
    return 0;
}

void node_damage_close(struct node *node)
{
    struct node_damage *damage = take_all(&node->damages);
    while (damage != NULL) {
        struct node_damage *next = damage->next;
        free(damage);
        damage = next;
    }
    node_timer_destroy(&node->heal);
    pthread_mutex_destroy(&node->damages.mutex);
}
