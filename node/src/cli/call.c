/* Talking to the node: connecting, private views, calls and what their results hold. */
#include "cli/cli.h"
#include "cli/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KEYS_MAX  4096               /* of a map that is searched */
#define ITEMS_MAX (4u * 1024 * 1024) /* of an array: no more than bytes in a message */
#define TEXT_MAX  (4u * 1024 * 1024)

/* Errors */

int cli_exit_of(int error)
{
    switch (error) {
    case 0:
        return CLI_DONE;
    case REPLICA_E_EXISTS:
    case REPLICA_E_INVALID:
    case REPLICA_E_REFUSED:
    case REPLICA_E_PERM:
        return CLI_REFUSED;
    case REPLICA_E_UNAVAILABLE:
        return CLI_UNAVAILABLE;
    case REPLICA_E_INDETERMINATE:
        return CLI_INDETERMINATE;
    case REPLICA_E_NOSPACE:
    case REPLICA_E_TOOBIG:
        return CLI_NO_SPACE;
    case REPLICA_E_BUSY:
        return CLI_BUSY;
    case REPLICA_E_DENIED:
        return CLI_DENIED;
    case REPLICA_E_CANCELLED:
        return CLI_INTERRUPTED;
    default:
        return CLI_FAILED;
    }
}

int cli_exit_of_errno(int error)
{
    return error == ENOSPC || error == EDQUOT || error == EFBIG ? CLI_NO_SPACE : CLI_FAILED;
}

/* "No such file or directory" is what people and scripts look for; the node's own words usually name the
 * thing already. */
int cli_fail_call(struct cli *cli, int error, const char *about)
{
    const char *text = remora_error(cli->remora);
    cli_progress_hide(&cli->progress);
    if (error == REPLICA_E_CANCELLED)
        return cli_fail(CLI_INTERRUPTED, "interrupted");
    if (error == REPLICA_E_NOTFOUND && about != NULL && cli->view.at[0] == '\0')
        return cli_fail(CLI_FAILED, "%s: No such file or directory", about);
    if (about != NULL && strstr(text, about) == NULL)
        return cli_fail(cli_exit_of(error), "%s: %s", about, text);
    return cli_fail(cli_exit_of(error), "%s", text);
}

/* Connections and views */

static int on_progress(void *context, uint64_t bytes, uint64_t total)
{
    struct cli *cli = context;
    if (cli->progress.total == 0) /* only the node knows how much there is to do */
        cli->progress.total = total;
    cli_progress_at(&cli->progress, bytes);
    return cli_interrupted();
}

void cli_prepare(struct cli *cli)
{
    cli_catch_interrupts();
    remora_set_timeout(cli->remora, cli->timeout_ms);
    remora_on_progress(cli->remora, on_progress, cli);
}

int cli_connect(struct cli *cli)
{
    int wait_ms =
        cli_flag(cli, "timeout") && cli->timeout_ms < CLI_CONNECT_MS ? (int)cli->timeout_ms : CLI_CONNECT_MS;
    char *message = NULL;
    int error;
    if (cli->remora != NULL)
        return 0;
    error = remora_connect(cli_text(cli, "socket"), wait_ms, &cli->remora, &message);
    if (error != 0) {
        cli_fail(cli_exit_of(error), "%s", message != NULL ? message : replica_error_text(error));
        free(message);
        return cli_exit_of(error);
    }
    cli_prepare(cli);
    return 0;
}

void cli_disconnect(struct cli *cli)
{
    cli->view_open = false; /* a private view ends with its connection */
    remora_close(&cli->remora);
}

int cli_open_view(struct cli *cli, const char *volume, unsigned flags)
{
    const char *at = cli_text(cli, "at");
    int code, error;
    if (at != NULL &&
        (strlen(at) != sizeof cli->view.at - 1 || strspn(at, "0123456789abcdefABCDEF") != strlen(at)))
        return cli_fail(CLI_REFUSED, "--at: %s: a commit's id has 32 hex digits; `remora log` lists them",
                        at);
    code = cli_connect(cli);
    if (code != 0)
        return code;
    if (cli_flag(cli, "local"))
        flags |= REMORA_LOCAL;
    error = remora_view_open(cli->remora, volume, NULL, NULL, flags, &cli->view);
    if (error == REPLICA_E_NOTFOUND)
        return cli_fail(CLI_FAILED, "there is no volume \"%s\"; `remora volume list` names those that are",
                        volume);
    if (error == REPLICA_E_UNAVAILABLE && (flags & REMORA_READ_ONLY))
        return cli_fail(CLI_UNAVAILABLE, "%s: %s; --local reads what this node knows", volume,
                        remora_error(cli->remora));
    if (error != 0)
        return cli_fail_call(cli, error, volume);
    if (at != NULL)
        snprintf(cli->view.at, sizeof cli->view.at, "%s", at);
    cli->view_open = true;
    return 0;
}

/* Nothing was to be committed: there is no id. */
static bool is_nothing(const struct remora_commit *commit)
{
    return strspn(commit->commit, "0") == strlen(commit->commit);
}

