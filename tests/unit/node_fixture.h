/* A real node for a test: a process of its own on a directory of its own, spoken to by the C client only. */
#ifndef TESTS_UNIT_NODE_FIXTURE_H
#define TESTS_UNIT_NODE_FIXTURE_H

#include "node.h"
#include "remora/remora.h"
#include "replica/pack.h"
#include "scratch_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNFINISHED 33    /* exit status: views could not be committed at the end */
#define START_MS   20000 /* under sanitizers, on a busy machine */

struct fixture {
    char directory[SCRATCH_PATH_SIZE], data[96], socket[96], log[96];
    const char *settings[8][2]; /* of the configuration: name, value; NULL ends */
    pid_t pid;
    struct remora *remora;
};

static inline int fixture_configure(const struct fixture *fixture, struct node_config *config, char **message)
{
    int code = node_config_init(config);
    if (code == 0)
        code = node_config_set(config, "data", fixture->data, message);
    if (code == 0)
        code = node_config_set(config, "socket", fixture->socket, message);
    for (size_t i = 0; code == 0 && i < 8 && fixture->settings[i][0] != NULL; i++)
        code = node_config_set(config, fixture->settings[i][0], fixture->settings[i][1], message);
    return code;
}

static inline void fixture_child(const struct fixture *fixture)
{
    struct node_config config;
    struct node *node = NULL;
    char *message = NULL;
    size_t unfinished = 0;
    int log = open(fixture->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    dup2(log, STDERR_FILENO);
    dup2(log, STDOUT_FILENO);
    if (fixture_configure(fixture, &config, &message) != 0 || node_new(&config, &node, &message) != 0) {
        fprintf(stderr, "%s\n", message == NULL ? "no node" : message);
        _exit(99);
    }
    node_run(node, false, &unfinished);
    node_destroy(&node);
    node_config_close(&config);
    exit(unfinished > 0 ? UNFINISHED
                        : 0); /* not _exit: a sanitizer looks for leaks, and says another number */
}

static inline struct remora *fixture_connect(const struct fixture *fixture)
{
    struct remora *remora = NULL;
    char *message = NULL;
    if (remora_connect(fixture->socket, START_MS, &remora, &message) != 0) {
        print_error("%s\n", message);
        free(message);
        fail();
    }
    return remora;
}

static inline void fixture_start(struct fixture *fixture)
{
    fixture->pid = scratch_fork();
    if (fixture->pid == 0)
        fixture_child(fixture);
    fixture->remora = fixture_connect(fixture);
}

/* Ends the node by a signal; its exit status. */
static inline int fixture_end(struct fixture *fixture, int number)
{
    int status = -1;
    remora_close(&fixture->remora);
    kill(fixture->pid, number);
    assert_int_equal(waitpid(fixture->pid, &status, 0), fixture->pid);
    fixture->pid = 0;
    return status;
}

static inline struct fixture *fixture_new(void)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    scratch_make(fixture->directory);
    snprintf(fixture->data, sizeof fixture->data, "%s/data", fixture->directory);
    snprintf(fixture->socket, sizeof fixture->socket, "%s/socket", fixture->directory);
    snprintf(fixture->log, sizeof fixture->log, "%s/log", fixture->directory);
    return fixture;
}

static inline int fixture_setup(void **state)
{
    struct fixture *fixture = fixture_new();
    *state = fixture;
    fixture_start(fixture);
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *fixture = *state;
    if (fixture->pid > 0) {
        int status = fixture_end(fixture, SIGTERM);
        bool clean = WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == UNFINISHED);
        if (!clean || getenv("SHOW_LOG") != NULL) {
            char command[160];
            snprintf(command, sizeof command, "tail -n 100 %s >&2", fixture->log);
            (void)!system(command);
        }
        assert_true(clean);
    }
    scratch_remove(fixture->directory);
    free(fixture);
    return 0;
}

/* Fails the test with the node's own sentence. */
#define OK(fixture_, call_)                                                                                  \
    do {                                                                                                     \
        int code_ = (call_);                                                                                 \
        if (code_ != 0)                                                                                      \
            print_error("%s: %s\n", remora_error_symbol((fixture_)->remora),                                 \
                        remora_error((fixture_)->remora));                                                   \
        assert_int_equal(code_, 0);                                                                          \
    } while (0)
#define REFUSED(fixture_, code_, call_, word_)                                                               \
    do {                                                                                                     \
        assert_int_equal((call_), (code_));                                                                  \
        if (strstr(remora_error((fixture_)->remora), (word_)) == NULL)                                       \
            print_error("%s\n", remora_error((fixture_)->remora));                                           \
        assert_non_null(strstr(remora_error((fixture_)->remora), (word_)));                                  \
    } while (0)

