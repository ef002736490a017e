/* remora keygen. The only verb, besides `node`, that needs no node. */
#include "cli/cli.h"
#include "cli/json.h"

#include "transport/credential.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MINUTE_MS (60ull * 1000)

static uint64_t wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* "90d", "12h", "30m": from now. */
static int parse_span(const char *text, uint64_t *ret_ms)
{
    char *end;
    unsigned long n;
    errno = 0;
    n = strtoul(text, &end, 10);
    if (end == text || errno != 0 || text[0] == '-' || n == 0 || n > 1000000 || end[0] == '\0' ||
        end[1] != '\0')
        return -1;
    switch (*end) {
    case 'm':
        *ret_ms = wall_ms() + n * MINUTE_MS;
        return 0;
    case 'h':
        *ret_ms = wall_ms() + n * 60 * MINUTE_MS;
        return 0;
    case 'd':
        *ret_ms = wall_ms() + n * 24 * 60 * MINUTE_MS;
        return 0;
    default:
        return -1;
    }
}

/* "2027-01-31" or "2027-01-31T12:00:00Z", in UTC. */
static int parse_date(const char *text, uint64_t *ret_ms)
{
    struct tm parts = {0};
    const char *end = strptime(text, "%Y-%m-%d", &parts);
    time_t seconds;
    if (end != NULL && *end == 'T')
        end = strptime(end, "T%H:%M:%SZ", &parts);
    if (end == NULL || *end != '\0')
        return -1;
    seconds = timegm(&parts);
    if (seconds <= 0)
        return -1;
    *ret_ms = (uint64_t)seconds * 1000;
    return 0;
}

static int parse_role(const char *text, enum gossip_role *ret_role)
{
    if (strcmp(text, "voter") == 0)
        *ret_role = GOSSIP_ROLE_VOTER;
    else if (strcmp(text, "cache") == 0)
        *ret_role = GOSSIP_ROLE_CACHE;
    else if (strcmp(text, "client") == 0)
        *ret_role = GOSSIP_ROLE_CLIENT;
    else
        return -1;
    return 0;
}

/* 0, or an exit code after saying what is wrong. volumes has room for every option that can be given. */
static int read_options(const struct cli *cli, struct node_keygen_options *options, const char **volumes)
{
    const char *role = cli_text(cli, "role"), *expires = cli_text(cli, "expires");
    options->path = cli->args.words[0];
    options->from = cli_text(cli, "from");
    options->role = GOSSIP_ROLE_VOTER;
    for (size_t i = 0; i < cli->args.given_n; i++)
        if (strcmp(cli->args.given[i].option->name, "volume") == 0)
            volumes[options->volumes_n++] = cli->args.given[i].text;
    options->volumes = volumes;
    if (options->from == NULL && (role != NULL || expires != NULL || options->volumes_n > 0))
        return cli_fail(CLI_REFUSED,
                        "--role, --volume and --expires are for a credential, which is made --from a key");
    if (options->from != NULL && role == NULL)
        return cli_fail(CLI_REFUSED, "a credential has a --role: voter, cache or client");
    if (role != NULL && parse_role(role, &options->role) != 0)
        return cli_fail(CLI_REFUSED, "--role is voter, cache or client, not \"%s\"", role);
    if (expires != NULL && parse_span(expires, &options->expires_ms) != 0 &&
        parse_date(expires, &options->expires_ms) != 0)
        return cli_fail(CLI_REFUSED, "--expires takes 90d, 12h, 30m or a date like 2027-01-31, not \"%s\"",
                        expires);
    return 0;
}

static void print_json(const struct cli *cli, bool credential)
{
    struct cli_json json;
    cli_json_init(&json, stdout);
    cli_json_begin(&json, '{');
    cli_json_pair_text(&json, "file", cli->args.words[0]);
    cli_json_pair_text(&json, "kind", credential ? "credential" : "key");
    cli_json_end(&json, '}');
    cli_json_close(&json);
}

int cli_verb_keygen(struct cli *cli)
{
    struct node_keygen_options options = {0};
    const char *volumes[CLI_GIVEN_MAX];
    char *message = NULL;
    int code = read_options(cli, &options, volumes), error;
    if (code != 0)
        return code;
    error = node_keygen(&options, &message);
    if (error != 0)
        code = cli_fail(cli_exit_of(error), "%s", message != NULL ? message : replica_error_text(error));
    else if (cli->json)
        print_json(cli, options.from != NULL);
    else
        cli_say(cli, "%s holds %s; whoever can read it belongs to the cluster", options.path,
                options.from == NULL ? "a new cluster key" : "a new credential");
    free(message);
    return code;
}
