/* remora put. Found out first: what goes, and that nothing is in its way. Then the entries go into a private
 * view, and one commit publishes them; until that, nobody has seen anything. Contents stay on the node when a
 * put is interrupted, so that the next one has less to do. */
#include "cli/format.h"
#include "cli/paths.h"
#include "cli/put_batch.h"
#include "cli/walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STREAM_PIECE ((size_t)1 << 20) /* bytes a call, as the API gives at most */
#define STREAM_MODE  0644

struct put {
    struct cli *cli;
    struct cli_source source;
    char target[REPLICA_PATH_MAX + 1];
    bool *is_there; /* by item: a directory that the volume has already */
};

/* What is in the way */

static int conflict(const struct cli *cli, const char *path, bool directory, const struct remora_entry *there)
{
    if (directory && there->kind == REMORA_DIRECTORY)
        return 0;
    if (there->kind == REMORA_DIRECTORY)
        return cli_fail(CLI_REFUSED, "%s is a directory in the volume; a file never replaces one",
                        cli_shown(path));
    if (directory)
        return cli_fail(CLI_REFUSED, "%s is no directory in the volume; remove it first", cli_shown(path));
    if (!cli_flag(cli, "force"))
        return cli_fail(CLI_REFUSED, "%s exists; -f replaces it", cli_shown(path));
    return 0;
}

struct comparison {
    struct put *put;
    size_t at, end; /* children that are not compared yet; both sides are in order of names */
};

static int compare_child(void *context, enum cli_walk_when when, const char *path,
                         const struct remora_entry *there)
{
    struct comparison *comparison = context;
    struct cli_source_item *items = comparison->put->source.items;
    int order = -1;
    (void)when;
    while (comparison->at < comparison->end &&
           (order = strcmp(cli_last_part(items[comparison->at].path), there->path)) < 0)
        comparison->at++;
    if (comparison->at == comparison->end || order != 0)
        return 0;
    comparison->put->is_there[comparison->at] = there->kind == REMORA_DIRECTORY;
    return conflict(comparison->put->cli, path, S_ISDIR(items[comparison->at].mode), there);
}

static int check_children(struct put *put, size_t i)
{
    const struct cli_source_item *item = &put->source.items[i];
    struct comparison comparison = {.put = put, .at = item->first, .end = item->first + item->children_n};
    char path[REPLICA_PATH_MAX + 1];
    if (cli_join(put->target, item->path, path, sizeof path) != 0)
        return cli_fail(CLI_REFUSED, "%s/%s: longer than a path of a volume may be", put->target, item->path);
    return cli_walk(put->cli, path, false, compare_child, &comparison);
}

static int check(struct put *put)
{
    struct remora_entry there;
    bool exists;
    int code = cli_exists(put->cli, put->target, &exists, &there);
    if (code != 0)
        return code;
    put->is_there = calloc(put->source.n, sizeof put->is_there[0]);
    if (put->is_there == NULL)
        code = cli_no_memory();
    if (exists) {
        if (code == 0)
            code = conflict(put->cli, put->target, S_ISDIR(put->source.items[0].mode), &there);
        if (code == 0)
            put->is_there[0] = there.kind == REMORA_DIRECTORY;
        remora_entry_free(&there);
    }
    for (size_t i = 0; code == 0 && i < put->source.n; i++)
        if (put->is_there[i] && S_ISDIR(put->source.items[i].mode))
            code = check_children(put, i);
    return code;
}

/* Hard links */

/* What has the name already goes, unless it is the same file. */
static int replace_link(struct put *put, const char *from, const char *to)
{
    struct remora_entry a, b;
    bool same;
    int code = cli_stat(put->cli, from, &a), error;
    if (code != 0)
        return code;
    code = cli_stat(put->cli, to, &b);
    same = code == 0 && a.has_object && b.has_object && memcmp(a.object, b.object, sizeof a.object) == 0;
    remora_entry_free(&a);
    if (code == 0)
        remora_entry_free(&b);
    if (code != 0 || same)
        return code;
    error = remora_remove(put->cli->remora, &put->cli->view, to, false);
    if (error == 0)
        error = remora_link(put->cli->remora, &put->cli->view, from, to);
    return error == 0 ? 0 : cli_fail_call(put->cli, error, to);
}

/* *separate: this volume has no hard links; the file goes under each name by itself. */
static int put_link(struct put *put, const struct cli_source_item *item, bool *separate)
{
    char from[REPLICA_PATH_MAX + 1], to[REPLICA_PATH_MAX + 1];
    int error;
    if (cli_join(put->target, item->link, from, sizeof from) != 0 ||
        cli_join(put->target, item->path, to, sizeof to) != 0)
        return cli_fail(CLI_REFUSED, "%s/%s: longer than a path of a volume may be", put->target, item->path);
    error = remora_link(put->cli->remora, &put->cli->view, from, to);
    *separate = error == REPLICA_E_PERM;
    if (error == REPLICA_E_EXISTS)
        return replace_link(put, from, to);
    return error == 0 || *separate ? 0 : cli_fail_call(put->cli, error, to);
}

static int put_links(struct put *put, struct cli_batch *batch)
{
    bool separate = false, warned = false;
    int code = 0;
    for (size_t i = 0; code == 0 && i < put->source.n; i++) {
        if (put->source.items[i].link == NULL)
            continue;
        if (!separate)
            code = put_link(put, &put->source.items[i], &separate);
        if (code == 0 && separate)
            code = cli_batch_add(batch, &put->source.items[i]);
        if (separate && !warned)
            cli_warn("a version 1 volume has no hard links: each name becomes a file of its own");
        warned = separate;
        if (code == 0 && cli_interrupted())
            code = cli_fail(CLI_INTERRUPTED, "interrupted");
    }
    return code == 0 ? cli_batch_send(batch) : code;
}

