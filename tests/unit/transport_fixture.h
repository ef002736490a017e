/* What the tests of the transport share: ends over loopback that count what they receive. Deadlines, not delays. */
#ifndef TESTS_UNIT_TRANSPORT_FIXTURE_H
#define TESTS_UNIT_TRANSPORT_FIXTURE_H

#include "transport/transport.h"

#include "identity.h"
#include "loop.h"
#include "scratch_support.h"

#include <pthread.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_MS 60000 /* under sanitizers, on a busy machine */
#define CONTROL     NODE_CHANNEL_CONTROL
#define DATA        NODE_CHANNEL_DATA
#define LOG_MAX     8192

struct end {
    struct node_transport *transport;
    struct node_keyring *keyring;
    struct node_transport_options options;
    char listen[GOSSIP_ENDPOINT_MAX + 1];
    struct end *echo; /* what comes in on control goes back to this end; set before this one is opened */
    pthread_mutex_t lock;
    uint64_t received[2], bytes[2]; /* by channel */
    uint32_t last[2];
    bool disorder;
    struct gossip_principal from;
    char log[LOG_MAX];
};

static char directory[SCRATCH_PATH_SIZE];

static inline int send_number(struct end *from, const char *endpoint, enum node_channel channel,
                              const struct replica_id *store, uint32_t number, size_t n)
{
    uint8_t *bytes = calloc(1, n);
    memcpy(bytes, &number, sizeof number);
    return node_transport_send(from->transport, channel, store, endpoint, bytes, n);
}

/* To the store that is there. */
static inline void tell(struct end *from, struct end *to, enum node_channel channel, uint32_t number,
                        size_t n)
{
    assert_int_equal(send_number(from, to->listen, channel, &to->options.hello.store, number, n), 0);
}

static inline void on_message(void *context, enum node_channel channel, const struct gossip_principal *from,
                              const uint8_t *bytes, size_t n)
{
    struct end *end = context;
    uint32_t number;
    assert_true(n >= sizeof number);
    memcpy(&number, bytes, sizeof number);
    pthread_mutex_lock(&end->lock);
    end->disorder |= number <= end->last[channel] && end->received[channel] > 0;
    end->last[channel] = number;
    end->received[channel]++;
    end->bytes[channel] += n;
    end->from = *from;
    pthread_mutex_unlock(&end->lock);
    if (end->echo != NULL && channel == CONTROL)
        tell(end, end->echo, CONTROL, number, n);
}

/* Keeps the first LOG_MAX bytes. */
static inline void on_log(void *context, int level, const char *text)
{
    struct end *end = context;
    (void)level;
    pthread_mutex_lock(&end->lock);
    snprintf(end->log + strlen(end->log), sizeof end->log - strlen(end->log), "%s\n", text);
    pthread_mutex_unlock(&end->lock);
}

static inline const char *key_file(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (access(path, F_OK) != 0) {
        struct node_keygen_options options = {.path = path};
        char *message = NULL;
        assert_int_equal(node_keygen(&options, &message), 0);
    }
    return path;
}

static inline const char *credential_file(const char *name, enum gossip_role role, const char *volume,
                                          uint64_t expires_ms)
{
    static char path[256];
    char *message = NULL, *from = strdup(key_file("key"));
    struct node_keygen_options options = {.path = path,
                                          .from = from,
                                          .role = role,
                                          .volumes = &volume,
                                          .volumes_n = volume != NULL,
                                          .expires_ms = expires_ms};
    snprintf(path, sizeof path, "%s/%s", directory, name);
    unlink(path);
    assert_int_equal(node_keygen(&options, &message), 0);
    free(from);
    return path;
}

/* A store of its own. */
static inline void become_somebody(struct end *end)
{
    crypto_box_keypair(end->options.hello.curve_public, end->options.curve_secret);
    end->options.hello.store = node_identity_of(end->options.hello.curve_public);
}

/* An end with that key file (NULL: none), not yet listening. */
static inline void prepare(struct end *end, const char *key)
{
    char *message = NULL;
    memset(end, 0, sizeof *end);
    pthread_mutex_init(&end->lock, NULL);
    assert_int_equal(node_keyring_load(key, &end->keyring, &message), 0);
    end->options.listen = "tcp://127.0.0.1:0";
    end->options.keyring = end->keyring;
    end->options.hello.protocol_min = NODE_PROTOCOL_MIN;
    end->options.hello.protocol_max = NODE_PROTOCOL_MAX;
    end->options.hello.generation = 1;
    become_somebody(end);
    end->options.handler.context = end;
    end->options.handler.on_message = on_message;
    end->options.handler.on_log = on_log;
}

