/* The links by address: where senders of any thread leave their messages, and which links there are. The
 * actor is told of a link by the list of dirty ones; only it touches sockets. */
#include "transport_internal.h"

#include "loop.h"

static void unlist(struct node_channel_actor *channel, struct node_link *link)
{
    zhashx_delete(channel->links, link->endpoint);
    *(link->older != NULL ? &link->older->newer : &channel->oldest) = link->newer;
    *(link->newer != NULL ? &link->newer->older : &channel->newest) = link->older;
    link->listed = false;
    atomic_fetch_sub(&channel->transport->links, 1);
}

static void list_newest(struct node_channel_actor *channel, struct node_link *link)
{
    link->older = channel->newest;
    link->newer = NULL;
    *(channel->newest != NULL ? &channel->newest->newer : &channel->oldest) = link;
    channel->newest = link;
}

static void touch(struct node_channel_actor *channel, struct node_link *link)
{
    link->used_ms = node_now_ms();
    if (link == channel->newest)
        return;
    *(link->older != NULL ? &link->older->newer : &channel->oldest) = link->newer;
    link->newer->older = link->older;
    list_newest(channel, link);
}

static void mark_dirty(struct node_channel_actor *channel, struct node_link *link)
{
    if (!link->dirty) {
        link->dirty = true;
        link->next_dirty = channel->dirty;
        channel->dirty = link;
    }
    node_channel_wake_locked(channel);
}

static int check_endpoint(const struct node_channel_actor *channel, const char *endpoint)
{
    struct node_endpoint parsed;
    if (node_endpoint_parse(endpoint, &parsed) != 0 || parsed.port == 0 || parsed.host[0] == '*')
        return REPLICA_E_INVALID;
    if (node_keyring_is_loopback(channel->transport->keyring) && !node_endpoint_is_loopback(&parsed))
        return REPLICA_E_INVALID;
    return 0;
}

static struct node_link *new_link(struct node_channel_actor *channel, const char *endpoint)
{
    struct node_link *link = calloc(1, sizeof *link);
    if (link == NULL)
        return NULL;
    link->source.kind = NODE_SOURCE_LINK;
    memcpy(link->endpoint, endpoint, strlen(endpoint) + 1);
    node_queue_init(&link->arrived);
    node_queue_init(&link->queue);
    link->account = node_account_new(channel->transport->total);
    if (link->account == NULL || zhashx_insert(channel->links, link->endpoint, link) != 0) {
        node_account_release(link->account);
        free(link);
        return NULL;
    }
    return link;
}

/* The link of that address, made if need be, as the most recently used. Errors: INVALID, NOMEM. */
static int obtain(struct node_channel_actor *channel, const char *endpoint, struct node_link **ret_link)
{
    struct node_link *link = zhashx_lookup(channel->links, endpoint);
    if (link == NULL) {
        int code = check_endpoint(channel, endpoint);
        if (code != 0)
            return code;
        link = new_link(channel, endpoint);
        if (link == NULL)
            return REPLICA_E_NOMEM;
        link->listed = true;
        list_newest(channel, link);
        atomic_fetch_add(&channel->transport->links, 1);
        if (zhashx_size(channel->links) > channel->transport->links_max) {
            struct node_link *victim = channel->oldest;
            unlist(channel, victim);
            mark_dirty(channel, victim);
        }
        mark_dirty(channel, link);
    }
    touch(channel, link);
    *ret_link = link;
    return 0;
}

static int push_locked(struct node_channel_actor *channel, const char *endpoint,
                       struct node_outgoing *outgoing)
{
    struct node_account *total = channel->transport->total;
    struct node_link *link;
    int code = obtain(channel, endpoint, &link);
    if (code != 0)
        return code;
    if (atomic_load(&link->account->bytes) + outgoing->n > NODE_SEND_QUEUE_MAX ||
        atomic_load(&total->bytes) + outgoing->n > NODE_SEND_TOTAL_MAX)
        return REPLICA_E_NOSPACE;
    outgoing->queued_ms = link->used_ms;
    outgoing->account = link->account;
    atomic_fetch_add(&link->account->references, 1);
    atomic_fetch_add(&link->account->bytes, outgoing->n);
    atomic_fetch_add(&total->bytes, outgoing->n);
    node_queue_push(&link->arrived, outgoing);
    mark_dirty(channel, link);
    return 0;
}

int node_table_push(struct node_channel_actor *channel, const char *endpoint, struct node_outgoing *outgoing)
{
    int code;
    pthread_mutex_lock(&channel->lock);
    code = push_locked(channel, endpoint, outgoing);
    pthread_mutex_unlock(&channel->lock);
    return code;
}

int node_table_token(struct node_channel_actor *control, const char *endpoint,
                     uint8_t ret_token[NODE_TOKEN_SIZE], struct replica_id *ret_store)
{
    struct node_link *link;
    int code;
    pthread_mutex_lock(&control->lock);
    code = obtain(control, endpoint, &link);
    if (code == 0 && !link->has_token)
        code = REPLICA_E_AGAIN;
    if (code == 0) {
        memcpy(ret_token, link->token, NODE_TOKEN_SIZE);
        *ret_store = link->token_store;
    }
    pthread_mutex_unlock(&control->lock);
    return code;
}

void node_table_token_lost(struct node_channel_actor *control, const char *endpoint)
{
    struct node_link *link;
    pthread_mutex_lock(&control->lock);
    if (obtain(control, endpoint, &link) == 0 && link->has_token) {
        link->has_token = false;
        mark_dirty(control, link);
    }
    pthread_mutex_unlock(&control->lock);
}

bool node_table_remove_idle(struct node_channel_actor *channel, struct node_link *link, uint64_t before_ms)
{
    bool idle;
    pthread_mutex_lock(&channel->lock);
    idle = link->listed && !link->dirty && link->used_ms < before_ms && link->arrived.head == NULL;
    if (idle)
        unlist(channel, link);
    pthread_mutex_unlock(&channel->lock);
    return idle;
}
