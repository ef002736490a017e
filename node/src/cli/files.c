/* remora ls, stat, cat, du: verbs that only look. */
#include "cli/format.h"
#include "cli/json.h"
#include "cli/walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_SIZE ((size_t)1 << 20) /* bytes a call, as the API gives at most */

/* In the order of enum remora_kind. */
static const char *const KIND_NAMES[] = {"",     "file",   "directory", "symlink",
                                         "fifo", "socket", "char",      "block"};
static const char KIND_LETTERS[] = "?-dlpscb";

static void print_xattrs(struct cli_json *json, const struct remora_entry *entry)
{
    cli_json_key(json, "xattrs");
    cli_json_begin(json, '{');
    for (size_t i = 0; i < entry->xattrs_n; i++) {
        cli_json_key(json, entry->xattrs[i].name);
        cli_json_hex(json, entry->xattrs[i].value, entry->xattrs[i].size);
    }
    cli_json_end(json, '}');
}

/* The entry of docs/cli.md. */
static void print_entry(struct cli_json *json, const char *path, const struct remora_entry *entry)
{
    cli_json_begin(json, '{');
    cli_json_pair_text(json, "path", path);
    cli_json_pair_text(json, "kind", KIND_NAMES[entry->kind]);
    cli_json_pair_uint(json, "mode", entry->mode);
    cli_json_pair_uint(json, "uid", entry->uid);
    cli_json_pair_uint(json, "gid", entry->gid);
    cli_json_pair_uint(json, "size", entry->size);
    cli_json_key(json, "mtime_ns");
    cli_json_int(json, entry->mtime_ns);
    cli_json_pair_uint(json, "links", entry->links);
    if (entry->target != NULL)
        cli_json_pair_text(json, "target", entry->target);
    if (entry->kind == REMORA_CHAR || entry->kind == REMORA_BLOCK) {
        cli_json_pair_uint(json, "major", entry->major);
        cli_json_pair_uint(json, "minor", entry->minor);
    }
    print_xattrs(json, entry);
    cli_json_key(json, "object");
    if (entry->has_object)
        cli_json_hex(json, entry->object, sizeof entry->object);
    else
        cli_json_null(json);
    cli_json_key(json, "content");
    if (entry->content[0] != '\0')
        cli_json_text(json, entry->content, strlen(entry->content));
    else
        cli_json_null(json);
    cli_json_pair_text(json, "stamp", entry->stamp);
    cli_json_pair_bool(json, "complete", entry->complete);
    cli_json_end(json, '}');
}

/* Rounds towards the past, also before 1970. */
static int64_t seconds_of(int64_t ns)
{
    return ns / 1000000000 - (ns % 1000000000 < 0);
}

/* A name as it may be shown: on a terminal without bytes that would steer it. */
static void put_name(const struct cli *cli, const char *name)
{
    char text[REPLICA_PATH_MAX + 1];
    snprintf(text, sizeof text, "%s", name);
    if (cli->terminal)
        cli_format_tame(text);
    fputs(text, stdout);
}

/* ls */

struct ls {
    struct cli *cli;
    struct cli_json json;
    bool details;
};

static void begin_list(struct ls *ls)
{
    cli_json_begin(&ls->json, '{');
    cli_json_key(&ls->json, "entries");
    cli_json_begin(&ls->json, '[');
}

static void end_list(struct ls *ls)
{
    cli_json_end(&ls->json, ']');
    cli_json_end(&ls->json, '}');
    cli_json_close(&ls->json);
}

static void print_long(const struct ls *ls, const struct remora_entry *entry)
{
    char mode[CLI_MODE_TEXT], size[CLI_SIZE_TEXT], time[CLI_TIME_TEXT];
    cli_format_mode(KIND_LETTERS[entry->kind], entry->mode, mode);
    cli_format_time(seconds_of(entry->mtime_ns), time);
    if (entry->kind == REMORA_CHAR || entry->kind == REMORA_BLOCK)
        snprintf(size, sizeof size, "%u, %u", entry->major & 0xffff, entry->minor & 0xffff);
    else if (ls->cli->terminal)
        cli_format_size(entry->size, size);
    else
        snprintf(size, sizeof size, "%llu", (unsigned long long)entry->size % 1000000000000000ull);
    printf("%s %3u %5u %5u %12s  %s  ", mode, entry->links, entry->uid, entry->gid, size, time);
}

static int list_entry(void *context, enum cli_walk_when when, const char *path,
                      const struct remora_entry *entry)
{
    struct ls *ls = context;
    if (when == CLI_WALK_LEAVE)
        return 0;
    if (ls->cli->json) {
        print_entry(&ls->json, path, entry);
        return 0;
    }
    if (ls->details)
        print_long(ls, entry);
    put_name(ls->cli, path);
    if (ls->cli->terminal && entry->kind == REMORA_DIRECTORY)
        putchar('/');
    if ((ls->details || ls->cli->terminal) && entry->kind == REMORA_SYMLINK && entry->target != NULL) {
        fputs(" -> ", stdout);
        put_name(ls->cli, entry->target);
    }
    putchar('\n');
    return 0;
}

