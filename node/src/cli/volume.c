/* remora volume … */
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/json.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME_TEXT 256

static void begin(struct replica_buffer *params, size_t n)
{
    replica_buffer_init(params);
    replica_pack_map(params, n);
}

static void pack_text(struct replica_buffer *params, const char *key, const char *value)
{
    replica_pack_cstr(params, key);
    replica_pack_cstr(params, value);
}

/* For those that ask other nodes. */
static void pack_timeout(const struct cli *cli, struct replica_buffer *params)
{
    replica_pack_cstr(params, "timeout_ms");
    replica_pack_uint(params, cli->timeout_ms);
}

/* The whole result as it came, or nothing. */
static void print_json(const struct cli *cli, const struct cli_result *result)
{
    struct replica_pack_reader reader;
    struct cli_json json;
    if (!cli->json)
        return;
    cli_result_reader(result, &reader);
    cli_json_init(&json, stdout);
    cli_json_item(&json, &reader);
    cli_json_close(&json);
}

int cli_verb_volume_create(struct cli *cli)
{
    const char *name = cli->args.words[0];
    uint64_t version = cli_number(cli, "version", 0), voters = cli_number(cli, "voters", 0);
    struct replica_buffer params;
    struct cli_result result;
    int code;
    if (cli_flag(cli, "version") && version != 1 && version != 2)
        return cli_fail(CLI_REFUSED, "--version is 1 or 2");
    code = cli_connect(cli);
    if (code != 0)
        return code;
    begin(&params, 5);
    pack_text(&params, "name", name);
    pack_timeout(cli, &params);
    replica_pack_cstr(&params, "if_missing");
    replica_pack_bool(&params, cli_flag(cli, "if-missing"));
    replica_pack_cstr(&params, "version"); /* nil: 2 for a new one, any for one that exists */
    if (version != 0)
        replica_pack_uint(&params, version);
    else
        replica_pack_nil(&params);
    replica_pack_cstr(&params, "voters");
    if (voters != 0)
        replica_pack_uint(&params, voters);
    else
        replica_pack_nil(&params);
    code = cli_call(cli, "volume.create", &params, NULL, &result);
    if (code == 0) {
        print_json(cli, &result);
        cli_say(cli, "volume %s is there", name);
    }
    cli_result_close(&result);
    return code;
}

static void print_names(const struct replica_pack_reader *map, const char *key)
{
    struct replica_pack_reader reader;
    size_t n = cli_get_array(map, key, &reader), size;
    const char *name;
    for (size_t i = 0; i < n && replica_pack_read_str(&reader, NAME_TEXT, &name, &size) == 0; i++)
        printf("%s%.*s", i > 0 ? "," : "", (int)size, name);
}

static void print_row(const struct replica_pack_reader *map)
{
    char name[NAME_TEXT], creator[NAME_TEXT], created[CLI_TIME_TEXT];
    cli_get_text(map, "name", name, sizeof name);
    cli_get_text(map, "creator", creator, sizeof creator);
    cli_format_time((int64_t)(cli_get_number(map, "created_ms") / 1000), created);
    printf("%-24s  %7llu  %-19s  %-16s  ", name, (unsigned long long)cli_get_number(map, "version"), created,
           creator);
    print_names(map, "voters");
    printf("%s\n", cli_get_bool(map, "deleted") ? "  (deleted)" : "");
}

static void print_list(const struct cli *cli, const struct cli_result *result)
{
    struct replica_pack_reader map, reader;
    size_t n;
    cli_result_reader(result, &map);
    n = cli_get_array(&map, "volumes", &reader);
    if (cli->terminal && n > 0)
        printf("%-24s  %7s  %-19s  %-16s  %s\n", "NAME", "VERSION", "CREATED", "CREATOR", "VOTERS");
    for (size_t i = 0; i < n; i++) {
        struct replica_pack_reader item = reader;
        char name[NAME_TEXT];
        replica_pack_skip(&reader);
        if (cli->terminal) {
            print_row(&item);
        } else {
            cli_get_text(&item, "name", name, sizeof name);
            printf("%s\n", name);
        }
    }
}

int cli_verb_volume_list(struct cli *cli)
{
    struct replica_buffer params;
    struct cli_result result;
    int code = cli_connect(cli);
    if (code != 0)
        return code;
    begin(&params, 1);
    replica_pack_cstr(&params, "deleted");
    replica_pack_bool(&params, cli_flag(cli, "deleted"));
    code = cli_call(cli, "volume.list", &params, NULL, &result);
    if (code == 0) {
        print_json(cli, &result);
        if (!cli->json)
            print_list(cli, &result);
    }
    cli_result_close(&result);
    return code;
}

static void print_id(const struct replica_pack_reader *map)
{
    struct replica_pack_reader value;
    struct replica_id id;
    char text[33] = "";
    if (cli_find(map, "id", &value) && replica_pack_read_id(&value, &id) == 0)
        replica_id_format(&id, text);
    printf("id            %s\n", text);
}

static void print_time(const char *label, uint64_t ms)
{
    char text[CLI_TIME_TEXT] = "never";
    if (ms != 0)
        cli_format_time((int64_t)(ms / 1000), text);
    printf("%-13s %s\n", label, text);
}

static void print_bytes(const char *label, uint64_t bytes)
{
    char text[CLI_SIZE_TEXT];
    cli_format_size(bytes, text);
    printf("%-13s %s (%llu bytes)\n", label, text, (unsigned long long)bytes);
}

