/* remora commit, reload, hold and log: what is done to a view that some program works in, and what has been
 * committed. */
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/json.h"

#include <stdlib.h>
#include <string.h>

#define TEXT 256
#define PAGE 1000 /* commits a call, as the API gives at most */

/* Choosing a view */

struct choice {
    const char *label; /* NULL: any */
    size_t found;
    char chosen[TEXT];            /* the label of the one that fits */
    char labels[CLI_MESSAGE_MAX]; /* of those that fit */
};

static void consider(struct cli *cli, struct choice *choice, const struct replica_pack_reader *item)
{
    struct replica_pack_reader value;
    struct replica_id id;
    char label[TEXT];
    size_t n = strlen(choice->labels);
    cli_get_text(item, "label", label, sizeof label);
    if (label[0] == '\0') /* private: of the connection that opened it */
        return;
    if ((choice->label != NULL && strcmp(label, choice->label) != 0) || !cli_find(item, "view", &value) ||
        replica_pack_read_id(&value, &id) != 0)
        return;
    snprintf(choice->labels + n, sizeof choice->labels - n, "%s\"%s\"", n > 0 ? ", " : "", label);
    memcpy(cli->view.id, id.bytes, sizeof cli->view.id);
    memcpy(choice->chosen, label, sizeof label);
    choice->found++;
}

/* The one view of the volume on this node that fits; its label if that is asked for. 0 or an exit code. */
static int choose_view(struct cli *cli, const char *volume, char ret_label[TEXT])
{
    struct choice choice = {.label = cli_text(cli, "label")};
    struct replica_pack_reader map, reader;
    struct replica_buffer params;
    struct cli_result result;
    size_t n;
    int code;
    if (strchr(volume, '/') != NULL)
        return cli_fail(CLI_FAILED, "%s: nothing is mounted there", volume);
    code = cli_connect(cli);
    if (code != 0)
        return code;
    replica_buffer_init(&params);
    replica_pack_map(&params, 1);
    replica_pack_cstr(&params, "volume");
    replica_pack_cstr(&params, volume);
    code = cli_call(cli, "view.list", &params, NULL, &result);
    if (code == 0) {
        cli_result_reader(&result, &map);
        n = cli_get_array(&map, "views", &reader);
        for (size_t i = 0; i < n; i++) {
            struct replica_pack_reader item = reader;
            replica_pack_skip(&reader);
            consider(cli, &choice, &item);
        }
    }
    cli_result_close(&result);
    if (code == 0 && choice.found == 1 && ret_label != NULL)
        memcpy(ret_label, choice.chosen, sizeof choice.chosen);
    if (code != 0 || choice.found == 1)
        return code;
    if (choice.found == 0)
        return cli_fail(CLI_FAILED,
                        "no program on this node works in a view of %s%s%s that others can name; put, mkdir, "
                        "mv, rm and cp commit by themselves",
                        volume, choice.label != NULL ? " with the label " : "",
                        choice.label != NULL ? choice.label : "");
    return cli_fail(CLI_REFUSED, "several views of %s fit: %s; choose by --label", volume, choice.labels);
}

int cli_verb_commit(struct cli *cli)
{
    int code = choose_view(cli, cli->args.words[0], NULL);
    return code == 0 ? cli_commit(cli, "committed", NULL) : code;
}

static void print_reload(struct cli *cli, const struct remora_reload *reload)
{
    struct cli_json json;
    if (!cli->json) {
        for (size_t i = 0; i < reload->changed_n; i++)
            printf("%s\n", reload->changed[i]);
        if (reload->more)
            cli_say(cli, "and more");
        else if (reload->changed_n == 0)
            cli_say(cli, "nothing changed");
        return;
    }
    cli_json_init(&json, stdout);
    cli_json_begin(&json, '{');
    cli_json_key(&json, "before");
    cli_json_uint(&json, reload->before);
    cli_json_key(&json, "after");
    cli_json_uint(&json, reload->after);
    cli_json_key(&json, "changed");
    cli_json_begin(&json, '[');
    for (size_t i = 0; i < reload->changed_n; i++)
        cli_json_text(&json, reload->changed[i], strlen(reload->changed[i]));
    cli_json_end(&json, ']');
    cli_json_key(&json, "more");
    cli_json_bool(&json, reload->more);
    cli_json_end(&json, '}');
    cli_json_close(&json);
}

