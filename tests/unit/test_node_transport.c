/* Two and three transports in one process: what is sent arrives, in order, from whom it says, whatever the other channel does;
 * restarts, recycled addresses, full queues and unreachable peers behave as transport.h promises. */
#include "transport_fixture.h"

#include <signal.h>

#define MIB ((size_t)1 << 20)

static void messages_arrive_in_order_both_ways(void **state)
{
    struct end a, b;
    (void)state;
    start(&a, key_file("key"));
    start(&b, key_file("key"));
    for (uint32_t i = 1; i <= 1000; i++) {
        tell(&a, &b, CONTROL, i, 100);
        tell(&b, &a, CONTROL, i, 5000);
        tell(&b, &a, DATA, i, 60000); /* all of them fit into the queue */
    }
    wait_received(&b, CONTROL, 1000);
    wait_received(&a, CONTROL, 1000);
    wait_received(&a, DATA, 1000);
    assert_true(in_order(&a) && in_order(&b));
    assert_from(&b, &a.options.hello.store);
    assert_int_equal(sender(&b).role, GOSSIP_ROLE_VOTER);
    assert_int_equal(stats(&a).dropped + stats(&b).dropped, 0);
    close_end(&a);
    close_end(&b);
}

/* The greatest sizes pass, one byte more is refused, and nothing is too. */
static void sizes_have_limits(void **state)
{
    struct end a, b;
    const char *there;
    (void)state;
    start(&a, key_file("key"));
    start(&b, key_file("key"));
    there = node_transport_endpoint(b.transport);
    tell(&a, &b, CONTROL, 1, NODE_CONTROL_MESSAGE_MAX);
    tell(&a, &b, DATA, 1, NODE_DATA_MESSAGE_MAX);
    wait_received(&b, CONTROL, 1);
    wait_received(&b, DATA, 1);
    assert_int_equal(received_bytes(&b, CONTROL), NODE_CONTROL_MESSAGE_MAX);
    assert_int_equal(received_bytes(&b, DATA), NODE_DATA_MESSAGE_MAX);
    assert_int_equal(send_number(&a, there, CONTROL, &b.options.hello.store, 1, NODE_CONTROL_MESSAGE_MAX + 1),
                     REPLICA_E_INVALID);
    assert_int_equal(send_number(&a, there, DATA, &b.options.hello.store, 1, NODE_DATA_MESSAGE_MAX + 1),
                     REPLICA_E_INVALID);
    assert_int_equal(node_transport_send(a.transport, CONTROL, &b.options.hello.store, there, malloc(1), 0),
                     REPLICA_E_INVALID);
    close_end(&a);
    close_end(&b);
}

static void what_is_no_address_is_invalid(void **state)
{
    static const char *const wrong[] = {"",
                                        "127.0.0.1:7700",
                                        "ipc:///tmp/x",
                                        "tcp://127.0.0.1",
                                        "tcp://127.0.0.1:0",
                                        "tcp://127.0.0.1:65535",
                                        "tcp://127.0.0.1:7700x",
                                        "tcp://:7700",
                                        "tcp://*:7700",
                                        "tcp://::1:7700",
                                        "tcp://a b:7700",
                                        "tcp://10.0.0.1;10.0.0.2:7700"};
    struct end a;
    struct replica_id store = {{1}};
    (void)state;
    start(&a, key_file("key"));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(send_number(&a, wrong[i], CONTROL, &store, 1, 4), REPLICA_E_INVALID);
    assert_int_equal(stats(&a).links, 0);
    close_end(&a);
}

/* MiBs go one way and their window is refilled; meanwhile small messages go to and fro, one at a time. */
static void bulk_and_round_trips(bool plain, uint32_t chunks)
{
    struct end a, b;
    uint32_t sent = 0, trips = 0;
    prepare(&a, key_file("key"));
    prepare(&b, key_file("key"));
    a.options.data_plain = b.options.data_plain = plain;
    b.echo = &a;
    open_end(&a);
    open_end(&b);
    while (received(&b, DATA) < chunks) {
        if (sent < chunks && sent < received(&b, DATA) + 32)
            tell(&a, &b, DATA, ++sent, MIB);
        else if (received(&a, CONTROL) == trips)
            tell(&a, &b, CONTROL, ++trips, 100);
        else
            usleep(50);
    }
    wait_received(&a, CONTROL, trips);
    assert_true(trips > 50); /* hundreds, in truth: control did not wait for the bulk to pass */
    assert_true(in_order(&a) && in_order(&b));
    assert_int_equal(received_bytes(&b, DATA), chunks * MIB);
    assert_int_equal(stats(&a).dropped + stats(&b).dropped, 0);
    close_end(&b);
    close_end(&a);
}

