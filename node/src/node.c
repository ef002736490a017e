/* Making, running and unmaking a node: in which order its parts come to life, and in which they end. */
#include "node_internal.h"

#include "replica/error.h"
#include "replica/kv_leveldb.h"

#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define WORKERS 4 /* long jobs: most wait for the disk or for a name server */
/* Hashing a piece that comes in takes a core at 1.9 GB/s, so as many as there are cores … */
#define MOVERS_MIN  2
#define MOVERS_MAX  8    /* … up to what any disk takes */
#define CATCH_UP_MS 5000 /* of the start, without an answer to anybody */
#define PORT_PAIRS  64 /* tried from the default on; a machine with more nodes than that names their ports */

static int say(char **ret_message, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int say(char **ret_message, int code, const char *format, ...)
{
    va_list arguments;
    if (*ret_message != NULL)
        return code; /* what was said first is nearer to the cause */
    va_start(arguments, format);
    if (vasprintf(ret_message, format, arguments) < 0)
        *ret_message = NULL;
    va_end(arguments);
    return code;
}

/* Parts */

bool node_votes(const struct node *node)
{
    const struct node_config *config = node->config;
    /* Without --join this node can only become the first of its cluster; with --expect it is one of the
     * founders. */
    return node->principal.role == GOSSIP_ROLE_VOTER &&
           (config->vote || config->expect > 0 || config->join_n == 0);
}

/* What the key file allows, and whether a node of this configuration may run with it. */
static int read_keyring(const struct node_config *config, struct node_keyring **ret_keyring,
                        struct gossip_principal *ret_principal, char **ret_message)
{
    struct node_keyring *keyring;
    int rv = node_keyring_load(config->key, &keyring, ret_message);
    if (rv != 0)
        return say(ret_message, rv, "key: cannot load %s: %s",
                   config->key == NULL ? "the built-in key" : config->key, replica_error_text(rv));
    node_keyring_principal(keyring, ret_principal);
    if (ret_principal->role == GOSSIP_ROLE_CLIENT)
        rv = say(ret_message, REPLICA_E_DENIED,
                 "key: the credential in %s is a client's, which may not run a node; make one with `remora "
                 "keygen --from FILE --role cache`",
                 config->key);
    else if (ret_principal->role != GOSSIP_ROLE_VOTER && (config->vote || config->expect > 0))
        rv = say(ret_message, REPLICA_E_DENIED,
                 "key: the credential in %s may not vote; leave out --vote and --expect, or use the "
                 "cluster key or a voter's credential",
                 config->key);
    if (rv != 0)
        node_keyring_destroy(&keyring);
    else
        *ret_keyring = keyring;
    return rv;
}

static int load_keyring(struct node *node, char **ret_message)
{
    return read_keyring(node->config, &node->keyring, &node->principal, ret_message);
}

int node_check_keys(const struct node_config *config, char **ret_message)
{
    struct gossip_principal principal;
    struct node_keyring *keyring;
    int rv;
    *ret_message = NULL;
    rv = read_keyring(config, &keyring, &principal, ret_message);
    if (rv == 0)
        node_keyring_destroy(&keyring);
    return rv;
}

static int open_store(struct node *node, char **ret_message)
{
    struct node_store_options options = {.path = node->config->data,
                                         .capacity = node_capacity_limit(node->config, node_votes(node)),
                                         .free_floor = node_config_free_space(node->config),
                                         .on_damage = node_on_damage,
                                         .context = node};
    int rv = node_store_open(&options, &node->store, ret_message);
    if (rv == 0)
        node->principal.store = node->store->id;
    return rv;
}

static int start_threads(struct node *node)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned movers = cores < MOVERS_MIN ? MOVERS_MIN : cores > MOVERS_MAX ? MOVERS_MAX : (unsigned)cores;
    int rv = node_workers_new(node->loop, WORKERS, &node->workers);
    if (rv == 0)
        rv = node_workers_new(node->loop, movers, &node->movers);
    return rv == 0 ? node_syncer_new(node->loop, node->store, node_on_synced, node, &node->syncer) : rv;
}

static void on_transport_log(void *context, int level, const char *text)
{
    (void)context;
    node_log(level <= 0   ? NODE_LOG_DEBUG
             : level >= 3 ? NODE_LOG_ERROR
                          : (enum node_log_level)level,
             "transport", "text=\"%s\"", text);
}

