/* Two or three transports in one process over loopback: what is sent arrives, in order, from whom it says; strangers, other clusters and a
 * former owner's messages get nowhere. Deadlines, not delays. */
#include "transport/transport.h"

#include "loop.h"

#include <pthread.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_MS 20000

struct end {
    struct node_transport *transport;
    struct node_keyring *keyring;
    struct node_transport_options options;
    pthread_mutex_t lock;
    uint64_t received[2], bytes[2];
    uint32_t last[2];
    bool disorder;
    struct gossip_principal from;
    char log[512];
};

static char directory[] = "/tmp/remora-transport-XXXXXX";

static void on_message(void *context, enum node_channel channel, const struct gossip_principal *from, const uint8_t *bytes, size_t n)
{
    struct end *end = context;
    uint32_t number;
    pthread_mutex_lock(&end->lock);
    if (n < sizeof number)
        abort();
    memcpy(&number, bytes, sizeof number);
    end->disorder |= number <= end->last[channel] && end->received[channel] > 0;
    end->last[channel] = number;
    end->received[channel]++;
    end->bytes[channel] += n;
    end->from = *from;
    pthread_mutex_unlock(&end->lock);
}

static void on_log(void *context, int level, const char *text)
{
    struct end *end = context;
    (void)level;
    pthread_mutex_lock(&end->lock);
    snprintf(end->log, sizeof end->log, "%s", text);
    pthread_mutex_unlock(&end->lock);
}

static void prepare(struct end *end, const char *key, uint8_t store)
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
    memset(end->options.hello.store.bytes, store, REPLICA_ID_SIZE);
    crypto_box_keypair(end->options.hello.curve_public, end->options.curve_secret);
    end->options.handler.context = end;
    end->options.handler.on_message = on_message;
    end->options.handler.on_log = on_log;
}

static void open_end(struct end *end)
{
    char *message = NULL;
    int rv = node_transport_new(&end->options, &end->transport, &message);
    if (rv != 0)
        print_error("%s\n", message != NULL ? message : "(no message)");
    assert_int_equal(rv, 0);
}

static void close_end(struct end *end)
{
    node_transport_destroy(&end->transport);
    node_keyring_destroy(&end->keyring);
    pthread_mutex_destroy(&end->lock);
}

static int send_number(struct end *from, const struct end *to, enum node_channel channel, const struct replica_id *store, uint32_t number,
                       size_t n)
{
    uint8_t *bytes = calloc(1, n);
    memcpy(bytes, &number, sizeof number);
    return node_transport_send(from->transport, channel, store, node_transport_endpoint(to->transport), bytes, n);
}

static uint64_t received(struct end *end, enum node_channel channel)
{
    uint64_t n;
    pthread_mutex_lock(&end->lock);
    n = end->received[channel];
    pthread_mutex_unlock(&end->lock);
    return n;
}

static void wait_received(struct end *end, enum node_channel channel, uint64_t n)
{
    uint64_t deadline = node_now_ms() + DEADLINE_MS;
    while (received(end, channel) < n && node_now_ms() < deadline)
        usleep(1000);
    assert_int_equal(received(end, channel), n);
}

static bool wait_log(struct end *end, const char *text)
{
    uint64_t deadline = node_now_ms() + DEADLINE_MS;
    bool found = false;
    while (!found && node_now_ms() < deadline) {
        pthread_mutex_lock(&end->lock);
        found = strstr(end->log, text) != NULL;
        pthread_mutex_unlock(&end->lock);
        usleep(1000);
    }
    return found;
}

static const char *key_file(const char *name)
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

static void messages_arrive_in_order_both_ways(void **state)
{
    struct end a, b;
    (void)state;
    prepare(&a, key_file("key"), 1);
    prepare(&b, key_file("key"), 2);
    open_end(&a);
    open_end(&b);
    for (uint32_t i = 1; i <= 1000; i++) {
        assert_int_equal(send_number(&a, &b, NODE_CHANNEL_CONTROL, &b.options.hello.store, i, 100), 0);
        assert_int_equal(send_number(&b, &a, NODE_CHANNEL_CONTROL, &a.options.hello.store, i, 5000), 0);
    }
    wait_received(&b, NODE_CHANNEL_CONTROL, 1000);
    wait_received(&a, NODE_CHANNEL_CONTROL, 1000);
    assert_false(a.disorder || b.disorder);
    assert_true(replica_id_equal(&b.from.store, &a.options.hello.store));
    assert_int_equal(b.from.role, GOSSIP_ROLE_VOTER);
    close_end(&a);
    close_end(&b);
}