int cli_verb_reload(struct cli *cli)
{
    struct remora_reload reload;
    int code = choose_view(cli, cli->args.words[0], NULL), error;
    if (code != 0)
        return code;
    error = remora_reload(cli->remora, &cli->view, REMORA_RELOAD_QUORUM, NULL, &reload);
    if (error != 0)
        return cli_fail_call(cli, error, NULL);
    print_reload(cli, &reload);
    remora_reload_free(&reload);
    return 0;
}

static void tell_hold(const struct cli *cli, const char *label, bool hold)
{
    const char *volume = cli->args.words[0];
    struct cli_json json;
    if (hold)
        cli_say(cli, "background commits are held; `remora hold %s --release` lets them go on", volume);
    else
        cli_say(cli, "background commits of %s go on", volume);
    if (!cli->json)
        return;
    cli_json_init(&json, stdout);
    cli_json_begin(&json, '{');
    cli_json_pair_text(&json, "volume", volume);
    cli_json_pair_text(&json, "label", label);
    cli_json_pair_bool(&json, "held", hold);
    cli_json_end(&json, '}');
    cli_json_close(&json);
}

int cli_verb_hold(struct cli *cli)
{
    bool hold = !cli_flag(cli, "release");
    struct replica_buffer params;
    struct replica_id id;
    struct cli_result result;
    char label[TEXT];
    int code = choose_view(cli, cli->args.words[0], label);
    if (code != 0)
        return code;
    memcpy(id.bytes, cli->view.id, sizeof id.bytes);
    replica_buffer_init(&params);
    replica_pack_map(&params, 2);
    replica_pack_cstr(&params, "view");
    replica_pack_id(&params, &id);
    replica_pack_cstr(&params, "hold");
    replica_pack_bool(&params, hold);
    code = cli_call(cli, "view.hold", &params, NULL, &result);
    cli_result_close(&result);
    if (code == 0)
        tell_hold(cli, label, hold);
    return code;
}

/* log */

struct listing {
    struct cli *cli;
    struct cli_json json;
    bool begun;    /* the JSON: not before there is an answer */
    uint64_t left; /* commits still wanted */
    uint64_t before;
    bool more;
};

static void print_commit(const struct replica_pack_reader *commit)
{
    uint64_t paths = cli_get_number(commit, "paths");
    char token[TEXT], id[TEXT], time[CLI_TIME_TEXT], node[TEXT], state[TEXT], bytes[CLI_SIZE_TEXT];
    cli_get_text(commit, "token", token, sizeof token);
    cli_get_text(commit, "commit", id, sizeof id);
    cli_get_text(commit, "node", node, sizeof node);
    cli_get_text(commit, "state", state, sizeof state);
    cli_format_time((int64_t)(cli_get_number(commit, "time_ms") / 1000), time);
    cli_format_size(cli_get_number(commit, "bytes"), bytes);
    printf("%s  %-16s  %8llu %-5s  %10s%s  %s  %s\n", time, node, (unsigned long long)paths,
           paths == 1 ? "path" : "paths", bytes, strcmp(state, "pending") == 0 ? "  (pending)" : "", id,
           token);
}

static void print_page(struct listing *listing, const struct cli_result *result)
{
    struct replica_pack_reader map, reader;
    size_t n;
    cli_result_reader(result, &map);
    n = cli_get_array(&map, "commits", &reader);
    listing->more = n > 0 && cli_get_bool(&map, "more");
    if (listing->cli->json && !listing->begun) {
        cli_json_begin(&listing->json, '{');
        cli_json_key(&listing->json, "commits");
        cli_json_begin(&listing->json, '[');
    }
    listing->begun = true;
    for (size_t i = 0; i < n && listing->left > 0; i++, listing->left--) {
        struct replica_pack_reader item = reader;
        listing->before = cli_get_number(&item, "seq");
        if (listing->cli->json)
            cli_json_item(&listing->json, &reader);
        else {
            replica_pack_skip(&reader);
            print_commit(&item);
        }
    }
}