static int list(struct ls *ls, const char *path)
{
    struct remora_entry entry;
    int code = cli_stat(ls->cli, path, &entry);
    if (code != 0)
        return code;
    if (ls->cli->json)
        begin_list(ls);
    if (entry.kind == REMORA_DIRECTORY)
        code = cli_walk(ls->cli, path, cli_flag(ls->cli, "recursive"), list_entry, ls);
    else
        code = list_entry(ls, CLI_WALK_ENTRY, path, &entry);
    if (ls->cli->json)
        end_list(ls);
    remora_entry_free(&entry);
    return code;
}

int cli_verb_ls(struct cli *cli)
{
    struct ls ls = {.cli = cli, .details = cli_flag(cli, "long")};
    struct cli_path path;
    int code = cli_path(cli->args.words_n > 1 ? cli->args.words[1] : "/", &path);
    if (code == 0)
        code = cli_open_view(cli, cli->args.words[0], REMORA_READ_ONLY);
    if (code != 0)
        return code;
    cli_json_init(&ls.json, stdout);
    return list(&ls, path.text);
}

/* stat */

static void print_stat(struct cli *cli, const char *path, const struct remora_entry *entry)
{
    char mode[CLI_MODE_TEXT], time[CLI_TIME_TEXT];
    cli_format_mode(KIND_LETTERS[entry->kind], entry->mode, mode);
    cli_format_time(seconds_of(entry->mtime_ns), time);
    fputs("path      ", stdout);
    put_name(cli, cli_shown(path));
    printf("\nkind      %s\nmode      %s (%04o)\nowner     %u:%u\nmodified  %s\nlinks     %u\n",
           KIND_NAMES[entry->kind], mode, entry->mode, entry->uid, entry->gid, time, entry->links);
    if (entry->kind == REMORA_FILE)
        printf("size      %llu\ncontent   %s\nhere      %s\n", (unsigned long long)entry->size,
               entry->content[0] != '\0' ? entry->content : "in the entry",
               entry->complete ? "all of it" : "not all of it yet");
    if (entry->target != NULL) {
        fputs("target    ", stdout);
        put_name(cli, entry->target);
        putchar('\n');
    }
    if (entry->kind == REMORA_CHAR || entry->kind == REMORA_BLOCK)
        printf("device    %u, %u\n", entry->major, entry->minor);
    for (size_t i = 0; i < entry->xattrs_n; i++)
        printf("xattr     %s (%zu bytes)\n", entry->xattrs[i].name, entry->xattrs[i].size);
    printf("stamp     %s\n", entry->stamp);
}

int cli_verb_stat(struct cli *cli)
{
    struct cli_json json;
    int code = cli_open_view(cli, cli->args.words[0], REMORA_READ_ONLY);
    for (size_t i = 1; code == 0 && i < cli->args.words_n; i++) {
        struct remora_entry entry;
        struct cli_path path;
        code = cli_path(cli->args.words[i], &path);
        if (code == 0)
            code = cli_stat(cli, path.text, &entry);
        if (code != 0)
            break;
        cli_json_init(&json, stdout);
        if (cli->json) {
            print_entry(&json, path.text, &entry);
            cli_json_close(&json);
        } else {
            print_stat(cli, path.text, &entry);
        }
        remora_entry_free(&entry);
    }
    return code;
}

/* cat */

static int write_all(const uint8_t *data, size_t n)
{
    while (n > 0) {
        ssize_t wrote = write(STDOUT_FILENO, data, n);
        if (wrote < 0 && errno == EINTR && !cli_interrupted())
            continue;
        if (wrote < 0 && errno == EINTR)
            return cli_fail(CLI_INTERRUPTED, "interrupted");
        if (wrote < 0)
            return cli_fail(CLI_FAILED, "cannot write to standard output: %s", strerror(errno));
        data += wrote;
        n -= (size_t)wrote;
    }
    return 0;
}

int cli_cat(struct cli *cli, const char *path, uint64_t offset, uint64_t length)
{
    uint8_t *data = malloc(READ_SIZE);
    int code = 0;
    if (data == NULL)
        return cli_no_memory();
    while (code == 0 && length > 0) {
        size_t n = 0, wanted = length < READ_SIZE ? (size_t)length : READ_SIZE;
        int error = remora_read(cli->remora, &cli->view, path, offset, data, wanted, &n);
        if (error != 0)
            code = cli_fail_call(cli, error, cli_shown(path));
        else
            code = write_all(data, n);
        if (n < wanted) /* the end of the file */
            break;
        offset += n;
        length -= n;
        if (code == 0 && cli_interrupted())
            code = cli_fail(CLI_INTERRUPTED, "interrupted");
    }
    free(data);
    return code;
}