/* Any method; params: closed here. The result is replaced by the next call. */
struct answer {
    void *bytes;
    size_t n;
};
static inline int ask(struct fixture *fixture, const char *method, struct replica_buffer *params,
                      struct answer *answer)
{
    int code;
    free(answer->bytes);
    *answer = (struct answer){NULL, 0};
    code = remora_call(fixture->remora, method, params->data, params->size, NULL, 0, &answer->bytes,
                       &answer->n, NULL, NULL);
    replica_buffer_close(params);
    return code;
}

/* Into a map of an answer: the value of key. */
static inline struct replica_pack_reader value_in(struct replica_pack_reader reader, const char *key)
{
    size_t n = 0;
    assert_int_equal(replica_pack_read_map(&reader, 4096, &n), 0);
    for (size_t i = 0; i < n; i++) {
        const char *text;
        size_t size;
        assert_int_equal(replica_pack_read_str(&reader, 4096, &text, &size), 0);
        if (size == strlen(key) && memcmp(text, key, size) == 0)
            return reader;
        replica_pack_skip(&reader);
    }
    fail_msg("no %s in the answer", key);
    return reader;
}

static inline struct replica_pack_reader value_of(const struct answer *answer, const char *key)
{
    struct replica_pack_reader reader;
    replica_pack_reader_init(&reader, answer->bytes, answer->n);
    return value_in(reader, key);
}

static inline uint64_t number_of(const struct answer *answer, const char *key)
{
    struct replica_pack_reader reader = value_of(answer, key);
    uint64_t value = 0;
    assert_int_equal(replica_pack_read_uint(&reader, UINT64_MAX, &value), 0);
    return value;
}

static inline size_t count_of(const struct answer *answer, const char *key)
{
    struct replica_pack_reader reader = value_of(answer, key);
    size_t n = 0;
    assert_int_equal(replica_pack_read_array(&reader, 1 << 20, &n), 0);
    return n;
}

static inline void params_begin(struct replica_buffer *params, size_t keys)
{
    replica_buffer_init(params);
    replica_pack_map(params, keys);
}
static inline void params_text(struct replica_buffer *params, const char *key, const char *value)
{
    replica_pack_cstr(params, key);
    replica_pack_cstr(params, value);
}
static inline void params_number(struct replica_buffer *params, const char *key, uint64_t value)
{
    replica_pack_cstr(params, key);
    replica_pack_uint(params, value);
}
static inline void params_bool(struct replica_buffer *params, const char *key, bool value)
{
    replica_pack_cstr(params, key);
    replica_pack_bool(params, value);
}
static inline void params_view(struct replica_buffer *params, const struct remora_view *view, size_t more)
{
    params_begin(params, 1 + more);
    replica_pack_cstr(params, "view");
    replica_pack_bin(params, view->id, 16);
}

static inline struct remora_view open_view(struct fixture *fixture, const char *volume, const char *label,
                                           unsigned flags)
{
    struct remora_view view;
    OK(fixture, remora_view_open(fixture->remora, volume, NULL, label, flags, &view));
    return view;
}

static inline struct remora_view new_volume(struct fixture *fixture, const char *name)
{
    OK(fixture, remora_volume_create(fixture->remora, name, 2, 0));
    return open_view(fixture, name, NULL, 0);
}

static inline void commit(struct fixture *fixture, const struct remora_view *view)
{
    struct remora_commit done;
    OK(fixture, remora_commit(fixture->remora, view, &done));
    remora_commit_free(&done);
}

static inline void reload(struct fixture *fixture, const struct remora_view *view)
{
    struct remora_reload done;
    OK(fixture, remora_reload(fixture->remora, view, REMORA_RELOAD_QUORUM, NULL, &done));
    remora_reload_free(&done);
}

static inline void write_text(struct fixture *fixture, const struct remora_view *view, const char *path,
                              const char *text)
{
    OK(fixture, remora_write(fixture->remora, view, path, 0, text, strlen(text), true));
}

static inline void expect_text(struct fixture *fixture, const struct remora_view *view, const char *path,
                               const char *text)
{
    char bytes[4096];
    size_t n = 0;
    OK(fixture, remora_read(fixture->remora, view, path, 0, bytes, sizeof bytes - 1, &n));
    bytes[n] = '\0';
    assert_string_equal(bytes, text);
}

static inline void expect_missing(struct fixture *fixture, const struct remora_view *view, const char *path)
{
    struct remora_entry entry;
    assert_int_equal(remora_stat(fixture->remora, view, path, &entry), REMORA_E_NOTFOUND);
}

#endif