static int listen_at(struct node *node, const char *listen, char **ret_message)
{
    struct node_transport_options options = {
        .listen = listen,
        .keyring = node->keyring,
        .hello = {.store = node->store->id,
                  .generation = node->store->generation,
                  .protocol_min = NODE_PROTOCOL_MIN,
                  .protocol_max = NODE_PROTOCOL_MAX},
        .data_plain = node->config->data_plain,
        .handler = {.context = node, .on_message = node_on_message, .on_log = on_transport_log},
    };
    memcpy(options.hello.curve_public, node->store->curve_public, NODE_CURVE_KEY_SIZE);
    memcpy(options.curve_secret, node->store->curve_secret, NODE_CURVE_KEY_SIZE);
    if (node->config->advertise != NULL)
        snprintf(options.hello.endpoint, sizeof options.hello.endpoint, "%s", node->config->advertise);
    return node_transport_new(&options, &node->transport, ret_message);
}

/* A port that nobody chose is no reason to fail: the next free pair is taken. */
static int open_transport(struct node *node, char **ret_message)
{
    const char *listen = node->config->listen, *colon = strrchr(listen, ':');
    unsigned long port = strtoul(colon + 1, NULL, 10);
    int rv = REPLICA_E_BUSY;
    for (unsigned i = 0; i < PORT_PAIRS && rv == REPLICA_E_BUSY; i++) {
        char endpoint[GOSSIP_ENDPOINT_MAX + 1];
        free(*ret_message);
        *ret_message = NULL;
        snprintf(endpoint, sizeof endpoint, "%.*s:%lu", (int)(colon - listen), listen, port + 2 * i);
        rv = listen_at(node, endpoint, ret_message);
        if (node->config->listen_given)
            break;
    }
    if (rv != 0)
        return say(ret_message, rv, "listen: cannot listen at %s: %s", listen, replica_error_text(rv));
    snprintf(node->endpoint, sizeof node->endpoint, "%s",
             node->config->advertise != NULL ? node->config->advertise
                                             : node_transport_endpoint(node->transport));
    return 0;
}

static enum gossip_begin how_to_begin(const struct node_config *config)
{
    if (config->expect > 0)
        return GOSSIP_BEGIN_EXPECT;
    if (config->join_n > 0)
        return GOSSIP_BEGIN_JOIN;
    return config->key != NULL ? GOSSIP_BEGIN_WAIT : GOSSIP_BEGIN_ALONE;
}

static int make_peer(struct node *node, char **ret_message)
{
    struct gossip_peer_options options;
    struct gossip_member_record *self = &options.self;
    struct replica_contents_totals totals;
    int rv;
    gossip_peer_options_default(&options);
    options.control.begin = how_to_begin(node->config);
    options.control.expect = node->config->expect;
    options.principal = node->principal;
    randombytes_buf(&options.seed, sizeof options.seed);
    self->store = node->store->id;
    self->generation = node->store->generation;
    self->state = GOSSIP_MEMBER_ALIVE;
    self->roles = node_votes(node) ? GOSSIP_MEMBER_VOTE : 0;
    self->capacity_free = node_capacity_free(node);
    replica_contents_totals(node->store->contents, &totals);
    options.contents_limit = totals.bytes + self->capacity_free > 0 ? totals.bytes + self->capacity_free : 1;
    snprintf(self->name, sizeof self->name, "%s", node->config->name);
    snprintf(self->zone, sizeof self->zone, "%s", node->config->zone);
    snprintf(self->endpoint, sizeof self->endpoint, "%s", node->endpoint);
    snprintf(self->version, sizeof self->version, "%s", REMORA_VERSION);
    rv = gossip_peer_new(&options, node->store->log, node->store->map, node->store->contents, &node->peer);
    switch (rv) {
    case 0:
        return 0;
    case REPLICA_E_EXPIRED: /* replica_volume_new */
        return say(ret_message, REPLICA_E_CORRUPT,
                   "data: %s/map is gone or damaged, and a volume whose log begins behind an image cannot be "
                   "rebuilt "
                   "from %s/log; " NODE_STORE_MESSAGE_HINT,
                   node->config->data, node->config->data);
    case REPLICA_E_STALE:
        return say(ret_message, REPLICA_E_CORRUPT,
                   "data: %s/log has lost what %s/map shows: restore it, or start with an empty "
                   "--data; " NODE_STORE_MESSAGE_HINT,
                   node->config->data, node->config->data);
    default:
        return say(ret_message, rv, "data: the state in %s%s cannot be loaded: %s; " NODE_STORE_MESSAGE_HINT,
                   node->config->data, replica_kv_leveldb_is_damaged(node->store->log) ? "/log" : "",
                   replica_error_text(rv));
    }
}