int cli_verb_cat(struct cli *cli)
{
    uint64_t offset = cli_number(cli, "offset", 0), length = cli_number(cli, "length", UINT64_MAX);
    struct cli_path path;
    int code = cli_refuse_json(cli);
    for (size_t i = 1; code == 0 && i < cli->args.words_n; i++)
        code = cli_path(cli->args.words[i], &path);
    if (code == 0)
        code = cli_open_view(cli, cli->args.words[0], REMORA_READ_ONLY);
    for (size_t i = 1; code == 0 && i < cli->args.words_n; i++) {
        code = cli_path(cli->args.words[i], &path);
        if (code == 0)
            code = cli_cat(cli, path.text, offset, length);
    }
    return code;
}

/* du */

struct du {
    struct cli *cli;
    struct cli_json json;
    bool summary;
    struct cli_ids seen; /* files with several names, counted already */
    struct {
        uint64_t bytes, files;
    } * levels; /* of the directories that we are in */
    size_t depth, capacity;
};

static int enter(struct du *du)
{
    if (du->depth == du->capacity) {
        size_t capacity = du->capacity == 0 ? 32 : 2 * du->capacity;
        void *grown = realloc(du->levels, capacity * sizeof du->levels[0]);
        if (grown == NULL)
            return cli_no_memory();
        du->levels = grown;
        du->capacity = capacity;
    }
    du->levels[du->depth].bytes = du->levels[du->depth].files = 0;
    du->depth++;
    return 0;
}

static void print_usage(struct du *du, const char *path, uint64_t bytes, uint64_t files)
{
    char size[CLI_SIZE_TEXT];
    if (du->cli->json) {
        cli_json_begin(&du->json, '{');
        cli_json_pair_text(&du->json, "path", path);
        cli_json_pair_uint(&du->json, "bytes", bytes);
        cli_json_pair_uint(&du->json, "files", files);
        cli_json_end(&du->json, '}');
        return;
    }
    cli_format_size(bytes, size);
    if (du->cli->terminal)
        printf("%10s  ", size);
    else
        printf("%llu\t", (unsigned long long)bytes);
    put_name(du->cli, cli_shown(path));
    putchar('\n');
}

static void leave(struct du *du, const char *path)
{
    size_t at = --du->depth;
    if (!du->summary || at == 0)
        print_usage(du, path, du->levels[at].bytes, du->levels[at].files);
    if (at > 0) {
        du->levels[at - 1].bytes += du->levels[at].bytes;
        du->levels[at - 1].files += du->levels[at].files;
    }
}

static int count(void *context, enum cli_walk_when when, const char *path, const struct remora_entry *entry)
{
    struct du *du = context;
    const char *first;
    if (when == CLI_WALK_LEAVE) {
        leave(du, path);
        return 0;
    }
    if (entry->kind == REMORA_DIRECTORY)
        return enter(du);
    if (entry->has_object) {
        int code = cli_ids_first(&du->seen, entry->object, path, &first);
        if (code != 0 || first != NULL)
            return code;
    }
    du->levels[du->depth - 1].bytes += entry->kind == REMORA_FILE ? entry->size : 0;
    du->levels[du->depth - 1].files++;
    return 0;
}

static int sum(struct du *du, const char *path)
{
    struct remora_entry entry;
    int code = cli_stat(du->cli, path, &entry);
    if (code != 0)
        return code;
    if (du->cli->json) {
        cli_json_begin(&du->json, '{');
        cli_json_key(&du->json, "directories");
        cli_json_begin(&du->json, '[');
    }
    if (entry.kind != REMORA_DIRECTORY) {
        print_usage(du, path, entry.kind == REMORA_FILE ? entry.size : 0, 1);
    } else {
        code = enter(du);
        if (code == 0)
            code = cli_walk(du->cli, path, true, count, du);
        if (code == 0)
            leave(du, path);
    }
    if (du->cli->json) {
        cli_json_end(&du->json, ']');
        cli_json_end(&du->json, '}');
        cli_json_close(&du->json);
    }
    remora_entry_free(&entry);
    return code;
}

int cli_verb_du(struct cli *cli)
{
    struct du du = {.cli = cli, .summary = cli_flag(cli, "summary")};
    struct cli_path path;
    int code = cli_path(cli->args.words_n > 1 ? cli->args.words[1] : "/", &path);
    if (code == 0)
        code = cli_open_view(cli, cli->args.words[0], REMORA_READ_ONLY);
    if (code != 0)
        return code;
    cli_json_init(&du.json, stdout);
    code = sum(&du, path.text);
    cli_ids_close(&du.seen);
    free(du.levels);
    return code;
}