static int put_entries(struct put *put)
{
    struct cli_batch *batch = malloc(sizeof *batch);
    int code = 0;
    if (batch == NULL)
        return cli_no_memory();
    cli_batch_init(batch, put->cli, &put->source, put->target);
    for (size_t i = 0; code == 0 && i < put->source.n; i++) {
        bool is_root_of_volume = i == 0 && put->target[0] == '\0';
        if (put->source.items[i].link == NULL && !is_root_of_volume)
            code = cli_batch_add(batch, &put->source.items[i]);
    }
    if (code == 0)
        code = cli_batch_send(batch);
    if (code == 0)
        code = put_links(put, batch);
    cli_batch_close(batch);
    free(batch);
    return code;
}

static int put_tree(struct cli *cli, const struct cli_path *remote)
{
    const char *local = cli->args.words[1];
    struct put put = {.cli = cli};
    int code;
    if (cli_put_target(remote->text, remote->slash, local, put.target, sizeof put.target) != 0)
        return cli_fail(CLI_REFUSED, "%s/%s: longer than a path of a volume may be", remote->text, local);
    code = cli_source_scan(local, &put.source);
    if (code == 0 && put.target[0] == '\0' && !S_ISDIR(put.source.items[0].mode))
        code = cli_fail(CLI_REFUSED, "%s: name the file in the volume", local);
    if (code == 0)
        code = cli_open_view(cli, cli->args.words[0], 0);
    if (code == 0)
        code = check(&put);
    if (code == 0) {
        cli_progress_begin(&cli->progress, "put", put.source.count.bytes,
                           !cli->quiet && isatty(STDERR_FILENO));
        code = put_entries(&put);
        if (code == CLI_INTERRUPTED)
            cli_say(cli, "nothing was put; what was sent stays with the nodes for a minute, so that the same "
                         "put sends the rest");
    }
    if (code == 0) {
        put.source.count.directories -= put.target[0] == '\0'; /* the volume's root is no entry of it */
        code = cli_commit(cli, "put", &put.source.count);
    }
    free(put.is_there);
    cli_source_close(&put.source);
    return code;
}

/* Standard input */

static int read_piece(uint8_t *data, size_t *ret_n)
{
    size_t done = 0;
    while (done < STREAM_PIECE) {
        ssize_t n = read(STDIN_FILENO, data + done, STREAM_PIECE - done);
        if (n < 0 && errno == EINTR && !cli_interrupted())
            continue;
        if (n < 0)
            return cli_interrupted() ? cli_fail(CLI_INTERRUPTED, "interrupted")
                                     : cli_fail(CLI_FAILED, "standard input: %s", strerror(errno));
        if (n == 0)
            break;
        done += (size_t)n;
    }
    *ret_n = done;
    return 0;
}

/* The first piece makes the file, the others are written behind it. */
static int send_piece(struct cli *cli, char *path, uint64_t offset, const uint8_t *data, size_t n)
{
    struct timespec now;
    struct remora_entry entry = {.path = path,
                                 .kind = REMORA_FILE,
                                 .mode = STREAM_MODE,
                                 .uid = geteuid(),
                                 .gid = getegid(),
                                 .size = n,
                                 .data = data,
                                 .fd = -1};
    int error;
    clock_gettime(CLOCK_REALTIME, &now);
    entry.mtime_ns = cli_nanoseconds(&now);
    if (offset == 0)
        error = remora_put(cli->remora, &cli->view, &entry, 1, true);
    else
        error = remora_write(cli->remora, &cli->view, path, offset, data, n, false);
    return error == 0 ? 0 : cli_fail_call(cli, error, path);
}

static int stream(struct cli *cli, char *path, struct cli_count *ret_count)
{
    uint8_t *data = malloc(STREAM_PIECE);
    uint64_t offset = 0;
    size_t n = STREAM_PIECE;
    int code = data == NULL ? cli_no_memory() : 0;
    while (code == 0 && n == STREAM_PIECE) {
        code = read_piece(data, &n);
        if (code == 0 && (n > 0 || offset == 0))
            code = send_piece(cli, path, offset, data, n);
        offset += n;
    }
    free(data);
    cli_count_file(ret_count, offset);
    return code;
}

static int put_stream(struct cli *cli, struct cli_path *remote)
{
    struct cli_count count = {0};
    struct remora_entry there;
    bool exists;
    int code;
    if (remote->slash || remote->size == 0)
        return cli_fail(CLI_REFUSED, "standard input has no name: name the file in the volume");
    code = cli_open_view(cli, cli->args.words[0], 0);
    if (code == 0)
        code = cli_exists(cli, remote->text, &exists, &there);
    if (code == 0 && exists) {
        code = conflict(cli, remote->text, false, &there);
        remora_entry_free(&there);
    }
    if (code == 0)
        code = stream(cli, remote->text, &count);
    return code == 0 ? cli_commit(cli, "put standard input:", &count) : code;
}

int cli_verb_put(struct cli *cli)
{
    struct cli_path remote;
    int code = cli_path(cli->args.words_n > 2 ? cli->args.words[2] : "/", &remote);
    if (code != 0)
        return code;
    if (strcmp(cli->args.words[1], "-") == 0)
        return put_stream(cli, &remote);
    return put_tree(cli, &remote);
}
