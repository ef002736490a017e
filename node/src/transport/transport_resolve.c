/* Names of other nodes are looked up on threads of their own. libzmq would do it on the thread that serves
 * connections, where one name server that does not answer would hold up everybody. Nobody waits for a
 * look-up: whoever started it may let go of it, and it ends by itself. */
#include "transport_internal.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <signal.h>

#define LOOKUPS_MAX   16 /* at once, of the whole process; links ask again at their next tick */
#define ADDRESSES_MAX 64 /* of one name */

enum lookup_state { LOOKUP_RUNNING, LOOKUP_FOUND, LOOKUP_FAILED };

struct node_lookup {
    _Atomic unsigned references;
    _Atomic int state;
    unsigned pick;
    char host[GOSSIP_ENDPOINT_MAX + 1];
    char address[INET6_ADDRSTRLEN + 2]; /* v6 in brackets */
};

static _Atomic unsigned lookups;

bool node_endpoint_is_numeric(const struct node_endpoint *endpoint)
{
    struct in_addr v4;
    return endpoint->host[0] == '[' || inet_pton(AF_INET, endpoint->host, &v4) == 1;
}

void node_lookup_release(struct node_lookup **lookup)
{
    if (*lookup != NULL && atomic_fetch_sub(&(*lookup)->references, 1) == 1)
        free(*lookup);
    *lookup = NULL;
}

static void format(const struct addrinfo *one, char ret_address[INET6_ADDRSTRLEN + 2])
{
    const struct sockaddr_in *v4 = (const void *)one->ai_addr;
    const struct sockaddr_in6 *v6 = (const void *)one->ai_addr;
    char text[INET6_ADDRSTRLEN] = "";
    if (one->ai_family == AF_INET)
        inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
    else
        inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
    snprintf(ret_address, INET6_ADDRSTRLEN + 2, one->ai_family == AF_INET ? "%s" : "[%s]", text);
}

/* The pick'th address, IPv4 ones first; picks beyond the last begin again. */
static bool choose(const struct addrinfo *found, unsigned pick, char ret_address[INET6_ADDRSTRLEN + 2])
{
    const struct addrinfo *sorted[ADDRESSES_MAX];
    unsigned n = 0;
    for (int family = 0; family < 2; family++)
        for (const struct addrinfo *one = found; one != NULL && n < ADDRESSES_MAX; one = one->ai_next)
            if (one->ai_family == (family == 0 ? AF_INET : AF_INET6))
                sorted[n++] = one;
    if (n > 0)
        format(sorted[pick % n], ret_address);
    return n > 0;
}

static void *run(void *context)
{
    struct node_lookup *lookup = context;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    bool chosen = false;
    if (getaddrinfo(lookup->host, NULL, &hints, &found) == 0) {
        chosen = choose(found, lookup->pick, lookup->address);
        freeaddrinfo(found);
    }
    atomic_store(&lookup->state, chosen ? LOOKUP_FOUND : LOOKUP_FAILED);
    node_lookup_release(&lookup);
    atomic_fetch_sub(&lookups, 1);
    return NULL;
}

/* Signals are the main thread's, here too. */
static int start_thread(struct node_lookup *lookup)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    int rc;
    if (pthread_attr_init(&attributes) != 0)
        return -1;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    rc = pthread_create(&thread, &attributes, run, lookup);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return rc;
}

struct node_lookup *node_lookup_start(const char *host, unsigned pick)
{
    struct node_lookup *lookup = NULL;
    if (atomic_fetch_add(&lookups, 1) < LOOKUPS_MAX)
        lookup = calloc(1, sizeof *lookup);
    if (lookup != NULL) {
        atomic_init(&lookup->references, 2); /* the thread's and the caller's */
        lookup->pick = pick;
        snprintf(lookup->host, sizeof lookup->host, "%s", host);
        if (start_thread(lookup) == 0)
            return lookup;
        free(lookup);
    }
    atomic_fetch_sub(&lookups, 1);
    return NULL;
}

int node_lookup_result(struct node_lookup *lookup, char ret_host[GOSSIP_ENDPOINT_MAX + 1])
{
    int state = atomic_load(&lookup->state);
    if (state == LOOKUP_RUNNING)
        return REPLICA_E_AGAIN;
    if (state == LOOKUP_FAILED)
        return REPLICA_E_NOTFOUND;
    snprintf(ret_host, GOSSIP_ENDPOINT_MAX + 1, "%s", lookup->address);
    return 0;
}
