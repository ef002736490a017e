/* The methods of docs/api.md on a real node: the node itself, volumes, views. */
#include "node_fixture.h"

/* What the node waits for, in words; "" once it is ready. */
static size_t waiting(struct fixture *fixture, struct answer *answer)
{
    struct replica_pack_reader reader;
    struct replica_buffer params;
    const char *text;
    size_t n;
    params_begin(&params, 0);
    OK(fixture, ask(fixture, "node.info", &params, answer));
    reader = value_of(answer, "waiting");
    assert_int_equal(replica_pack_read_str(&reader, 4096, &text, &n), 0);
    return n;
}

/* A node without any flag becomes a cluster of one by itself. */
static void test_node_and_cluster(void **state)
{
    struct fixture *fixture = *state;
    struct answer answer = {NULL, 0};
    struct replica_buffer params;
    for (int i = 0; waiting(fixture, &answer) > 0 && i < START_MS / 10; i++)
        poll(NULL, 0, 10);
    assert_int_equal(waiting(fixture, &answer), 0);
    assert_int_equal(number_of(&answer, "pid"), fixture->pid);
    params_begin(&params, 0);
    OK(fixture, ask(fixture, "cluster.members", &params, &answer));
    assert_int_equal(count_of(&answer, "members"), 1);
    params_begin(&params, 0);
    OK(fixture, ask(fixture, "cluster.status", &params, &answer));
    assert_int_equal(number_of(&answer, "members"), 1);
    params_begin(&params, 0);
    assert_int_equal(ask(fixture, "cluster.init", &params, &answer), REMORA_E_REFUSED); /* it has begun */
    free(answer.bytes);
}

static void name_params(struct replica_buffer *params, const char *name, size_t more)
{
    params_begin(params, 1 + more);
    params_text(params, "name", name);
}

static void test_volumes(void **state)
{
    struct fixture *fixture = *state;
    struct answer answer = {NULL, 0};
    struct replica_buffer params;
    OK(fixture, remora_volume_create(fixture->remora, "models", 2, 0));
    REFUSED(fixture, REMORA_E_EXISTS, remora_volume_create(fixture->remora, "models", 2, 0), "models");
    OK(fixture, remora_volume_create(fixture->remora, "models", 2, REMORA_IF_MISSING));
    assert_int_equal(remora_volume_create(fixture->remora, "models", 1, REMORA_IF_MISSING), REMORA_E_REFUSED);
    assert_int_equal(remora_volume_create(fixture->remora, "a/b", 2, 0), -11 /* INVALID */);
    name_params(&params, "models", 0);
    OK(fixture, ask(fixture, "volume.info", &params, &answer));
    assert_int_equal(number_of(&answer, "files"), 0);
    assert_int_equal(count_of(&answer, "voters"), 1);
    name_params(&params, "models", 1);
    params_text(&params, "new_name", "weights");
    OK(fixture, ask(fixture, "volume.rename", &params, &answer));
    name_params(&params, "models", 0);
    REFUSED(fixture, REMORA_E_NOTFOUND, ask(fixture, "volume.info", &params, &answer), "models");
    name_params(&params, "weights", 0);
    OK(fixture, ask(fixture, "volume.delete", &params, &answer));
    params_begin(&params, 0);
    OK(fixture, ask(fixture, "volume.list", &params, &answer));
    assert_int_equal(count_of(&answer, "volumes"), 0);
    name_params(&params, "weights", 0);
    OK(fixture, ask(fixture, "volume.undelete", &params, &answer));
    params_begin(&params, 0);
    OK(fixture, ask(fixture, "volume.list", &params, &answer));
    assert_int_equal(count_of(&answer, "volumes"), 1);
    free(answer.bytes);
}