static void bulk_does_not_stop_control(void **state)
{
    for (int plain = 0; plain < 2; plain++) {
        struct end a, b;
        uint32_t sent = 0;
        (void)state;
        prepare(&a, key_file("key"), 1);
        prepare(&b, key_file("key"), 2);
        a.options.data_plain = b.options.data_plain = plain == 1;
        open_end(&a);
        open_end(&b);
        while (sent < 300) {
            if (sent < received(&b, NODE_CHANNEL_DATA) + 32) {
                sent++;
                assert_int_equal(send_number(&a, &b, NODE_CHANNEL_DATA, &b.options.hello.store, sent, 1 << 20), 0);
                if (sent % 10 == 0)
                    assert_int_equal(send_number(&a, &b, NODE_CHANNEL_CONTROL, &b.options.hello.store, sent, 100), 0);
            } else {
                usleep(200);
            }
        }
        wait_received(&b, NODE_CHANNEL_DATA, 300);
        wait_received(&b, NODE_CHANNEL_CONTROL, 30);
        assert_false(b.disorder);
        assert_int_equal(b.bytes[NODE_CHANNEL_DATA], 300ull << 20);
        close_end(&a);
        close_end(&b);
    }
}

static void a_full_queue_says_so(void **state)
{
    struct end a;
    struct replica_id nobody = {{9}};
    size_t taken = 0;
    (void)state;
    prepare(&a, key_file("key"), 1);
    open_end(&a);
    for (; taken < 100; taken++)
        if (node_transport_send(a.transport, NODE_CHANNEL_DATA, &nobody, "tcp://127.0.0.1:9", calloc(1, 1 << 20), 1 << 20) != 0)
            break;
    assert_int_equal(taken, NODE_SEND_QUEUE_MAX >> 20);
    close_end(&a);
}

static void a_recycled_address_gets_nothing_of_its_former_owner(void **state)
{
    struct end a, b, c;
    char listen[256];
    (void)state;
    prepare(&a, key_file("key"), 1);
    prepare(&b, key_file("key"), 2);
    prepare(&c, key_file("key"), 3);
    open_end(&a);
    open_end(&b);
    snprintf(listen, sizeof listen, "%s", node_transport_endpoint(b.transport));
    send_number(&a, &b, NODE_CHANNEL_CONTROL, &b.options.hello.store, 1, 100);
    wait_received(&b, NODE_CHANNEL_CONTROL, 1);
    node_transport_destroy(&b.transport);
    c.options.listen = listen;
    open_end(&c);
    for (uint32_t i = 0; i < 20; i++)
        send_number(&a, &c, NODE_CHANNEL_CONTROL, &b.options.hello.store, 100 + i, 100);
    while (received(&c, NODE_CHANNEL_CONTROL) == 0) { /* a connection that broke under a message loses it */
        send_number(&a, &c, NODE_CHANNEL_CONTROL, &c.options.hello.store, 200, 100);
        usleep(20000);
    }
    assert_int_equal(c.last[NODE_CHANNEL_CONTROL], 200);
    close_end(&a);
    node_keyring_destroy(&b.keyring);
    close_end(&c);
}

static void another_key_and_another_cluster_are_refused(void **state)
{
    struct end a, b, c;
    struct node_transport_stats stats;
    (void)state;
    prepare(&a, key_file("key"), 1);
    prepare(&b, key_file("other"), 2);
    prepare(&c, key_file("key"), 3);
    memset(a.options.hello.cluster.bytes, 7, REPLICA_ID_SIZE);
    memset(c.options.hello.cluster.bytes, 8, REPLICA_ID_SIZE);
    open_end(&a);
    open_end(&b);
    open_end(&c);
    send_number(&b, &a, NODE_CHANNEL_CONTROL, &a.options.hello.store, 1, 100);
    send_number(&c, &a, NODE_CHANNEL_CONTROL, &a.options.hello.store, 1, 100);
    assert_true(wait_log(&c, "another cluster"));
    node_transport_stats(a.transport, &stats);
    assert_true(stats.refused >= 1);
    assert_int_equal(received(&a, NODE_CHANNEL_CONTROL), 0);
    close_end(&a);
    close_end(&b);
    close_end(&c);
}

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) == NULL;
}

static int remove_directory(void **state)
{
    char command[300];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", directory);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_arrive_in_order_both_ways),
        cmocka_unit_test(bulk_does_not_stop_control),
        cmocka_unit_test(a_full_queue_says_so),
        cmocka_unit_test(a_recycled_address_gets_nothing_of_its_former_owner),
        cmocka_unit_test(another_key_and_another_cluster_are_refused),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