static void bulk_does_not_stop_control(void **state)
{
    (void)state;
    bulk_and_round_trips(false, 1000);
}

static void bulk_may_be_plain(void **state)
{
    (void)state;
    bulk_and_round_trips(true, 1000);
}

static void a_name_is_looked_up(void **state)
{
    struct end a, b;
    char by_name[64];
    (void)state;
    start(&a, key_file("key"));
    start(&b, key_file("key"));
    snprintf(by_name, sizeof by_name, "tcp://localhost%s", strrchr(b.listen, ':'));
    assert_int_equal(send_number(&a, by_name, CONTROL, &b.options.hello.store, 1, 100), 0);
    wait_received(&b, CONTROL, 1);
    assert_int_equal(
        send_number(&a, "tcp://no-such-host.invalid:7700", CONTROL, &b.options.hello.store, 1, 100), 0);
    wait_dropped(&a, 1);
    close_end(&a);
    close_end(&b);
}

static void whoever_answers_there_gets_what_is_for_nobody(void **state)
{
    struct end a, b;
    struct replica_id anybody = {{0}};
    (void)state;
    start(&a, key_file("key"));
    start(&b, key_file("key"));
    assert_int_equal(send_number(&a, b.listen, CONTROL, &anybody, 1, 100), 0);
    wait_received(&b, CONTROL, 1);
    assert_int_equal(send_number(&a, a.listen, CONTROL, &anybody, 1, 100), 0); /* a node may meet itself */
    wait_received(&a, CONTROL, 1);
    assert_from(&a, &a.options.hello.store);
    close_end(&a);
    close_end(&b);
}

static void the_role_is_in_the_principal(void **state)
{
    struct gossip_principal from;
    struct end a, b;
    (void)state;
    start(&a, key_file("key"));
    start(&b, credential_file("cache", GOSSIP_ROLE_CACHE, "models:ro", 0));
    for (int channel = 0; channel < 2; channel++) {
        tell(&b, &a, (enum node_channel)channel, 1, 100);
        wait_received(&a, (enum node_channel)channel, 1);
        from = sender(&a);
        assert_int_equal(from.role, GOSSIP_ROLE_CACHE);
        assert_true(gossip_principal_may(&from, "models", false));
        assert_false(gossip_principal_may(&from, "models", true));
    }
    tell(&a, &b, CONTROL, 1, 100);
    wait_received(&b, CONTROL, 1);
    assert_int_equal(sender(&b).role, GOSSIP_ROLE_VOTER);
    close_end(&a);
    close_end(&b);
}

static void a_full_queue_says_so(void **state)
{
    struct end a;
    struct replica_id nobody = {{9}};
    size_t taken = 0;
    (void)state;
    start(&a, key_file("key"));
    while (taken < 100 && send_number(&a, "tcp://127.0.0.1:9", DATA, &nobody, 1, MIB) == 0)
        taken++;
    assert_int_equal(taken, NODE_SEND_QUEUE_MAX / MIB);
    assert_int_equal(send_number(&a, "tcp://127.0.0.1:9", DATA, &nobody, 1, MIB), REPLICA_E_NOSPACE);
    assert_int_equal(send_number(&a, "tcp://127.0.0.1:11", DATA, &nobody, 1, MIB),
                     0); /* another peer's is not */
    assert_int_equal(send_number(&a, "tcp://127.0.0.1:9", CONTROL, &nobody, 1, 100), 0);
    close_end(&a);
}

/* What finds no link within seconds is dropped, so the queue of a dead peer does not stay full. */
static void what_waits_too_long_is_dropped(void **state)
{
    struct end a;
    struct replica_id nobody = {{9}};
    (void)state;
    start(&a, key_file("key"));
    for (int i = 0; i < 64; i++)
        assert_int_equal(send_number(&a, "tcp://127.0.0.1:9", DATA, &nobody, 1, MIB), 0);
    wait_dropped(&a, 64);
    assert_int_equal(send_number(&a, "tcp://127.0.0.1:9", DATA, &nobody, 1, MIB), 0);
    close_end(&a);
}

