/* The --join names, resolved anew on a worker at each try: an orchestrator moves names to other addresses.
 * All addresses of each are given to the peer but our own, so that every node can be given the same list. */
#include "node_internal.h"

#include "replica/error.h"

#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESOLVE_ALONE_MS  1000  /* while nobody was found: a name may appear at any moment */
#define RESOLVE_JOINED_MS 30000 /* afterwards only those who were partitioned away from everybody need it */

struct resolve {
    struct node_job job;
    struct node *node;
    char endpoints[GOSSIP_JOIN_MAX][GOSSIP_ENDPOINT_MAX + 1];
    size_t n;
    size_t unknown; /* names without an address */
    char example[GOSSIP_ENDPOINT_MAX + 1];
};

/* host without brackets, and port, of "tcp://host:port". */
static void split(const char *endpoint, char ret_host[GOSSIP_ENDPOINT_MAX + 1], char ret_port[8])
{
    const char *host = endpoint + strlen("tcp://"), *colon = strrchr(host, ':');
    size_t n = (size_t)(colon - host);
    if (host[0] == '[' && n >= 2 && host[n - 1] == ']') {
        host++;
        n -= 2;
    }
    snprintf(ret_host, GOSSIP_ENDPOINT_MAX + 1, "%.*s", (int)n, host);
    snprintf(ret_port, 8, "%s", colon + 1);
}

static bool same_address(const struct sockaddr *a, const struct sockaddr *b)
{
    if (a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET)
        return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)b)->sin_addr.s_addr;
    return a->sa_family == AF_INET6 &&
           memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr, &((const struct sockaddr_in6 *)b)->sin6_addr,
                  sizeof(struct in6_addr)) == 0;
}

static bool is_interface(const struct sockaddr *address)
{
    struct ifaddrs *all;
    bool found = false;
    if (getifaddrs(&all) != 0)
        return false;
    for (const struct ifaddrs *one = all; one != NULL && !found; one = one->ifa_next)
        found = one->ifa_addr != NULL && same_address(one->ifa_addr, address);
    freeifaddrs(all);
    return found;
}

/* Whether address is one that `endpoint` (bound by us, or advertised for us) stands for. */
static bool stands_for(const char *endpoint, const struct sockaddr *address, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    char host[GOSSIP_ENDPOINT_MAX + 1], own_port[8];
    bool same = false;
    split(endpoint, host, own_port);
    if (strcmp(port, own_port) != 0)
        return false;
    if (strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0)
        return is_interface(address);
    if (getaddrinfo(host, own_port, &hints, &found) != 0)
        return false;
    for (const struct addrinfo *one = found; one != NULL && !same; one = one->ai_next)
        same = same_address(one->ai_addr, address);
    freeaddrinfo(found);
    return same;
}

static void add(struct resolve *resolve, const struct sockaddr *address, socklen_t size, const char *port)
{
    char host[INET6_ADDRSTRLEN + 16], endpoint[GOSSIP_ENDPOINT_MAX + 1];
    if (resolve->n == GOSSIP_JOIN_MAX ||
        getnameinfo(address, size, host, sizeof host, NULL, 0, NI_NUMERICHOST) != 0)
        return;
    if (stands_for(node_transport_endpoint(resolve->node->transport), address, port) ||
        stands_for(resolve->node->endpoint, address, port))
        return;
    snprintf(endpoint, sizeof endpoint, address->sa_family == AF_INET6 ? "tcp://[%s]:%s" : "tcp://%s:%s",
             host, port);
    for (size_t i = 0; i < resolve->n; i++)
        if (strcmp(resolve->endpoints[i], endpoint) == 0)
            return;
    strcpy(resolve->endpoints[resolve->n++], endpoint);
}

static void run_resolve(struct node_job *job)
{
    struct resolve *resolve = (struct resolve *)job;
    const struct node_config *config = resolve->node->config;
    for (size_t i = 0; i < config->join_n; i++) {
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
        char host[GOSSIP_ENDPOINT_MAX + 1], port[8];
        split(config->join[i], host, port);
        if (getaddrinfo(host, port, &hints, &found) != 0) {
            if (resolve->unknown++ == 0)
                snprintf(resolve->example, sizeof resolve->example, "%s", config->join[i]);
            continue;
        }
        for (const struct addrinfo *one = found; one != NULL; one = one->ai_next)
            add(resolve, one->ai_addr, one->ai_addrlen, port);
        freeaddrinfo(found);
    }
}

static bool is_alone(const struct node *node)
{
    const struct gossip_member *member = gossip_peer_member(node->peer);
    for (size_t i = 0; i < gossip_member_count(member); i++) {
        const struct replica_id *store = &gossip_member_at(member, i)->store;
        if (!replica_id_equal(store, &node->store->id) && gossip_member_is_alive(member, store))
            return false;
    }
    return true;
}

static void resolved(struct node_job *job)
{
    struct resolve *resolve = (struct resolve *)job;
    struct node *node = resolve->node;
    const char *endpoints[GOSSIP_JOIN_MAX];
    struct gossip_peer_event event = {
        .kind = GOSSIP_PEER_EVENT_RESOLVED, .endpoints = endpoints, .endpoints_n = resolve->n};
    for (size_t i = 0; i < resolve->n; i++)
        endpoints[i] = resolve->endpoints[i];
    node->resolving = false;
    if (!node->ending) {
        if (resolve->unknown > 0)
            node_log(NODE_LOG_DEBUG, "join", "unresolved=%zu name=%s", resolve->unknown, resolve->example);
        node_step(node, &event);
        node_timer_set(node->resolve,
                       node_now_ms() + (is_alone(node) ? RESOLVE_ALONE_MS : RESOLVE_JOINED_MS));
    }
    free(resolve);
}

static void on_resolve(void *context)
{
    struct node *node = context;
    struct resolve *resolve;
    if (node->resolving)
        return;
    resolve = calloc(1, sizeof *resolve);
    if (resolve == NULL) {
        node_timer_set(node->resolve, node_now_ms() + RESOLVE_JOINED_MS);
        return;
    }
    *resolve = (struct resolve){.job = {.run = run_resolve, .done = resolved}, .node = node};
    node->resolving = true;
    node_workers_submit(node->workers, &resolve->job);
}

int node_join_init(struct node *node)
{
    int rv = node_timer_new(node->loop, on_resolve, node, &node->resolve);
    if (rv == 0 && node->config->join_n > 0)
        node_timer_set(node->resolve, 0);
    return rv;
}