/* Neither's commit publishes the other's drafts, neither's reload moves the other's snapshot. */
static void test_views_are_apart(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view a = new_volume(fixture, "v"), b = open_view(fixture, "v", "b", 0),
                       c = open_view(fixture, "v", "c", 0);
    struct remora_commit done;
    struct remora_reload moved;
    write_text(fixture, &a, "of-a", "1");
    write_text(fixture, &b, "of-b", "2");
    expect_missing(fixture, &b, "of-a");
    OK(fixture, remora_commit(fixture->remora, &b, &done));
    assert_int_equal(done.paths, 1);
    assert_int_equal(done.bytes, 1);
    remora_commit_free(&done);
    expect_text(fixture, &b, "of-b", "2"); /* its own commit, and nothing else that is new */
    expect_missing(fixture, &a, "of-b");
    reload(fixture, &c);
    expect_text(fixture, &c, "of-b", "2");
    expect_missing(fixture, &c, "of-a"); /* still a draft */
    OK(fixture, remora_commit(fixture->remora, &a, &done));
    expect_missing(fixture, &b, "of-a");
    expect_missing(fixture, &c, "of-a");
    expect_missing(fixture, &a, "of-b"); /* a commit moves no snapshot */
    OK(fixture, remora_reload(fixture->remora, &c, REMORA_RELOAD_AT_LEAST, done.token, &moved));
    remora_commit_free(&done);
    assert_true(moved.after > moved.before);
    remora_reload_free(&moved);
    expect_text(fixture, &c, "of-a", "1");
    expect_missing(fixture, &b, "of-a");
    reload(fixture, &b);
    expect_text(fixture, &b, "of-a", "1");
}

/* A reload tells what changed, and keeps drafts. */
static void test_reload_tells_and_keeps(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view a = new_volume(fixture, "v"), b = open_view(fixture, "v", NULL, 0);
    struct remora_reload moved;
    write_text(fixture, &a, "new", "1");
    write_text(fixture, &b, "mine", "2");
    commit(fixture, &a);
    OK(fixture, remora_reload(fixture->remora, &b, REMORA_RELOAD_QUORUM, NULL, &moved));
    if (!moved.more) {
        assert_int_equal(moved.changed_n, 1);
        assert_string_equal(moved.changed[0], "new");
    }
    remora_reload_free(&moved);
    expect_text(fixture, &b, "mine", "2");
    expect_text(fixture, &b, "new", "1");
}

/* The last writer wins, and is told of the version that lost. */
static void test_conflict_is_reported(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view a = new_volume(fixture, "v"), b = open_view(fixture, "v", NULL, 0);
    struct answer answer = {NULL, 0};
    struct remora_commit done;
    struct replica_buffer params;
    write_text(fixture, &a, "log", "first");
    write_text(fixture, &b, "log", "second");
    commit(fixture, &a);
    OK(fixture, remora_commit(fixture->remora, &b, &done));
    assert_int_equal(done.lost_n, 1);
    assert_string_equal(done.lost[0], "log");
    remora_commit_free(&done);
    reload(fixture, &a);
    expect_text(fixture, &a, "log", "second");
    name_params(&params, "v", 0);
    OK(fixture, ask(fixture, "volume.log", &params, &answer));
    assert_int_equal(count_of(&answer, "commits"), 2);
    name_params(&params, "v", 1);
    params_text(&params, "path", "log");
    OK(fixture, ask(fixture, "volume.history", &params, &answer));
    assert_int_equal(count_of(&answer, "versions"), 2);
    free(answer.bytes);
}

/* A label finds its view again from any connection, and after the node was killed, drafts and all. */
static void test_label_survives_kill(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view a = new_volume(fixture, "v"), again;
    struct remora_view kept = open_view(fixture, "v", "kept", 0);
    write_text(fixture, &kept, "draft", "not committed");
    write_text(fixture, &a, "gone", "with its connection");
    fixture_end(fixture, SIGKILL);
    fixture_start(fixture);
    again = open_view(fixture, "v", "kept", 0);
    assert_memory_equal(again.id, kept.id, sizeof kept.id);
    expect_text(fixture, &again, "draft", "not committed");
    commit(fixture, &again);
    a = open_view(fixture, "v", NULL, 0);
    expect_text(fixture, &a, "draft", "not committed");
    expect_missing(fixture, &a, "gone");
}

