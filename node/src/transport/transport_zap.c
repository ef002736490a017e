/* What CZMQ has once per process: its context, and the ZAP handler that every CURVE handshake of it asks. The
 * handler is an actor of its own that remembers nothing: it lets every key in that got past the gate, and
 * names the connection after it. Who a key is, is hello's business; so a flood of handshakes costs this
 * thread a few microseconds each and nobody else any. */
#include "transport_internal.h"

#include "credential_internal.h"

#include <dlfcn.h>
#include <link.h>
#include <signal.h>

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define USER_ID      "User-Id"
#define SOCKETS_MAX  16384 /* links and their data twins, listeners, monitors */

static pthread_mutex_t zap_lock = PTHREAD_MUTEX_INITIALIZER;
static zactor_t *zap_actor;
static unsigned zap_users;
static bool zap_prepared;

/* libzmq built with its own tweetnacl does the same at a tenth of the speed. It says so nowhere but in what
 * it links. */
static bool zmq_uses_libsodium(void)
{
    int (*function)(const char *) = zmq_has;
    void *address;
    Dl_info info;
    struct link_map *map = NULL;
    const char *strings = NULL;
    memcpy(&address, &function, sizeof address);
    if (dladdr1(address, &info, (void **)&map, RTLD_DL_LINKMAP) == 0 || map == NULL)
        return false;
    for (const ElfW(Dyn) *entry = map->l_ld; entry->d_tag != DT_NULL; entry++)
        if (entry->d_tag == DT_STRTAB)
            strings = (const char *)entry->d_un.d_ptr;
    for (const ElfW(Dyn) *entry = map->l_ld; strings != NULL && entry->d_tag != DT_NULL; entry++)
        if (entry->d_tag == DT_NEEDED && strstr(strings + entry->d_un.d_val, "libsodium") != NULL)
            return true;
    return false;
}

/* Before the first socket, and once: CZMQ would otherwise take SIGINT and SIGTERM, and allow a thousand
 * sockets. */
static int prepare(char **ret_message)
{
    if (zap_prepared)
        return 0;
    if (sodium_init() < 0)
        return node_complain(REPLICA_E_IO, ret_message, "transport: libsodium finds no source of randomness");
    if (!zmq_has("curve") || !zmq_uses_libsodium())
        return node_complain(REPLICA_E_IO, ret_message,
                             "transport: this libzmq has no CURVE by libsodium; install one that has");
    zsys_handler_set(NULL);
    zsys_init();
    zsys_set_io_threads(NODE_IO_THREADS);
    zsys_set_max_sockets(SOCKETS_MAX);
    zsys_set_linger(0);
    zap_prepared = true;
    return 0;
}

static void answer(zsock_t *handler, const char *request_id, size_t request_id_n, const uint8_t *key)
{
    char user[2 * NODE_CURVE_KEY_SIZE + 1] = "";
    zmsg_t *reply = zmsg_new();
    if (key != NULL)
        sodium_bin2hex(user, sizeof user, key, NODE_CURVE_KEY_SIZE);
    zmsg_addstr(reply, "1.0");
    zmsg_addmem(reply, request_id, request_id_n);
    zmsg_addstr(reply, key != NULL ? "200" : "400");
    zmsg_addstr(reply, key != NULL ? "OK" : "not for this handler");
    zmsg_addstr(reply, user);
    zmsg_addmem(reply, NULL, 0);
    zmsg_send(&reply, handler);
}

/* A request: version, request id, domain, address, routing id, mechanism, credentials. */
static void serve(zsock_t *handler)
{
    zmsg_t *request = zmsg_recv(handler);
    zframe_t *frames[7] = {NULL};
    const uint8_t *key = NULL;
    if (request == NULL)
        return;
    frames[0] = zmsg_first(request);
    for (size_t i = 1; i < 7 && frames[i - 1] != NULL; i++)
        frames[i] = zmsg_next(request);
    if (frames[6] != NULL && zframe_streq(frames[2], NODE_ZAP_DOMAIN) && zframe_streq(frames[5], "CURVE") &&
        zframe_size(frames[6]) == NODE_CURVE_KEY_SIZE)
        key = zframe_data(frames[6]);
    if (frames[1] != NULL)
        answer(handler, (const char *)zframe_data(frames[1]), zframe_size(frames[1]), key);
    else
        answer(handler, "", 0, NULL);
    zmsg_destroy(&request);
}

static void zap_run(zsock_t *pipe, void *context)
{
    zsock_t *handler = zsock_new(ZMQ_REP);
    atomic_bool *ret_bound = context; /* only until the signal */
    bool bound, running;
    zpoller_t *poller;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    bound = running = handler != NULL && zsock_bind(handler, ZAP_ENDPOINT) == 0;
    atomic_store(ret_bound, bound);
    poller = running ? zpoller_new(pipe, handler, NULL) : NULL;
    zsock_signal(pipe, 0);
    while (running) {
        void *which = zpoller_wait(poller, -1);
        if (which == handler)
            serve(handler);
        else
            running = false; /* $TERM is all that the pipe ever says */
    }
    zpoller_destroy(&poller);
    if (bound) /* closing lets go of the name only some time later, and the next handler needs it */
        zsock_unbind(handler, ZAP_ENDPOINT);
    zsock_destroy(&handler);
}

int node_zap_acquire(char **ret_message)
{
    atomic_bool bound = false;
    int code;
    pthread_mutex_lock(&zap_lock);
    code = prepare(ret_message);
    if (code == 0 && zap_users == 0) {
        zap_actor = zactor_new(zap_run, &bound);
        if (zap_actor == NULL || !atomic_load(&bound)) {
            zactor_destroy(&zap_actor);
            code = node_complain(REPLICA_E_IO, ret_message, "transport: cannot serve " ZAP_ENDPOINT ": %s",
                                 zmq_strerror(zmq_errno()));
        }
    }
    if (code == 0)
        zap_users++;
    pthread_mutex_unlock(&zap_lock);
    return code;
}

void node_zap_release(void)
{
    pthread_mutex_lock(&zap_lock);
    if (--zap_users == 0)
        zactor_destroy(&zap_actor);
    pthread_mutex_unlock(&zap_lock);
}

int node_zap_user(zmq_msg_t *message, uint8_t ret_key[NODE_CURVE_KEY_SIZE])
{
    const char *user = zmq_msg_gets(message, USER_ID);
    size_t n;
    if (user == NULL || strlen(user) != 2 * NODE_CURVE_KEY_SIZE ||
        sodium_hex2bin(ret_key, NODE_CURVE_KEY_SIZE, user, 2 * NODE_CURVE_KEY_SIZE, NULL, &n, NULL) != 0 ||
        n != NODE_CURVE_KEY_SIZE)
        return REPLICA_E_NOTFOUND;
    return 0;
}