/* The params that both listings begin with. */
static void begin_history(const struct cli *cli, struct replica_buffer *params, const char *volume,
                          size_t more)
{
    replica_buffer_init(params);
    replica_pack_map(params, 3 + more);
    replica_pack_cstr(params, "name");
    replica_pack_cstr(params, volume);
    replica_pack_cstr(params, "local");
    replica_pack_bool(params, cli_flag(cli, "local"));
    replica_pack_cstr(params, "timeout_ms");
    replica_pack_uint(params, cli->timeout_ms);
}

static int call_log(struct listing *listing, const char *volume, struct cli_result *ret_result)
{
    struct replica_buffer params;
    begin_history(listing->cli, &params, volume, 2);
    replica_pack_cstr(&params, "limit");
    replica_pack_uint(&params, listing->left < PAGE ? listing->left : PAGE);
    replica_pack_cstr(&params, "before");
    if (listing->before != 0)
        replica_pack_uint(&params, listing->before);
    else
        replica_pack_nil(&params);
    return cli_call(listing->cli, "volume.log", &params, NULL, ret_result);
}

static int list_commits(struct cli *cli, const char *volume)
{
    struct listing listing = {.cli = cli, .left = cli_number(cli, "limit", UINT64_MAX), .more = true};
    int code = 0;
    cli_json_init(&listing.json, stdout);
    while (code == 0 && listing.more && (listing.left > 0 || !listing.begun)) {
        struct cli_result result;
        code = call_log(&listing, volume, &result);
        if (code == 0)
            print_page(&listing, &result);
        cli_result_close(&result);
    }
    if (cli->json && listing.begun) {
        cli_json_end(&listing.json, ']');
        cli_json_end(&listing.json, '}');
        cli_json_close(&listing.json);
    }
    return code;
}

static void print_versions(const struct replica_pack_reader *map)
{
    struct replica_pack_reader reader;
    size_t n = cli_get_array(map, "versions", &reader);
    for (size_t i = 0; i < n; i++) {
        char path[REPLICA_PATH_MAX + 1], time[CLI_TIME_TEXT], node[TEXT], size[CLI_SIZE_TEXT], commit[TEXT];
        struct replica_pack_reader item = reader;
        replica_pack_skip(&reader);
        cli_get_text(&item, "path", path, sizeof path);
        cli_get_text(&item, "node", node, sizeof node);
        cli_get_text(&item, "commit", commit, sizeof commit);
        cli_format_time((int64_t)(cli_get_number(&item, "time_ms") / 1000), time);
        cli_format_size(cli_get_number(&item, "size"), size);
        printf("%s  %-16s  %10s  %s  %s\n", time, node, size, commit, path);
    }
}

static int list_lost(struct cli *cli, const char *volume)
{
    struct replica_pack_reader map;
    struct replica_buffer params;
    struct cli_result result;
    struct cli_json json;
    int code;
    begin_history(cli, &params, volume, 0);
    code = cli_call(cli, "volume.history", &params, NULL, &result);
    if (code == 0) {
        cli_result_reader(&result, &map);
        cli_json_init(&json, stdout);
        if (!cli->json) {
            print_versions(&map);
        } else {
            cli_json_item(&json, &map);
            cli_json_close(&json);
        }
    }
    cli_result_close(&result);
    return code;
}

int cli_verb_log(struct cli *cli)
{
    int code = cli_connect(cli);
    if (code != 0)
        return code;
    return cli_flag(cli, "lost") ? list_lost(cli, cli->args.words[0]) : list_commits(cli, cli->args.words[0]);
}