static size_t count_views(struct fixture *fixture)
{
    struct answer answer = {NULL, 0};
    struct replica_buffer params;
    size_t n;
    params_begin(&params, 0);
    OK(fixture, ask(fixture, "view.list", &params, &answer));
    n = count_of(&answer, "views");
    free(answer.bytes);
    return n;
}

/* A private view is nobody else's, and ends with its connection. */
static void test_private_views(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view mine = new_volume(fixture, "v"), theirs;
    struct remora_entry entry;
    struct remora *other = fixture_connect(fixture);
    assert_int_equal(remora_view_open(other, "v", NULL, NULL, 0, &theirs), 0);
    assert_int_equal(remora_stat(other, &mine, "", &entry), REMORA_E_NOTFOUND);
    assert_int_equal(count_views(fixture), 1);
    remora_close(&other);
    OK(fixture, remora_view_close(fixture->remora, &mine));
    assert_int_equal(remora_stat(fixture->remora, &mine, "", &entry), REMORA_E_NOTFOUND);
    assert_int_equal(count_views(fixture), 0);
}

/* Sub-paths confine, and read-only views refuse every change. */
static void test_sub_and_read_only(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view all = new_volume(fixture, "v"), below, reader;
    OK(fixture, remora_view_open(fixture->remora, "v", "deep/down", NULL, 0, &below));
    write_text(fixture, &below, "file", "text");
    commit(fixture, &below);
    reload(fixture, &all);
    expect_text(fixture, &all, "deep/down/file", "text");
    OK(fixture, remora_view_open(fixture->remora, "v", "deep", NULL, REMORA_READ_ONLY, &reader));
    expect_text(fixture, &reader, "/down/./file", "text");
    REFUSED(fixture, -15 /* READONLY */, remora_write(fixture->remora, &reader, "x", 0, "x", 1, true),
            "read-only");
    REFUSED(fixture, -15, remora_mkdir(fixture->remora, &reader, "x", 0755, false), "read-only");
    REFUSED(fixture, -15, remora_remove(fixture->remora, &reader, "down", true), "read-only");
    REFUSED(fixture, -15, remora_rename(fixture->remora, &reader, "down", "up"), "read-only");
    REFUSED(fixture, -11 /* INVALID */, remora_write(fixture->remora, &below, "../up", 0, "x", 1, true),
            "..");
}

static void hold(struct fixture *fixture, const struct remora_view *view, bool held)
{
    struct answer answer = {NULL, 0};
    struct replica_buffer params;
    params_view(&params, view, 1);
    params_bool(&params, "hold", held);
    OK(fixture, ask(fixture, "view.hold", &params, &answer));
    free(answer.bytes);
}

/* AUTO views are published when the node ends; one that is held is not, its drafts are kept, and the exit
 * status says so. */
static void test_last_commit_and_hold(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view reader = new_volume(fixture, "v"),
                       writer = open_view(fixture, "v", "writer", REMORA_AUTO);
    hold(fixture, &writer, true);
    write_text(fixture, &writer, "set", "half");
    assert_int_equal(WEXITSTATUS(fixture_end(fixture, SIGTERM)), UNFINISHED);
    fixture_start(fixture);
    reader = open_view(fixture, "v", NULL, 0);
    expect_missing(fixture, &reader, "set");
    writer = open_view(fixture, "v", "writer", REMORA_AUTO);
    hold(fixture, &writer, true);
    write_text(fixture, &writer, "set", "whole");
    hold(fixture, &writer, false);
    assert_int_equal(WEXITSTATUS(fixture_end(fixture, SIGTERM)), 0);
    fixture_start(fixture);
    reader = open_view(fixture, "v", NULL, 0);
    expect_text(fixture, &reader, "set", "whole");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_node_and_cluster),     TEST(test_volumes),
        TEST(test_views_are_apart),      TEST(test_reload_tells_and_keeps),
        TEST(test_conflict_is_reported), TEST(test_label_survives_kill),
        TEST(test_private_views),        TEST(test_sub_and_read_only),
        TEST(test_last_commit_and_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