static inline void open_end(struct end *end)
{
    struct node_transport *transport = NULL;
    char *message = NULL;
    int code = node_transport_new(&end->options, &transport, &message);
    if (code != 0)
        print_error("%s\n", message != NULL ? message : "(no message)");
    assert_int_equal(code, 0);
    pthread_mutex_lock(&end->lock); /* its callbacks may run already */
    end->transport = transport;
    snprintf(end->listen, sizeof end->listen, "%s", node_transport_endpoint(transport));
    pthread_mutex_unlock(&end->lock);
}

static inline void start(struct end *end, const char *key)
{
    prepare(end, key);
    open_end(end);
}

static inline void close_end(struct end *end)
{
    node_transport_destroy(&end->transport);
    node_keyring_destroy(&end->keyring);
    pthread_mutex_destroy(&end->lock);
}

static inline uint64_t received(struct end *end, enum node_channel channel)
{
    uint64_t n;
    pthread_mutex_lock(&end->lock);
    n = end->received[channel];
    pthread_mutex_unlock(&end->lock);
    return n;
}

static inline uint64_t received_bytes(struct end *end, enum node_channel channel)
{
    uint64_t n;
    pthread_mutex_lock(&end->lock);
    n = end->bytes[channel];
    pthread_mutex_unlock(&end->lock);
    return n;
}

/* Who sent the last message. */
static inline struct gossip_principal sender(struct end *end)
{
    struct gossip_principal from;
    pthread_mutex_lock(&end->lock);
    from = end->from;
    pthread_mutex_unlock(&end->lock);
    return from;
}

static inline void assert_from(struct end *end, const struct replica_id *store)
{
    struct gossip_principal from = sender(end);
    assert_true(replica_id_equal(&from.store, store));
}

static inline bool in_order(struct end *end)
{
    bool ordered;
    pthread_mutex_lock(&end->lock);
    ordered = !end->disorder;
    pthread_mutex_unlock(&end->lock);
    return ordered;
}

static inline void wait_received(struct end *end, enum node_channel channel, uint64_t n)
{
    uint64_t deadline = node_now_ms() + DEADLINE_MS;
    while (received(end, channel) < n && node_now_ms() < deadline)
        usleep(500);
    assert_int_equal(received(end, channel), n);
}

/* How often. */
static inline unsigned logged(struct end *end, const char *text)
{
    unsigned n = 0;
    pthread_mutex_lock(&end->lock);
    for (const char *at = end->log; (at = strstr(at, text)) != NULL; at++)
        n++;
    pthread_mutex_unlock(&end->lock);
    return n;
}

static inline void wait_logged(struct end *end, const char *text, unsigned times)
{
    uint64_t deadline = node_now_ms() + DEADLINE_MS;
    while (logged(end, text) < times && node_now_ms() < deadline)
        usleep(500);
    if (logged(end, text) < times)
        print_error("\"%s\" is not %u times in:\n%s", text, times, end->log);
    assert_true(logged(end, text) >= times);
}

static inline void wait_log(struct end *end, const char *text)
{
    wait_logged(end, text, 1);
}

static inline struct node_transport_stats stats(struct end *end)
{
    struct node_transport_stats now;
    node_transport_stats(end->transport, &now);
    return now;
}

static inline void wait_dropped(struct end *end, uint64_t n)
{
    uint64_t deadline = node_now_ms() + DEADLINE_MS;
    while (stats(end).dropped < n && node_now_ms() < deadline)
        usleep(500);
    assert_int_equal(stats(end).dropped, n);
}

static inline void wait_refused(struct end *end, uint64_t at_least)
{
    uint64_t deadline = node_now_ms() + DEADLINE_MS;
    while (stats(end).refused < at_least && node_now_ms() < deadline)
        usleep(500);
    assert_true(stats(end).refused >= at_least);
}

static inline int make_directory(void **state)
{
    (void)state;
    scratch_make(directory);
    return sodium_init() < 0;
}

static inline int remove_directory(void **state)
{
    (void)state;
    scratch_remove(directory);
    return 0;
}

#endif
