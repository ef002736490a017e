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

/* What keeps a volume from being settled, for people; false: nothing. */
static bool find_lack(const struct replica_pack_reader *volume, char *ret_lack, size_t size)
{
    struct replica_pack_reader voters;
    char name[TEXT], voter[TEXT], state[TEXT];
    uint64_t committed = cli_get_number(volume, "committed"), applied = cli_get_number(volume, "applied");
    size_t n = cli_get_array(volume, "voters", &voters);
    cli_get_text(volume, "name", name, sizeof name);
    for (size_t i = 0; i < n; i++) {
        cli_get_text(&voters, "name", voter, sizeof voter);
        cli_get_text(&voters, "state", state, sizeof state);
        replica_pack_skip(&voters);
        if (strcmp(state, "alive") != 0) {
            snprintf(ret_lack, size, "volume %s: its voter %s is %s", name, voter, state);
            return true;
        }
    }
    if (cli_get_number(volume, "pending") == 0 && applied == committed)
        return false;
    snprintf(ret_lack, size, "volume %s: commits are on their way", name);
    return true;
}

/* Whether nothing is left to wait for: the cluster has begun, every voter is alive, and what is committed is
 * applied here. */
static bool is_settled(const struct cli_result *result, char *ret_lack, size_t size)
{
    struct replica_pack_reader map, volumes;
    size_t n;
    cli_result_reader(result, &map);
    cli_get_text(&map, "waiting", ret_lack, size);
    if (ret_lack[0] != '\0')
        return false;
    if (!cli_find(&map, "leader", &volumes)) {
        snprintf(ret_lack, size, "the cluster's log has no leader");
        return false;
    }
    n = cli_get_array(&map, "volumes", &volumes);
    for (size_t i = 0; i < n; i++) {
        struct replica_pack_reader volume = volumes;
        replica_pack_skip(&volumes);
        if (find_lack(&volume, ret_lack, size))
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

/* Waiting */

struct wait {
    struct cli *cli;
    int64_t until_ms;
    struct cli_result result; /* of the last call that was answered */
    char lacks[CLI_MESSAGE_MAX];
};

/* Errors that time may mend. */
static bool may_pass(int error)
{
    return error == REPLICA_E_NOTFOUND || error == REPLICA_E_UNAVAILABLE || error == REPLICA_E_BUSY;
}

/* A node that starts, or starts again, while it is waited for. An error of remora.h. */
static int connect_once(struct wait *wait)
{
    char *message = NULL;
    int error;
    if (wait->cli->remora != NULL)
        return 0;
    error = remora_connect(cli_text(wait->cli, "socket"), 0, &wait->cli->remora, &message);
    if (error != 0)
        snprintf(wait->lacks, sizeof wait->lacks, "%s",
                 message != NULL ? message : replica_error_text(error));
    else
        cli_prepare(wait->cli);
    free(message);
    return error;
}

/* Calls a method without parameters once, for as long as is left. An error of remora.h; wait->lacks says which. */
static int call_once(struct wait *wait, const char *method)
{
    int64_t left_ms = wait->until_ms - now_ms();
    int error = connect_once(wait);
    if (error != 0)
        return error;
    cli_result_close(&wait->result);
    remora_set_timeout(wait->cli->remora, left_ms > 0 ? (uint32_t)left_ms : 1);
    error = remora_call(wait->cli->remora, method, NULL, 0, NULL, 0, &wait->result.data, &wait->result.size,
                        NULL, NULL);
    if (error != 0)
        snprintf(wait->lacks, sizeof wait->lacks, "%s", remora_error(wait->cli->remora));
    if (error == REPLICA_E_UNAVAILABLE) /* it may have gone; a new one listens elsewhere */
        cli_disconnect(wait->cli);
    return error;
}

/* step: 0 when there is nothing more to wait for, else an error of remora.h. 0 or an exit code. */
static int wait_for(struct wait *wait, int (*step)(struct wait *wait))
{
    cli_catch_interrupts();
    for (;;) {
        char before[CLI_MESSAGE_MAX];
        int64_t left_ms;
        int error;
        memcpy(before, wait->lacks, sizeof before);
        error = step(wait);
        left_ms = wait->until_ms - now_ms();
        if (left_ms <= 0 &&
            before[0] != '\0') /* only our own time has run out: the last look says no more than that */
            memcpy(wait->lacks, before, sizeof before);
        if (error == 0)
            return 0;
        if (cli_interrupted() || error == REPLICA_E_CANCELLED)
            return cli_fail(CLI_INTERRUPTED, "interrupted");
        if (!may_pass(error))
            return cli_fail(cli_exit_of(error), "%s", wait->lacks);
        if (left_ms <= 0)
            return cli_fail(CLI_UNAVAILABLE, "not ready after %.3g s: %s",
                            (double)wait->cli->timeout_ms / 1000, wait->lacks);
        poll(NULL, 0, left_ms < POLL_MS ? (int)left_ms : POLL_MS);
    }
}

static struct wait begin_wait(struct cli *cli)
{
    return (struct wait){.cli = cli, .until_ms = now_ms() + cli->timeout_ms};
}

static int settle(struct wait *wait)
{
    int error = call_once(wait, "cluster.status");
    if (error != 0)
        return error;
    return is_settled(&wait->result, wait->lacks, sizeof wait->lacks) ? 0 : REPLICA_E_UNAVAILABLE;
}

int cli_verb_cluster_status(struct cli *cli)
{
    struct wait wait = begin_wait(cli);
    int code;
    if (cli_flag(cli, "wait"))
        code = wait_for(&wait, settle);
    else
        code = call_plain(cli, "cluster.status", &wait.result);
    if (code == 0 && cli->json)
        print_json(&wait.result);
    else if (code == 0)
        print_status(&wait.result);
    cli_result_close(&wait.result);
    return code;
}

/* wait */

static int try_volume(struct wait *wait, const char *volume)
{
    struct remora *remora = wait->cli->remora;
    struct remora_view view;
    struct remora_entry root;
    int error = remora_view_open(remora, volume, NULL, NULL, REMORA_READ_ONLY, &view);
    if (error == 0) {
        error = remora_stat(remora, &view, "", &root);
        if (error == 0)
            remora_entry_free(&root);
        (void)remora_view_close(remora, &view); /* else it ends with the connection */
    }
    if (error != 0)
        snprintf(wait->lacks, sizeof wait->lacks, "%s", remora_error(remora));
    if (error == REPLICA_E_UNAVAILABLE)
        cli_disconnect(wait->cli);
    return error;
}

/* The node has begun, or joined, its cluster, and the volume can be read. */
static int look(struct wait *wait)
{
    const char *volume = cli_text(wait->cli, "volume");
    struct replica_pack_reader map;
    int error = call_once(wait, "node.info");
    if (error != 0)
        return error;
    cli_result_reader(&wait->result, &map);
    cli_get_text(&map, "waiting", wait->lacks, sizeof wait->lacks);
    if (wait->lacks[0] != '\0')
        return REPLICA_E_UNAVAILABLE;
    return volume != NULL ? try_volume(wait, volume) : 0;
}

int cli_verb_wait(struct cli *cli)
{
    struct wait wait = begin_wait(cli);
    int code = wait_for(&wait, look);
    if (code == 0 && cli->json)
        print_json(&wait.result);
    cli_result_close(&wait.result);
    return code;
}