/* The cluster that an earlier life was in. */
static void take_up_cluster(struct node *node)
{
    struct replica_id cluster = gossip_control_cluster(gossip_peer_control(node->peer));
    char text[33];
    if (replica_id_is_zero(&cluster))
        return;
    node->cluster_known = true;
    node_transport_set_cluster(node->transport, &cluster);
    replica_id_format(&cluster, text);
    node_log(NODE_LOG_INFO, "cluster", "cluster=%s", text);
}

static void log_start(const struct node *node)
{
    const struct node_config *config = node->config;
    static const char *const BEGINS[] = {"alone", "wait", "expect", "join"};
    char store[33];
    replica_id_format(&node->store->id, store);
    node_log(NODE_LOG_INFO, "start",
             "version=%s store=%s generation=%llu data=\"%s\" endpoint=%s begin=%s vote=%s", REMORA_VERSION,
             store, (unsigned long long)node->store->generation, config->data, node->endpoint,
             BEGINS[how_to_begin(config)], node_votes(node) ? "yes" : "no");
}

/* What was applied before is applied again, to a map that is behind, before anybody reads: after a crash that
 * takes moments. A map that is rebuilt may take longer; then views wait for it. */
static void catch_up(struct node *node)
{
    uint64_t deadline_ms = node_now_ms() + CATCH_UP_MS, behind = gossip_peer_behind(node->peer, NULL),
             before = 0;
    if (node->store->aside[0] != '\0')
        node_log(NODE_LOG_ERROR, "map_damaged",
                 "aside=\"%s/%s\" text=\"rebuilt from the log; remove what was "
                 "set aside\"",
                 node->config->data, node->store->aside);
    if (behind > 0)
        node_log(NODE_LOG_INFO, "map_behind", "commits=%llu", (unsigned long long)behind);
    while (behind > 0 && (behind != before || node->update.again) && node->fatal == 0 &&
           node_now_ms() < deadline_ms) {
        before = behind;
        node_step_timer(node);
        behind = gossip_peer_behind(node->peer, NULL);
    }
}

static int build(struct node *node, char **ret_message)
{
    struct gossip_peer_event start = {.kind = GOSSIP_PEER_EVENT_START};
    int rv = node_loop_new(&node->loop);
    if (rv == 0)
        rv = node_signals_init(node);
    if (rv == 0)
        rv = node_step_init(node);
    if (rv == 0)
        rv = load_keyring(node, ret_message);
    if (rv == 0)
        rv = open_store(node, ret_message);
    if (rv == 0)
        rv = node_space_init(node);
    if (rv == 0)
        rv = start_threads(node);
    if (rv == 0)
        rv = open_transport(node, ret_message);
    if (rv == 0)
        rv = make_peer(node, ret_message);
    if (rv == 0)
        rv = node_join_init(node);
    if (rv == 0)
        rv = node_notice_init(node);
    if (rv != 0)
        return rv;
    rv = node_drafts_start(node);
    if (rv != 0)
        return say(ret_message, rv, "data: the drafts in %s cannot be taken up: %s", node->config->data,
                   replica_error_text(rv));
    log_start(node);
    take_up_cluster(node);
    node_step(node, &start);
    if (node->fatal == 0)
        catch_up(node);
    if (node->fatal != 0)
        return say(ret_message, node->fatal, "data: %s: %s; " NODE_STORE_MESSAGE_HINT, node->config->data,
                   replica_error_text(node->fatal));
    rv = node_damage_start(node);
    return rv != 0 ? rv : node_api_new(node, node->config->socket, &node->api, ret_message);
}

static int make(const struct node_config *config, struct node **ret_node, bool *ret_map_damaged,
                char **ret_message)
{
    struct node *node = calloc(1, sizeof *node);
    int rv;
    *ret_message = NULL;
    if (node == NULL)
        return REPLICA_E_NOMEM;
    node->config = config;
    node->signal_fd = -1;
    node_request_init(node);
    node_wire_init(node);
    node_damage_init(node);
    rv = build(node, ret_message);
    if (rv != 0) {
        *ret_map_damaged = node->store != NULL && node_store_map_is_damaged(node->store);
        node_destroy(&node);
        return say(ret_message, rv, "%s", replica_error_text(rv));
    }
    *ret_node = node;
    return 0;
}

