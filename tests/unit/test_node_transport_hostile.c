/* Strangers, the expired, other clusters and members that send garbage: refused, counted, told nothing, and of no harm to
 * the others. */
#include "transport_fixture.h"

#include "transport/transport_internal.h"

#define BAD_HANDSHAKES 100

/* A libzmq socket of its own context: somebody who speaks the transport's protocol by hand, or not at all. */
struct stranger {
    void *context, *socket;
    uint8_t public[NODE_CURVE_KEY_SIZE], secret[NODE_CURVE_KEY_SIZE];
};

/* gate: NULL for a connection without CURVE. */
static void connect_stranger(struct stranger *stranger, const uint8_t *gate, const char *endpoint)
{
    const int none = 0, wait_ms = DEADLINE_MS;
    stranger->context = zmq_ctx_new();
    stranger->socket = zmq_socket(stranger->context, ZMQ_DEALER);
    crypto_box_keypair(stranger->public, stranger->secret);
    zmq_setsockopt(stranger->socket, ZMQ_LINGER, &none, sizeof none);
    zmq_setsockopt(stranger->socket, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
    if (gate != NULL) {
        zmq_setsockopt(stranger->socket, ZMQ_CURVE_SERVERKEY, gate, NODE_CURVE_KEY_SIZE);
        zmq_setsockopt(stranger->socket, ZMQ_CURVE_PUBLICKEY, stranger->public, NODE_CURVE_KEY_SIZE);
        zmq_setsockopt(stranger->socket, ZMQ_CURVE_SECRETKEY, stranger->secret, NODE_CURVE_KEY_SIZE);
    }
    assert_int_equal(zmq_connect(stranger->socket, endpoint), 0);
}

static void close_stranger(struct stranger *stranger)
{
    zmq_close(stranger->socket);
    zmq_ctx_term(stranger->context);
}

static void gate_of(const struct end *end, uint8_t ret_public[NODE_CURVE_KEY_SIZE])
{
    uint8_t secret[NODE_CURVE_KEY_SIZE];
    node_keyring_gate(end->keyring, ret_public, secret);
}

static void say(struct stranger *stranger, const void *header, size_t header_n, const void *body, size_t n)
{
    assert_true(zmq_send(stranger->socket, header, header_n, body != NULL ? ZMQ_SNDMORE : 0) >= 0);
    if (body != NULL)
        assert_true(zmq_send(stranger->socket, body, n, 0) >= 0);
}

/* The kind of the next frame that comes back; the rest of its message is thrown away. */
static uint8_t hear(struct stranger *stranger)
{
    uint8_t header[64] = {0}, rest[NODE_HELLO_SIZE_MAX];
    int more = 0;
    size_t size = sizeof more;
    assert_true(zmq_recv(stranger->socket, header, sizeof header, 0) > 0);
    while (zmq_getsockopt(stranger->socket, ZMQ_RCVMORE, &more, &size) == 0 && more)
        assert_true(zmq_recv(stranger->socket, rest, sizeof rest, 0) >= 0);
    return header[0];
}

static void say_hello(struct stranger *stranger, const struct node_keyring *keyring,
                      const struct node_hello *hello)
{
    uint8_t header[NODE_FRAME_HELLO_SIZE] = {NODE_FRAME_HELLO};
    struct replica_buffer body;
    replica_buffer_init(&body);
    node_hello_pack(keyring, hello, &body);
    say(stranger, header, sizeof header, body.data, body.size);
    replica_buffer_close(&body);
}

static void say_message(struct stranger *stranger, const struct end *to)
{
    uint8_t header[NODE_FRAME_MESSAGE_SIZE] = {NODE_FRAME_MESSAGE};
    memcpy(header + 1, to->options.hello.store.bytes, REPLICA_ID_SIZE);
    say(stranger, header, sizeof header, "\1\0\0\0", 4);
}

static void they_still_talk(struct end *a, struct end *b)
{
    uint64_t control = received(b, CONTROL), data = received(b, DATA);
    tell(a, b, CONTROL, 1, 100);
    tell(a, b, DATA, 1, 100);
    wait_received(b, CONTROL, control + 1);
    wait_received(b, DATA, data + 1);
}

static void who_has_no_gate_does_not_get_in(void **state)
{
    struct end a;
    struct stranger strangers[2];
    uint8_t wrong[NODE_CURVE_KEY_SIZE], unused[NODE_CURVE_KEY_SIZE], frame[64];
    (void)state;
    start(&a, key_file("key"));
    crypto_box_keypair(wrong, unused);
    connect_stranger(&strangers[0], wrong, a.listen);
    connect_stranger(&strangers[1], NULL, a.listen);
    for (int i = 0; i < 2; i++)
        say(&strangers[i], "\1", 1, "x", 1);
    wait_refused(&a, 2);
    for (int i = 0; i < 2; i++)
        assert_int_equal(zmq_recv(strangers[i].socket, frame, sizeof frame, ZMQ_DONTWAIT), -1);
    wait_log(&a, "a connection from 127.0.0.1 to");
    wait_refused(&a, 6); /* they knock again and again, and that is said once */
    assert_int_equal(logged(&a, "without the cluster's key"), 1);
    assert_int_equal(stats(&a).received_bytes + stats(&a).dropped, 0); /* nothing ever came through */
    for (int i = 0; i < 2; i++)
        close_stranger(&strangers[i]);
    close_end(&a);
}

/* Who has the gate and no chain: asked who he is, refused with a reason that names nothing, and heard no further. */
static void who_has_no_chain_is_refused_at_hello(void **state)
{
    struct end a;
    struct stranger stranger;
    struct node_keyring *other;
    struct node_hello hello;
    char *message;
    uint8_t gate[NODE_CURVE_KEY_SIZE], frame[256];
    int n;
    (void)state;
    prepare(&a, key_file("key"));
    memset(a.options.hello.cluster.bytes, 7, REPLICA_ID_SIZE);
    open_end(&a);
    gate_of(&a, gate);
    connect_stranger(&stranger, gate, a.listen);
    assert_int_equal(node_keyring_load(key_file("other"), &other, &message), 0);
    hello = a.options.hello;
    memcpy(hello.curve_public, stranger.public, sizeof hello.curve_public);
    hello.store = node_identity_of(hello.curve_public);
    say_hello(&stranger, other, &hello);
    assert_int_equal(zmq_recv(stranger.socket, frame, sizeof frame, 0), 1);
    assert_int_equal(frame[0], NODE_FRAME_REFUSED);
    n = zmq_recv(stranger.socket, frame, sizeof frame, 0);
    assert_true(n > 0 && n < (int)sizeof frame);
    assert_null(memmem(frame, (size_t)n, a.options.hello.cluster.bytes, REPLICA_ID_SIZE));
    assert_null(memmem(frame, (size_t)n, a.options.hello.store.bytes, REPLICA_ID_SIZE));
    say_message(&stranger, &a);
    assert_int_equal(hear(&stranger), NODE_FRAME_STRANGER);
    assert_int_equal(received(&a, CONTROL), 0);
    assert_int_equal(stats(&a).refused, 1);
    assert_int_equal(stats(&a).dropped, 1);
    node_keyring_destroy(&other);
    close_stranger(&stranger);
    close_end(&a);
}

/* A member repeats, over its own connection, the hello that another member once said to it. */
static void a_stolen_hello_opens_nothing(void **state)
{
    struct end a, b;
    struct stranger thief;
    uint8_t gate[NODE_CURVE_KEY_SIZE];
    (void)state;
    start(&a, key_file("key"));
    start(&b, key_file("key"));
    gate_of(&a, gate);
    connect_stranger(&thief, gate, a.listen);
    say_hello(&thief, b.keyring, &b.options.hello); /* b's, with b's CURVE key, rightly signed */
    assert_int_equal(hear(&thief), NODE_FRAME_REFUSED);
    wait_log(&a, "another connection");
    they_still_talk(&b, &a);
    close_stranger(&thief);
    close_end(&a);
    close_end(&b);
}

/* A member, whatever its credential allows, speaks under no store's id but its own. */
static void nobody_takes_anothers_store(void **state)
{
    struct end a, b, impostor;
    struct replica_id store;
    (void)state;
    start(&a, key_file("key"));
    start(&b, key_file("key"));
    they_still_talk(&b, &a);
    store = b.options.hello.store;
    prepare(&impostor, credential_file("cache", GOSSIP_ROLE_CACHE, NULL, 0));
    impostor.options.hello.store = store;
    impostor.options.hello.generation = 2; /* as if b had come back */
    open_end(&impostor);
    tell(&impostor, &a, CONTROL, 1, 100);
    wait_log(&impostor, "store id");
    assert_int_equal(send_number(&a, impostor.listen, CONTROL, &store, 1, 100), 0); /* nor as who listens */
    wait_log(&a, "refused who answers");
    they_still_talk(&b, &a);
    assert_int_equal(received(&impostor, CONTROL), 0);
    close_end(&a);
    close_end(&b);
    close_end(&impostor);
}

/* A member whose hello is accepted, and who then sends what no node sends. */
static void garbage_is_dropped(void **state)
{
    static const uint8_t zeros[64];
    struct end a, b;
    struct stranger member;
    struct node_hello hello;
    uint8_t gate[NODE_CURVE_KEY_SIZE], kind;
    uint64_t garbage = 0;
    (void)state;
    start(&a, key_file("key"));
    start(&b, key_file("key"));
    gate_of(&a, gate);
    connect_stranger(&member, gate, a.listen);
    for (unsigned i = 0; i < 256; i++) { /* every kind, headers of several lengths, without and with a body */
        kind = (uint8_t)i;
        say(&member, &kind, 1, NULL, 0);
        say(&member, &kind, 1, zeros, sizeof zeros);
        garbage += 2;
    }
    for (size_t n = 2; n < sizeof zeros; n++) {
        uint8_t header[sizeof zeros] = {NODE_FRAME_MESSAGE};
        if (n == NODE_FRAME_MESSAGE_SIZE)
            continue;
        say(&member, header, n, zeros, sizeof zeros);
        garbage++;
    }
    for (int i = 0; i < 20; i++) /* twenty frames in one message */
        assert_true(zmq_send(member.socket, zeros, 1, i < 19 ? ZMQ_SNDMORE : 0) >= 0);
    wait_dropped(&a, garbage + 1);
    kind = NODE_FRAME_HELLO;
    hello = b.options.hello;
    memcpy(hello.curve_public, member.public, sizeof hello.curve_public);
    hello.store = node_identity_of(hello.curve_public);
    say_hello(&member, b.keyring, &hello);
    assert_int_equal(hear(&member), NODE_FRAME_ANSWER);
    say_message(&member, &a);
    wait_received(&a, CONTROL, 1);
    assert_from(&a, &hello.store);
    say_message(&member, &b); /* meant for another store */
    wait_dropped(&a, garbage + 2);
    they_still_talk(&b, &a);
    close_stranger(&member);
    close_end(&a);
    close_end(&b);
}

static void a_plain_data_port_believes_tokens_only(void **state)
{
    struct end a, b;
    struct stranger stranger;
    uint8_t header[NODE_FRAME_MESSAGE_PLAIN_SIZE] = {NODE_FRAME_MESSAGE};
    struct node_endpoint endpoint;
    char data[GOSSIP_ENDPOINT_MAX + 1];
    (void)state;
    prepare(&a, key_file("key"));
    prepare(&b, key_file("key"));
    a.options.data_plain = b.options.data_plain = true;
    open_end(&a);
    open_end(&b);
    they_still_talk(&b, &a);
    assert_int_equal(node_endpoint_parse(a.listen, &endpoint), 0);
    node_endpoint_format(&endpoint, endpoint.port + 1, data);
    connect_stranger(&stranger, NULL, data);
    say_hello(&stranger, b.keyring, &b.options.hello); /* not here */
    wait_dropped(&a, 1);
    memcpy(header + 1, a.options.hello.store.bytes, REPLICA_ID_SIZE);
    randombytes_buf(header + NODE_FRAME_MESSAGE_SIZE, NODE_TOKEN_SIZE);
    say(&stranger, header, sizeof header, "\1\0\0\0", 4);
    assert_int_equal(hear(&stranger), NODE_FRAME_STRANGER);
    assert_int_equal(received(&a, DATA), 1);
    they_still_talk(&b, &a);
    close_stranger(&stranger);
    close_end(&a);
    close_end(&b);
}

static void plain_and_encrypted_refuse_each_other(void **state)
{
    struct end a, b;
    (void)state;
    prepare(&a, key_file("key"));
    a.options.data_plain = true;
    open_end(&a);
    start(&b, key_file("key"));
    tell(&b, &a, CONTROL, 1, 100);
    wait_log(&b, "data-plain");
    assert_int_equal(received(&a, CONTROL), 0);
    close_end(&a);
    close_end(&b);
}

static void the_expired_are_refused(void **state)
{
    uint64_t expires = node_wall_ms() + 5000; /* enough for the talk before, on a busy machine */
    struct end a, b;
    (void)state;
    start(&a, key_file("key"));
    start(&b, credential_file("short", GOSSIP_ROLE_VOTER, NULL, expires));
    they_still_talk(&b, &a); /* not before */
    they_still_talk(&a, &b);
    assert_true(node_wall_ms() < expires);
    while (node_wall_ms() < expires)
        usleep(1000);
    tell(&b, &a, CONTROL, 2, 100); /* over the link that was accepted */
    wait_log(&b, "expired");
    wait_logged(&a, "who answers at", 2 /* channels */); /* who listens is judged alike: links to b end */
    tell(&a, &b, CONTROL, 1, 100);
    wait_log(&a, "refused who answers");
    assert_int_equal(received(&a, CONTROL), 1);
    assert_int_equal(received(&b, CONTROL), 1);
    close_end(&a);
    close_end(&b);
}

static void another_key_does_not_connect(void **state)
{
    struct end a, b;
    (void)state;
    start(&a, key_file("key"));
    start(&b, key_file("other"));
    tell(&b, &a, CONTROL, 1, 100);
    wait_refused(&a, 1);
    wait_dropped(&b, 1);
    assert_int_equal(received(&a, CONTROL), 0);
    close_end(&a);
    close_end(&b);
}

static void another_cluster_is_refused_by_name(void **state)
{
    char name[33];
    struct end a, b, fresh;
    (void)state;
    prepare(&a, key_file("key"));
    prepare(&b, key_file("key"));
    memset(a.options.hello.cluster.bytes, 0x77, REPLICA_ID_SIZE);
    memset(b.options.hello.cluster.bytes, 0x88, REPLICA_ID_SIZE);
    open_end(&a);
    open_end(&b);
    start(&fresh, key_file("key"));
    tell(&b, &a, CONTROL, 1, 100);
    replica_id_format(&a.options.hello.cluster, name);
    wait_log(&b, name); /* each side names the other's */
    wait_log(&a, name);
    replica_id_format(&b.options.hello.cluster, name);
    wait_log(&a, name);
    they_still_talk(&fresh, &a); /* who has not begun may talk to anybody with the key */
    they_still_talk(&a, &fresh);
    they_still_talk(&fresh, &b);

    node_transport_set_cluster(fresh.transport, &a.options.hello.cluster); /* now it has */
    they_still_talk(&fresh, &a);
    tell(&fresh, &b, CONTROL, 9, 100);
    wait_log(&fresh, "another cluster");
    assert_int_equal(received(&b, CONTROL), 1);
    close_end(&a);
    close_end(&b);
    close_end(&fresh);
}

static void no_version_in_common_is_refused(void **state)
{
    struct end a, b, c;
    (void)state;
    start(&a, key_file("key"));
    prepare(&b, key_file("key"));
    b.options.hello.protocol_min = NODE_PROTOCOL_MAX + 1;
    b.options.hello.protocol_max = NODE_PROTOCOL_MAX + 5;
    open_end(&b);
    prepare(&c, key_file("key"));
    c.options.hello.protocol_max = NODE_PROTOCOL_MAX + 5; /* newer, and knows ours */
    open_end(&c);
    tell(&b, &a, CONTROL, 1, 100);
    wait_log(&b, "version");
    they_still_talk(&c, &a);
    they_still_talk(&a, &c);
    close_end(&a);
    close_end(&b);
    close_end(&c);
}

/* Keys are exchanged for new ones, node by node: all speak with all, whatever each signs with. */
static void two_keys_bridge_a_rotation(void **state)
{
    struct end a, b;
    char path[300], command[1200], old[256];
    (void)state;
    snprintf(old, sizeof old, "%s", key_file("key"));
    snprintf(path, sizeof path, "%s/both", directory);
    snprintf(command, sizeof command, "umask 077; cat %s %s > %s", key_file("other"), old, path);
    assert_int_equal(system(command), 0);
    start(&b, path); /* signs and listens with the new one, knows the old */
    snprintf(command, sizeof command, "umask 077; cat %s %s > %s.2", old, key_file("other"), path);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/both.2", directory);
    start(&a, path); /* the other way round */
    for (uint64_t deadline = node_now_ms() + DEADLINE_MS;
         received(&b, CONTROL) == 0 || received(&a, CONTROL) == 0;) {
        assert_true(node_now_ms() < deadline); /* the first gate tried is the wrong one */
        tell(&a, &b, CONTROL, 1, 100);
        tell(&b, &a, CONTROL, 1, 100);
        usleep(50000);
    }
    close_end(&a);
    close_end(&b);
}

static void bad_handshakes_disturb_nobody(void **state)
{
    struct end a, b;
    struct stranger strangers[BAD_HANDSHAKES];
    uint8_t wrong[NODE_CURVE_KEY_SIZE], unused[NODE_CURVE_KEY_SIZE];
    (void)state;
    start(&b, key_file("key"));
    prepare(&a, key_file("key"));
    a.echo = &b;
    open_end(&a);
    tell(&b, &a, CONTROL, 1, 100);
    wait_received(&b, CONTROL, 1);
    crypto_box_keypair(wrong, unused);
    for (uint32_t i = 0; i < BAD_HANDSHAKES; i++) {
        connect_stranger(&strangers[i], wrong, a.listen);
        tell(&b, &a, CONTROL, i + 2, 100);
        wait_received(&b, CONTROL, i + 2);
    }
    wait_refused(&a, BAD_HANDSHAKES);
    assert_true(in_order(&a) && in_order(&b));
    assert_int_equal(stats(&b).dropped, 0);
    for (uint32_t i = 0; i < BAD_HANDSHAKES; i++)
        close_stranger(&strangers[i]);
    close_end(&b);
    close_end(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_has_no_gate_does_not_get_in),
        cmocka_unit_test(who_has_no_chain_is_refused_at_hello),
        cmocka_unit_test(a_stolen_hello_opens_nothing),
        cmocka_unit_test(nobody_takes_anothers_store),
        cmocka_unit_test(garbage_is_dropped),
        cmocka_unit_test(a_plain_data_port_believes_tokens_only),
        cmocka_unit_test(plain_and_encrypted_refuse_each_other),
        cmocka_unit_test(the_expired_are_refused),
        cmocka_unit_test(another_key_does_not_connect),
        cmocka_unit_test(another_cluster_is_refused_by_name),
        cmocka_unit_test(no_version_in_common_is_refused),
        cmocka_unit_test(two_keys_bridge_a_rotation),
        cmocka_unit_test(bad_handshakes_disturb_nobody),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