static void print_info(const struct cli_result *result)
{
    struct replica_pack_reader map, reader;
    char text[NAME_TEXT];
    const char *warning;
    size_t n, size;
    cli_result_reader(result, &map);
    cli_get_text(&map, "name", text, sizeof text);
    printf("name          %s\n", text);
    print_id(&map);
    printf("version       %llu\n", (unsigned long long)cli_get_number(&map, "version"));
    print_time("created", cli_get_number(&map, "created_ms"));
    cli_get_text(&map, "creator", text, sizeof text);
    printf("creator       %s\nvoters        ", text);
    print_names(&map, "voters");
    printf("\n");
    print_bytes("size", cli_get_number(&map, "size"));
    printf("files         %llu\ndirectories   %llu\n", (unsigned long long)cli_get_number(&map, "files"),
           (unsigned long long)(cli_get_number(&map, "inodes") - cli_get_number(&map, "files")));
    print_bytes("history", cli_get_number(&map, "history_size"));
    print_time("last commit", cli_get_number(&map, "last_commit_ms"));
    n = cli_get_array(&map, "warnings", &reader);
    for (size_t i = 0; i < n && replica_pack_read_str(&reader, CLI_MESSAGE_MAX, &warning, &size) == 0; i++)
        printf("warning       %.*s\n", (int)size, warning);
}

/* A call whose only parameter is the volume's name. */
static int call_named(struct cli *cli, const char *method, const char *name, struct cli_result *ret_result)
{
    struct replica_buffer params;
    int code = cli_connect(cli);
    *ret_result = (struct cli_result){0};
    if (code != 0)
        return code;
    begin(&params, 2);
    pack_text(&params, "name", name);
    pack_timeout(cli, &params);
    return cli_call(cli, method, &params, NULL, ret_result);
}

int cli_verb_volume_info(struct cli *cli)
{
    struct cli_result result;
    int code = call_named(cli, "volume.info", cli->args.words[0], &result);
    if (code == 0) {
        print_json(cli, &result);
        if (!cli->json)
            print_info(&result);
    }
    cli_result_close(&result);
    return code;
}

/* 0: go on. Who cannot be asked has to say -y. */
static int confirm(const struct cli *cli, const char *question, const char *name)
{
    char answer[16];
    if (cli_flag(cli, "yes"))
        return 0;
    if (!isatty(STDIN_FILENO))
        return cli_fail(CLI_REFUSED, "%s %s? There is nobody to ask: give -y if so", question, name);
    fprintf(stderr, "%s %s? [y/N] ", question, name);
    if (fgets(answer, sizeof answer, stdin) != NULL && (answer[0] == 'y' || answer[0] == 'Y'))
        return 0;
    return cli_fail(CLI_REFUSED, "nothing was changed");
}

int cli_verb_volume_rename(struct cli *cli)
{
    const char *name = cli->args.words[0], *new_name = cli->args.words[1];
    struct replica_buffer params;
    struct cli_result result;
    int code = confirm(cli, "Rename the volume", name);
    if (code == 0)
        code = cli_connect(cli);
    if (code != 0)
        return code;
    begin(&params, 3);
    pack_text(&params, "name", name);
    pack_text(&params, "new_name", new_name);
    pack_timeout(cli, &params);
    code = cli_call(cli, "volume.rename", &params, NULL, &result);
    if (code == 0) {
        print_json(cli, &result);
        cli_say(cli, "volume %s is now %s", name, new_name);
    }
    cli_result_close(&result);
    return code;
}

static void tell_missing(const struct cli *cli, const char *name)
{
    struct cli_json json;
    cli_say(cli, "there is no volume %s", name);
    if (!cli->json)
        return;
    cli_json_init(&json, stdout);
    cli_json_begin(&json, '{');
    cli_json_pair_text(&json, "name", name);
    cli_json_pair_bool(&json, "missing", true);
    cli_json_end(&json, '}');
    cli_json_close(&json);
}

int cli_verb_volume_delete(struct cli *cli)
{
    const char *name = cli->args.words[0];
    struct replica_buffer params;
    void *result = NULL;
    size_t size;
    int code = confirm(cli, "Delete the volume", name), error;
    if (code == 0)
        code = cli_connect(cli);
    if (code != 0)
        return code;
    begin(&params, 2);
    pack_text(&params, "name", name);
    pack_timeout(cli, &params);
    error = remora_call(cli->remora, "volume.delete", params.data, params.size, NULL, 0, &result, &size, NULL,
                        NULL);
    replica_buffer_close(&params);
    if (error == 0 && cli->json)
        print_json(cli, &(struct cli_result){result, size});
    free(result);
    if (error == REPLICA_E_NOTFOUND && cli_flag(cli, "allow-missing")) {
        tell_missing(cli, name);
        return 0;
    }
    if (error != 0)
        return cli_fail_call(cli, error, NULL);
    cli_say(cli, "volume %s is deleted; for a day, `remora volume undelete %s` brings it back", name, name);
    return 0;
}

int cli_verb_volume_undelete(struct cli *cli)
{
    struct cli_result result;
    int code = call_named(cli, "volume.undelete", cli->args.words[0], &result);
    if (code == 0) {
        print_json(cli, &result);
        cli_say(cli, "volume %s is back", cli->args.words[0]);
    }
    cli_result_close(&result);
    return code;
}