int node_new(const struct node_config *config, struct node **ret_node, char **ret_message)
{
    bool map_damaged = false;
    int rv = make(config, ret_node, &map_damaged, ret_message);
    if (rv != REPLICA_E_CORRUPT || !map_damaged)
        return rv;
    node_log(NODE_LOG_ERROR, "map_damaged", "data=\"%s\" text=\"set aside, and rebuilt from the log\"",
             config->data);
    free(*ret_message);
    return make(config, ret_node, &map_damaged, ret_message);
}

int node_run(struct node *node, bool again, size_t *ret_unfinished)
{
    char store[33];
    int rv;
    replica_id_format(&node->store->id, store);
    if (!again)
        printf("remora node ready: socket %s endpoint %s store %s\n", node->config->socket, node->endpoint,
               store);
    fflush(stdout);
    sd_notifyf(0, "READY=1\nSTATUS=socket %s endpoint %s", node->config->socket, node->endpoint);
    rv = node_loop_run(node->loop);
    *ret_unfinished = node->unfinished;
    if (node->fatal != 0)
        return node->fatal;
    if (node->reopens && !node->stopping)
        return rv;
    if (node->reopens) /* … and ends all the same */
        *ret_unfinished += node->last_commits;
    node_log(NODE_LOG_INFO, "stopped", "unfinished=%zu", node->unfinished);
    return rv;
}

bool node_is_to_reopen(const struct node *node)
{
    return node->reopens && node->fatal == 0 && !node->stopping;
}

/* A node that ends in order leaves nothing to the next start. */
static void sync_last(struct node *node)
{
    int rv;
    if (node->peer == NULL || node->failed != 0)
        return;
    rv = replica_contents_sync(node->store->contents);
    if (rv == 0)
        rv = replica_kv_sync(node->store->log);
    if (rv == 0)
        rv = replica_kv_sync(node->store->map);
    if (rv == 0 && node->first_draft > 0)
        rv = node_drafts_end(node);
    if (rv != 0)
        node_log(NODE_LOG_ERROR, "store_failed", "what=last_sync error=%s", replica_error_symbol(rv));
}

/* First those who call us from other threads, then what their last calls left on the loop, then what that
 * stands on. */
static void end_threads(struct node *node)
{
    if (node->transport != NULL)
        node_transport_destroy(&node->transport);
    if (node->movers != NULL)
        node_workers_destroy(&node->movers);
    if (node->workers != NULL)
        node_workers_destroy(&node->workers);
    if (node->syncer != NULL)
        node_syncer_stop(node->syncer);
    for (int i = 0; i < 2; i++) { /* what is posted by what is posted */
        node_loop_stop(node->loop);
        node_loop_run(node->loop);
    }
}

void node_destroy(struct node **node)
{
    struct node *gone = *node;
    if (gone == NULL)
        return;
    gone->ending = true;
    if (gone->api != NULL)
        node_api_give_up(gone->api);
    if (gone->loop != NULL)
        end_threads(gone);
    if (gone->api != NULL)
        node_api_destroy(&gone->api);
    if (gone->syncer != NULL)
        node_syncer_destroy(&gone->syncer);
    sync_last(gone);
    if (gone->peer != NULL)
        gossip_peer_destroy(&gone->peer);
    node_request_close(gone);
    node_wire_close(gone);
    if (gone->loop != NULL) {
        node_notice_close(gone);
        node_timer_destroy(&gone->resolve);
        node_signals_close(gone);
        node_step_close(gone);
    }
    node_damage_close(gone);
    if (gone->loop != NULL)
        node_loop_destroy(&gone->loop);
    if (gone->store != NULL)
        node_store_close(&gone->store);
    if (gone->keyring != NULL)
        node_keyring_destroy(&gone->keyring);
    free(gone);
    *node = NULL;
}

/* Accessors */

struct node_loop *node_get_loop(struct node *node)
{
    return node->loop;
}

struct node_workers *node_get_workers(struct node *node)
{
    return node->workers;
}

struct replica_contents *node_get_contents(struct node *node)
{
    return node->store->contents;
}

const struct gossip_peer *node_get_peer(struct node *node)
{
    return node->peer;
}

const struct node_config *node_get_config(struct node *node)
{
    return node->config;
}

void node_get_transport_stats(struct node *node, struct node_transport_stats *ret_stats)
{
    node_transport_stats(node->transport, ret_stats);
}
