/* remora cluster …, remora wait */
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/json.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TEXT        256
#define POLL_MS     200 /* between two looks while waiting: soon enough for a person */
#define VOTERS_TEXT 512

static int call_plain(struct cli *cli, const char *method, struct cli_result *ret_result)
{
    struct replica_buffer params;
    int code = cli_connect(cli);
    *ret_result = (struct cli_result){0};
    if (code != 0)
        return code;
    replica_buffer_init(&params);
    replica_pack_map(&params, 0);
    return cli_call(cli, method, &params, NULL, ret_result);
}

static void print_json(const struct cli_result *result)
{
    struct replica_pack_reader reader;
    struct cli_json json;
    cli_result_reader(result, &reader);
    cli_json_init(&json, stdout);
    cli_json_item(&json, &reader);
    cli_json_close(&json);
}

static void get_id(const struct replica_pack_reader *map, const char *key, char ret_text[33])
{
    struct replica_pack_reader value;
    struct replica_id id;
    ret_text[0] = '\0';
    if (cli_find(map, key, &value) && replica_pack_read_id(&value, &id) == 0)
        replica_id_format(&id, ret_text);
}

int cli_verb_cluster_init(struct cli *cli)
{
    struct replica_pack_reader map;
    struct cli_result result;
    char cluster[33];
    int code = call_plain(cli, "cluster.init", &result);
    if (code == 0 && cli->json) {
        print_json(&result);
    } else if (code == 0) {
        cli_result_reader(&result, &map);
        get_id(&map, "cluster", cluster);
        cli_say(cli, "the cluster %s has begun; other nodes with its key come in by --join", cluster);
    }
    cli_result_close(&result);
    return code;
}

static void print_member(const struct replica_pack_reader *map)
{
    char name[TEXT], state[TEXT], zone[TEXT], version[TEXT], endpoint[TEXT];
    struct replica_pack_reader roles;
    const char *role;
    size_t n, size;
    cli_get_text(map, "name", name, sizeof name);
    cli_get_text(map, "state", state, sizeof state);
    cli_get_text(map, "zone", zone, sizeof zone);
    cli_get_text(map, "version", version, sizeof version);
    cli_get_text(map, "endpoint", endpoint, sizeof endpoint);
    printf("%-20s  %-7s  %-10s  %-8s  %-28s  ", name, state, zone[0] != '\0' ? zone : "-", version, endpoint);
    n = cli_get_array(map, "roles", &roles);
    for (size_t i = 0; i < n && replica_pack_read_str(&roles, TEXT, &role, &size) == 0; i++)
        printf("%s%.*s", i > 0 ? "," : "", (int)size, role);
    printf("%s%s\n", n == 0 ? "-" : "", cli_get_bool(map, "self") ? "  (this node)" : "");
}

int cli_verb_cluster_members(struct cli *cli)
{
    struct replica_pack_reader map, reader;
    struct cli_result result;
    int code = call_plain(cli, "cluster.members", &result);
    if (code == 0 && cli->json) {
        print_json(&result);
    } else if (code == 0) {
        size_t n;
        cli_result_reader(&result, &map);
        n = cli_get_array(&map, "members", &reader);
        if (cli->terminal)
            printf("%-20s  %-7s  %-10s  %-8s  %-28s  %s\n", "NAME", "STATE", "ZONE", "VERSION", "ADDRESS",
                   "ROLES");
        for (size_t i = 0; i < n; i++) {
            struct replica_pack_reader item = reader;
            replica_pack_skip(&reader);
            print_member(&item);
        }
    }
    cli_result_close(&result);
    return code;
}

/* cluster status */

static bool voters_are_alive(const struct replica_pack_reader *volume)
{
    struct replica_pack_reader voters;
    size_t n = cli_get_array(volume, "voters", &voters);
    for (size_t i = 0; i < n; i++) {
        char state[TEXT];
        cli_get_text(&voters, "state", state, sizeof state);
        replica_pack_skip(&voters);
        if (strcmp(state, "alive") != 0)
            return false;
    }
    return true;
}

/* Whether nothing is left to wait for: the cluster has begun, every voter is alive, and what is committed is
 * applied here. */
static bool is_settled(const struct cli_result *result)
{
    struct replica_pack_reader map, volumes;
    char waiting[TEXT];
    size_t n;
    cli_result_reader(result, &map);
    cli_get_text(&map, "waiting", waiting, sizeof waiting);
    if (waiting[0] != '\0' || !cli_find(&map, "leader", &volumes))
        return false;
    n = cli_get_array(&map, "volumes", &volumes);
    for (size_t i = 0; i < n; i++) {
        struct replica_pack_reader volume = volumes;
        replica_pack_skip(&volumes);
        if (!voters_are_alive(&volume) || cli_get_number(&volume, "pending") > 0 ||
            cli_get_number(&volume, "applied") != cli_get_number(&volume, "committed"))
            return false;
    }
    return true;
}

static void print_volume(const struct replica_pack_reader *volume)
{
    struct replica_pack_reader voters;
    char name[TEXT], state[TEXT];
    uint64_t committed = cli_get_number(volume, "committed"), applied = cli_get_number(volume, "applied");
    size_t n;
    cli_get_text(volume, "name", name, sizeof name);
    printf("volume %s: %llu commits, %llu to apply here, %llu pending; voters", name,
           (unsigned long long)committed, (unsigned long long)(committed > applied ? committed - applied : 0),
           (unsigned long long)cli_get_number(volume, "pending"));
    n = cli_get_array(volume, "voters", &voters);
    for (size_t i = 0; i < n; i++) {
        cli_get_text(&voters, "name", name, sizeof name);
        cli_get_text(&voters, "state", state, sizeof state);
        replica_pack_skip(&voters);
        printf(" %s (%s)", name, state);
    }
    printf("\n");
}

