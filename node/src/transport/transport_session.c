#include "transport_internal.h"

#include <sodium.h>

/* A peer in our memory, found by the CURVE key of its connection or by the token we gave it. */
struct node_session {
    uint8_t key[NODE_CURVE_KEY_SIZE];
    uint8_t token[NODE_TOKEN_SIZE];
    struct gossip_principal principal;
    struct replica_id cluster; /* zero: not begun */
    uint64_t expires_ms;       /* 0: never */
    struct node_session *older, *newer;
};

/* Keys and tokens are random already; only members of the cluster could aim theirs at one bucket. */
static size_t hash_prefix(const void *bytes)
{
    size_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static int compare_keys(const void *a, const void *b)
{
    return memcmp(a, b, NODE_CURVE_KEY_SIZE);
}

static int compare_tokens(const void *a, const void *b)
{
    return memcmp(a, b, NODE_TOKEN_SIZE);
}

/* A table whose keys lie inside its items. */
static zhashx_t *new_table(zhashx_comparator_fn *compare)
{
    zhashx_t *table = zhashx_new();
    if (table == NULL)
        return NULL;
    zhashx_set_key_hasher(table, hash_prefix);
    zhashx_set_key_comparator(table, compare);
    zhashx_set_key_duplicator(table, NULL);
    zhashx_set_key_destructor(table, NULL);
    return table;
}

int node_sessions_init(struct node_sessions *sessions)
{
    memset(sessions, 0, sizeof *sessions);
    sessions->by_key = new_table(compare_keys);
    sessions->by_token = new_table(compare_tokens);
    if (sessions->by_key != NULL && sessions->by_token != NULL)
        return 0;
    node_sessions_close(sessions);
    return REPLICA_E_NOMEM;
}

static void unlink_session(struct node_sessions *sessions, struct node_session *session)
{
    *(session->older != NULL ? &session->older->newer : &sessions->oldest) = session->newer;
    *(session->newer != NULL ? &session->newer->older : &sessions->newest) = session->older;
}

static void link_newest(struct node_sessions *sessions, struct node_session *session)
{
    session->older = sessions->newest;
    session->newer = NULL;
    *(sessions->newest != NULL ? &sessions->newest->newer : &sessions->oldest) = session;
    sessions->newest = session;
}

static void forget(struct node_sessions *sessions, struct node_session *session)
{
    zhashx_delete(sessions->by_key, session->key);
    zhashx_delete(sessions->by_token, session->token);
    unlink_session(sessions, session);
    free(session);
}

void node_sessions_close(struct node_sessions *sessions)
{
    while (sessions->oldest != NULL)
        forget(sessions, sessions->oldest);
    zhashx_destroy(&sessions->by_key);
    zhashx_destroy(&sessions->by_token);
}

static struct node_session *add(struct node_sessions *sessions, const uint8_t *key)
{
    struct node_session *session = calloc(1, sizeof *session);
    if (session == NULL)
        return NULL;
    if (zhashx_size(sessions->by_key) >= NODE_SESSIONS_MAX)
        forget(sessions, sessions->oldest);
    memcpy(session->key, key, sizeof session->key);
    randombytes_buf(session->token, sizeof session->token);
    link_newest(sessions, session);
    if (zhashx_insert(sessions->by_key, session->key, session) != 0 ||
        zhashx_insert(sessions->by_token, session->token, session) != 0) {
        forget(sessions, session);
        return NULL;
    }
    return session;
}

int node_sessions_put(struct node_sessions *sessions, const uint8_t key[NODE_CURVE_KEY_SIZE],
                      const struct node_hello *hello, const struct gossip_principal *principal,
                      uint8_t ret_token[NODE_TOKEN_SIZE])
{
    struct node_session *session = zhashx_lookup(sessions->by_key, key);
    if (session == NULL)
        session = add(sessions, key);
    if (session == NULL)
        return REPLICA_E_NOMEM;
    session->principal = *principal;
    session->cluster = hello->cluster;
    session->expires_ms = hello->expires_ms;
    memcpy(ret_token, session->token, NODE_TOKEN_SIZE);
    return 0;
}

static int use(struct node_sessions *sessions, struct node_session *session, uint64_t wall_ms,
               struct gossip_principal *ret_principal)
{
    if (session == NULL)
        return REPLICA_E_NOTFOUND;
    if (session->expires_ms != 0 && wall_ms >= session->expires_ms) {
        forget(sessions, session);
        return REPLICA_E_EXPIRED;
    }
    unlink_session(sessions, session);
    link_newest(sessions, session);
    *ret_principal = session->principal;
    return 0;
}

int node_sessions_find_key(struct node_sessions *sessions, const uint8_t key[NODE_CURVE_KEY_SIZE],
                           uint64_t wall_ms, struct gossip_principal *ret_principal)
{
    return use(sessions, zhashx_lookup(sessions->by_key, key), wall_ms, ret_principal);
}

int node_sessions_find_token(struct node_sessions *sessions, const uint8_t token[NODE_TOKEN_SIZE],
                             uint64_t wall_ms, struct gossip_principal *ret_principal)
{
    return use(sessions, zhashx_lookup(sessions->by_token, token), wall_ms, ret_principal);
}

void node_sessions_keep_cluster(struct node_sessions *sessions, const struct replica_id *cluster)
{
    struct node_session *session = sessions->oldest, *next;
    for (; session != NULL; session = next) {
        next = session->newer;
        if (!replica_id_is_zero(&session->cluster) && !replica_id_equal(&session->cluster, cluster))
            forget(sessions, session);
    }
}