static void print_commit(const struct remora_commit *commit, const struct cli_count *count)
{
    struct cli_json json;
    cli_json_init(&json, stdout);
    cli_json_begin(&json, '{');
    cli_json_pair_text(&json, "token", commit->token);
    cli_json_key(&json, "commit");
    if (is_nothing(commit))
        cli_json_null(&json);
    else
        cli_json_text(&json, commit->commit, strlen(commit->commit));
    cli_json_pair_uint(&json, "paths", commit->paths);
    cli_json_pair_uint(&json, "bytes", commit->bytes);
    if (count != NULL) {
        cli_json_pair_uint(&json, "files", count->files);
        cli_json_pair_uint(&json, "directories", count->directories);
    }
    cli_json_key(&json, "lost");
    cli_json_begin(&json, '[');
    for (size_t i = 0; i < commit->lost_n; i++)
        cli_json_text(&json, commit->lost[i], strlen(commit->lost[i]));
    cli_json_end(&json, ']');
    cli_json_end(&json, '}');
    cli_json_close(&json);
}

static void say_commit(const struct cli *cli, const char *what, const struct cli_count *count,
                       const struct remora_commit *commit)
{
    char counted[CLI_COUNT_TEXT + 1] = "";
    if (count != NULL) {
        counted[0] = ' ';
        cli_format_count(count, counted + 1);
    }
    if (is_nothing(commit))
        cli_say(cli, "%s%s: nothing to commit, all of it was there", what, counted);
    else
        cli_say(cli, "%s%s: %llu path%s, commit %s", what, counted, (unsigned long long)commit->paths,
                cli_plural(commit->paths), commit->commit);
}

int cli_commit(struct cli *cli, const char *what, const struct cli_count *count)
{
    struct remora_commit commit;
    int error;
    cli_progress_begin(&cli->progress, "commit", 0,
                       cli->progress.shown); /* copies on their way to the voters */
    error = remora_commit(cli->remora, &cli->view, &commit);
    cli_progress_hide(&cli->progress);
    if (error == REPLICA_E_INDETERMINATE && cli_interrupted())
        return cli_fail(
            CLI_INTERRUPTED,
            "interrupted while the commit was under way: the node goes on with it; see `remora log`");
    if (error == REPLICA_E_INDETERMINATE)
        return cli_fail(CLI_INDETERMINATE, "%s; see `remora log` for how it ended",
                        remora_error(cli->remora));
    if (error != 0)
        return cli_fail_call(cli, error, NULL);
    if (cli->json)
        print_commit(&commit, count);
    say_commit(cli, what, count, &commit);
    for (size_t i = 0; i < commit.lost_n; i++)
        cli_warn(
            "%s was written elsewhere at the same time; the version that lost is in the volume's history",
            commit.lost[i]);
    remora_commit_free(&commit);
    return 0;
}

/* Calls */

int cli_call(struct cli *cli, const char *method, struct replica_buffer *params, const char *about,
             struct cli_result *ret_result)
{
    int error;
    *ret_result = (struct cli_result){0};
    if (params->failed) {
        replica_buffer_close(params);
        return cli_no_memory();
    }
    error = remora_call(cli->remora, method, params->data, params->size, NULL, 0, &ret_result->data,
                        &ret_result->size, NULL, NULL);
    replica_buffer_close(params);
    return error == 0 ? 0 : cli_fail_call(cli, error, about);
}

void cli_result_close(struct cli_result *result)
{
    free(result->data);
    *result = (struct cli_result){0};
}

void cli_result_reader(const struct cli_result *result, struct replica_pack_reader *ret_reader)
{
    replica_pack_reader_init(ret_reader, result->data, result->size);
}

bool cli_find(const struct replica_pack_reader *map, const char *key, struct replica_pack_reader *ret_reader)
{
    struct replica_pack_reader reader = *map;
    size_t n, key_n = strlen(key);
    if (replica_pack_read_map(&reader, KEYS_MAX, &n) != 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        const char *text;
        size_t size;
        if (replica_pack_read_str(&reader, TEXT_MAX, &text, &size) != 0)
            return false;
        if (size == key_n && memcmp(text, key, key_n) == 0) {
            *ret_reader = reader;
            return replica_pack_peek(&reader) != REPLICA_PACK_NIL;
        }
        replica_pack_skip(&reader);
    }
    return false;
}

void cli_get_text(const struct replica_pack_reader *map, const char *key, char *ret_text, size_t size)
{
    struct replica_pack_reader value;
    const char *text;
    size_t n = 0;
    ret_text[0] = '\0';
    if (!cli_find(map, key, &value) || replica_pack_read_str(&value, TEXT_MAX, &text, &n) != 0)
        return;
    if (n >= size)
        n = size - 1;
    memcpy(ret_text, text, n);
    ret_text[n] = '\0';
}

uint64_t cli_get_number(const struct replica_pack_reader *map, const char *key)
{
    struct replica_pack_reader value;
    uint64_t number = 0;
    if (cli_find(map, key, &value))
        replica_pack_read_uint(&value, UINT64_MAX, &number);
    return number;
}

bool cli_get_bool(const struct replica_pack_reader *map, const char *key)
{
    struct replica_pack_reader value;
    bool truth = false;
    if (cli_find(map, key, &value))
        replica_pack_read_bool(&value, &truth);
    return truth;
}

size_t cli_get_array(const struct replica_pack_reader *map, const char *key,
                     struct replica_pack_reader *ret_reader)
{
    size_t n;
    if (!cli_find(map, key, ret_reader) || replica_pack_read_array(ret_reader, ITEMS_MAX, &n) != 0)
        return 0;
    return n;
}