static void print_transfers(const struct replica_pack_reader *map)
{
    struct replica_pack_reader contents, fetches;
    char held[CLI_SIZE_TEXT], sent[CLI_SIZE_TEXT], received[CLI_SIZE_TEXT];
    cli_format_size(cli_get_number(map, "sent_bytes"), sent);
    cli_format_size(cli_get_number(map, "received_bytes"), received);
    if (cli_find(map, "contents", &contents)) {
        cli_format_size(cli_get_number(&contents, "bytes"), held);
        printf("contents here: %llu, %s\n", (unsigned long long)cli_get_number(&contents, "count"), held);
    }
    if (cli_find(map, "fetches", &fetches))
        printf("fetches: %llu active, %llu waiting, %llu stalled\n",
               (unsigned long long)cli_get_number(&fetches, "active"),
               (unsigned long long)cli_get_number(&fetches, "waiting"),
               (unsigned long long)cli_get_number(&fetches, "stalled"));
    printf("sent %s, received %s\n", sent, received);
}

static void print_status(const struct cli_result *result)
{
    struct replica_pack_reader map, volumes;
    char cluster[33], text[TEXT];
    size_t n;
    cli_result_reader(result, &map);
    get_id(&map, "cluster", cluster);
    cli_get_text(&map, "waiting", text, sizeof text);
    printf("cluster %s%s%s\n", cluster[0] != '\0' ? cluster : "not begun", text[0] != '\0' ? ": " : "", text);
    cli_get_text(&map, "leader", text, sizeof text);
    printf("leader of the control log: %s\n", text[0] != '\0' ? text : "none");
    printf("members alive: %llu\n", (unsigned long long)cli_get_number(&map, "members"));
    n = cli_get_array(&map, "volumes", &volumes);
    for (size_t i = 0; i < n; i++) {
        struct replica_pack_reader volume = volumes;
        replica_pack_skip(&volumes);
        print_volume(&volume);
    }
    print_transfers(&map);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static int status(struct cli *cli, struct cli_result *result)
{
    int64_t until_ms = now_ms() + cli->timeout_ms;
    int code = call_plain(cli, "cluster.status", result);
    while (code == 0 && cli_flag(cli, "wait") && !is_settled(result)) {
        if (now_ms() >= until_ms)
            return cli_fail(CLI_UNAVAILABLE,
                            "not settled after %u s; `remora cluster status` tells what is missing",
                            (unsigned)(cli->timeout_ms / 1000));
        poll(NULL, 0, POLL_MS);
        if (cli_interrupted())
            return cli_fail(CLI_INTERRUPTED, "interrupted");
        cli_result_close(result);
        code = call_plain(cli, "cluster.status", result);
    }
    return code;
}

int cli_verb_cluster_status(struct cli *cli)
{
    struct cli_result result;
    int code = status(cli, &result);
    if (code == 0 && cli->json)
        print_json(&result);
    else if (code == 0)
        print_status(&result);
    cli_result_close(&result);
    return code;
}

/* wait */

/* The node has begun, or joined, its cluster. 0, or an exit code; *ret_ready tells. */
static int look(struct cli *cli, char *ret_waiting, size_t size)
{
    struct replica_pack_reader map;
    struct cli_result result;
    int code = call_plain(cli, "node.info", &result);
    if (code == 0) {
        cli_result_reader(&result, &map);
        cli_get_text(&map, "waiting", ret_waiting, size);
    }
    cli_result_close(&result);
    return code;
}

/* Errors that time may mend. */
static bool may_pass(int error)
{
    return error == REPLICA_E_NOTFOUND || error == REPLICA_E_UNAVAILABLE || error == REPLICA_E_BUSY;
}

static int try_volume(struct cli *cli, const char *volume, int64_t left_ms)
{
    struct remora_view view;
    struct remora_entry root;
    int error;
    remora_set_timeout(cli->remora, left_ms > 0 ? (uint32_t)left_ms : 1);
    error = remora_view_open(cli->remora, volume, NULL, NULL, REMORA_READ_ONLY, &view);
    if (error != 0)
        return error;
    error = remora_stat(cli->remora, &view, "", &root);
    if (error == 0)
        remora_entry_free(&root);
    (void)remora_view_close(cli->remora, &view); /* else it ends with the connection */
    return error;
}

static int wait_step(struct cli *cli, const char *volume, int64_t left_ms, bool *ret_done)
{
    char waiting[TEXT];
    int error = 0, code = look(cli, waiting, sizeof waiting);
    *ret_done = false;
    if (code != 0)
        return code;
    if (waiting[0] == '\0' && volume != NULL)
        error = try_volume(cli, volume, left_ms);
    if (error != 0 && !may_pass(error))
        return cli_fail_call(cli, error, volume);
    *ret_done = waiting[0] == '\0' && error == 0;
    if (!*ret_done && left_ms <= 0)
        return cli_fail(CLI_UNAVAILABLE, "not ready after %u s: %s", (unsigned)(cli->timeout_ms / 1000),
                        waiting[0] != '\0' ? waiting : remora_error(cli->remora));
    return 0;
}

int cli_verb_wait(struct cli *cli)
{
    const char *volume = cli_text(cli, "volume");
    int64_t until_ms = now_ms() + cli->timeout_ms;
    bool done = false;
    int code = 0;
    while (code == 0 && !done) {
        code = wait_step(cli, volume, until_ms - now_ms(), &done);
        if (code == 0 && !done)
            poll(NULL, 0, POLL_MS);
        if (cli_interrupted())
            return cli_fail(CLI_INTERRUPTED, "interrupted");
    }
    return code;
}