static void all_queues_together_have_a_limit(void **state)
{
    struct end a;
    struct replica_id nobody = {{9}};
    size_t taken = 0;
    char endpoint[64];
    int code = 0;
    (void)state;
    start(&a, key_file("key"));
    for (unsigned port = 9; code == 0 && port < 9 + 20; port++) {
        snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", port);
        for (unsigned i = 0; i < 60 && (code = send_number(&a, endpoint, DATA, &nobody, 1, MIB)) == 0; i++)
            taken++;
    }
    assert_int_equal(code, REPLICA_E_NOSPACE);
    assert_int_equal(taken, NODE_SEND_TOTAL_MAX / MIB);
    close_end(&a);
}

static void links_have_a_limit(void **state)
{
    struct end a, b;
    struct replica_id nobody = {{9}};
    char endpoint[64];
    (void)state;
    start(&a, key_file("key"));
    start(&b, key_file("key"));
    tell(&a, &b, CONTROL, 1, 100);
    wait_received(&b, CONTROL, 1);
    for (unsigned i = 0; i < NODE_LINKS_MAX + 50; i++) {
        snprintf(endpoint, sizeof endpoint, "tcp://127.1.%u.%u:9", i / 250, 1 + i % 250);
        assert_int_equal(send_number(&a, endpoint, CONTROL, &nobody, 1, 100), 0);
    }
    assert_true(stats(&a).links <= NODE_LINKS_MAX);
    tell(&a, &b, CONTROL, 2, 100); /* whose link was the longest unused, and is made anew */
    wait_received(&b, CONTROL, 2);
    close_end(&a);
    close_end(&b);
}

static void a_recycled_address_gets_nothing_of_its_former_owner(void **state)
{
    struct end a, b, c;
    (void)state;
    start(&a, key_file("key"));
    start(&b, key_file("key"));
    tell(&a, &b, CONTROL, 1, 100);
    wait_received(&b, CONTROL, 1);
    node_transport_destroy(&b.transport);
    prepare(&c, key_file("key"));
    c.options.listen = b.listen;
    open_end(&c);
    for (uint32_t i = 0; received(&c, CONTROL) == 0;
         i++) { /* a connection that broke under a message loses it */
        send_number(&a, c.listen, CONTROL, &b.options.hello.store, 100 + i, 100);
        send_number(&a, c.listen, CONTROL, &c.options.hello.store, 7, 100);
        usleep(20000);
    }
    pthread_mutex_lock(&c.lock);
    assert_int_equal(c.last[CONTROL], 7);
    pthread_mutex_unlock(&c.lock);
    close_end(&a);
    node_keyring_destroy(&b.keyring);
    close_end(&c);
}

/* The same store comes back on the same port, and another one comes in its place. Both directions go on. */
static void a_restarted_peer_is_met_again(void **state)
{
    struct end a, b;
    (void)state;
    for (int plain = 0; plain < 2; plain++) {
        prepare(&a, key_file("key"));
        prepare(&b, key_file("key"));
        a.options.data_plain = b.options.data_plain = plain == 1;
        open_end(&a);
        open_end(&b);
        for (int life = 0; life < 3; life++) {
            uint64_t control = received(&b, CONTROL), data = received(&b, DATA), back = received(&a, CONTROL);
            uint64_t deadline = node_now_ms() + DEADLINE_MS;
            while ((received(&b, CONTROL) == control || received(&b, DATA) == data ||
                    received(&a, CONTROL) == back) &&
                   node_now_ms() < deadline) {
                tell(&a, &b, CONTROL, 1, 100);
                tell(&a, &b, DATA, 1, 1000);
                tell(&b, &a, CONTROL, 1, 100);
                usleep(20000);
            }
            assert_true(node_now_ms() < deadline);
            node_transport_destroy(&b.transport);
            b.options.listen = b.listen;
            b.options.hello.generation++;
            if (life == 1)
                become_somebody(&b);
            open_end(&b);
        }
        close_end(&a);
        close_end(&b);
    }
}

static void destroy_is_quick_in_any_state(void **state)
{
    static const char *const nowhere[] = {"tcp://127.0.0.1:9", "tcp://192.0.2.1:7700",
                                          "tcp://no-such-host.invalid:1"};
    struct end a, b;
    struct replica_id nobody = {{9}};
    uint64_t began;
    (void)state;
    for (int round = 0; round < 5; round++) {
        start(&a, key_file("key"));
        start(&b, key_file("key"));
        for (size_t i = 0; i < sizeof nowhere / sizeof nowhere[0]; i++) {
            send_number(&a, nowhere[i], CONTROL, &nobody, 1, 100);
            send_number(&a, nowhere[i], DATA, &nobody, 1, MIB);
        }
        for (uint32_t i = 1; i <= 30; i++)
            tell(&a, &b, DATA, i, MIB);
        usleep((useconds_t)round * 3000); /* before, amid and after the handshakes */
        began = node_now_ms();
        node_transport_destroy(round % 2 == 0 ? &a.transport : &b.transport);
        assert_true(node_now_ms() - began < 1000);
        close_end(&a);
        close_end(&b);
    }
}

static void the_address_must_be_ours_and_free(void **state)
{
    struct end a, b;
    char *message = NULL;
    (void)state;
    start(&a, key_file("key"));
    prepare(&b, key_file("key"));
    b.options.listen = a.listen;
    assert_int_equal(node_transport_new(&b.options, &b.transport, &message), REPLICA_E_BUSY);
    assert_non_null(strstr(message, a.listen));
    free(message);
    b.options.listen = "tcp://192.0.2.1:7700"; /* nobody's: for documentation only */
    assert_int_equal(node_transport_new(&b.options, &b.transport, &message), REPLICA_E_INVALID);
    free(message);
    b.options.listen = "7700";
    assert_int_equal(node_transport_new(&b.options, &b.transport, &message), REPLICA_E_INVALID);
    free(message);
    close_end(&a);
    close_end(&b);
}

static void without_a_key_there_is_only_loopback(void **state)
{
    struct end a;
    struct replica_id anybody = {{0}};
    char *message = NULL;
    (void)state;
    prepare(&a, NULL);
    a.options.listen = "tcp://0.0.0.0:0";
    assert_int_equal(node_transport_new(&a.options, &a.transport, &message), REPLICA_E_INVALID);
    assert_non_null(strstr(message, "key"));
    free(message);
    a.options.listen = "tcp://127.0.0.1:0";
    open_end(&a);
    assert_int_equal(send_number(&a, "tcp://192.0.2.1:7700", CONTROL, &anybody, 1, 100), REPLICA_E_INVALID);
    close_end(&a);
}

static void signals_stay_whose_they_were(void **state)
{
    struct sigaction interrupt, terminate;
    struct end a;
    (void)state;
    start(&a, key_file("key"));
    assert_int_equal(sigaction(SIGINT, NULL, &interrupt), 0);
    assert_int_equal(sigaction(SIGTERM, NULL, &terminate), 0);
    assert_ptr_equal(interrupt.sa_handler, SIG_DFL);
    assert_ptr_equal(terminate.sa_handler, SIG_DFL);
    close_end(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_stay_whose_they_were),
        cmocka_unit_test(messages_arrive_in_order_both_ways),
        cmocka_unit_test(sizes_have_limits),
        cmocka_unit_test(what_is_no_address_is_invalid),
        cmocka_unit_test(bulk_does_not_stop_control),
        cmocka_unit_test(bulk_may_be_plain),
        cmocka_unit_test(a_name_is_looked_up),
        cmocka_unit_test(whoever_answers_there_gets_what_is_for_nobody),
        cmocka_unit_test(the_role_is_in_the_principal),
        cmocka_unit_test(a_full_queue_says_so),
        cmocka_unit_test(what_waits_too_long_is_dropped),
        cmocka_unit_test(all_queues_together_have_a_limit),
        cmocka_unit_test(links_have_a_limit),
        cmocka_unit_test(a_recycled_address_gets_nothing_of_its_former_owner),
        cmocka_unit_test(a_restarted_peer_is_met_again),
        cmocka_unit_test(destroy_is_quick_in_any_state),
        cmocka_unit_test(the_address_must_be_ours_and_free),
        cmocka_unit_test(without_a_key_there_is_only_loopback),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
