#include "config.h"

#include "gossip/control.h"
#include "node.h"
#include "policy.h"
#include "replica/error.h"
#include "socket_path.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

#define FREE_SPACE_MOST   (1ull << 30) /* default floor: 1 GiB … */
#define FREE_SPACE_PART   20           /* … or a twentieth of the disk */
#define SECONDS_MAX       86400        /* longer than a day is a mistake in the unit */
#define FILE_LINE_MAX     8192         /* 64 join addresses of 255 bytes do not all fit, 30 do */
#define LISTEN_DEFAULT    "tcp://127.0.0.1:7410"
#define SOCKET_PATH_LIMIT (sizeof((struct sockaddr_un *)0)->sun_path - 1)

static int complain(char **ret_message, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int complain(char **ret_message, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(ret_message, format, arguments) < 0)
        *ret_message = NULL;
    va_end(arguments);
    return REPLICA_E_INVALID;
}

static int replace(char **text, const char *value)
{
    char *copy = strdup(value);
    if (copy == NULL)
        return REPLICA_E_NOMEM;
    free(*text);
    *text = copy;
    return 0;
}

/* "10G", "512MiB", "1000" → bytes (K, M, G, T, P are powers of 1024). Errors: INVALID. */
static int parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char UNITS[] = "KMGTP";
    const char *unit;
    char *end;
    unsigned long long value;
    unsigned shift = 0;
    if (!isdigit((unsigned char)text[0]))
        return REPLICA_E_INVALID;
    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0)
        return REPLICA_E_INVALID;
    unit = *end == '\0' ? NULL : strchr(UNITS, toupper((unsigned char)*end));
    if (unit != NULL) {
        shift = 10u * (unsigned)(unit - UNITS + 1);
        end++;
        if (*end == 'i')
            end += end[1] == 'B' ? 2 : 0;
        else if (*end == 'B')
            end++;
    } else if (*end == 'B') {
        end++;
    }
    if (*end != '\0' || value > UINT64_MAX >> shift)
        return REPLICA_E_INVALID;
    *ret_bytes = (uint64_t)value << shift;
    return 0;
}

static int default_data(char **ret_data)
{
    const char *home = getenv("HOME"), *data_home = getenv("XDG_DATA_HOME");
    int n;
    if (geteuid() == 0)
        n = asprintf(ret_data, "/var/lib/remora");
    else if (data_home != NULL && data_home[0] == '/')
        n = asprintf(ret_data, "%s/remora", data_home);
    else if (home != NULL && home[0] == '/')
        n = asprintf(ret_data, "%s/.local/share/remora", home);
    else
        n = asprintf(ret_data, "/var/tmp/remora-%u", (unsigned)geteuid());
    if (n < 0)
        *ret_data = NULL;
    return n < 0 ? REPLICA_E_NOMEM : 0;
}

int node_config_init(struct node_config *config)
{
    char socket_path[PATH_MAX], host[GOSSIP_NAME_MAX + 1];
    int code;
    memset(config, 0, sizeof *config);
    config->free_space = NODE_FREE_SPACE_DEFAULT;
    config->shutdown_timeout_s = 25; /* container managers kill after 30 */
    config->background_commit_s = 5;
    config->log_level = NODE_LOG_INFO;
    socket_path_default(socket_path, sizeof socket_path);
    memset(host, 0, sizeof host);
    if (gethostname(host, sizeof host - 1) != 0 || host[0] == '\0')
        strcpy(host, "node");
    code = default_data(&config->data);
    if (code == 0)
        code = replace(&config->socket, socket_path);
    if (code == 0)
        code = replace(&config->listen, LISTEN_DEFAULT);
    if (code == 0)
        code = replace(&config->zone, "");
    if (code == 0)
        code = replace(&config->name, host);
    if (code == 0)
        code = replace(&config->allow, "");
    if (code != 0)
        node_config_close(config);
    return code;
}

static void clear_join(struct node_config *config)
{
    for (size_t i = 0; i < config->join_n; i++)
        free(config->join[i]);
    config->join_n = 0;
}

void node_config_close(struct node_config *config)
{
    free(config->data);
    free(config->socket);
    free(config->listen);
    free(config->advertise);
    free(config->key);
    free(config->zone);
    free(config->name);
    free(config->allow);
    free(config->config_file);
    clear_join(config);
    memset(config, 0, sizeof *config);
}

/* tcp://host:port with a port of 1–65534, because data is on the next one; 0 where a free pair is to be
 * taken. */
static bool endpoint_is_valid(const char *text, bool may_be_zero)
{
    const char *host = text + 6, *colon;
    unsigned long port;
    char *end;
    if (strncmp(text, "tcp://", 6) != 0 || strlen(text) > GOSSIP_ENDPOINT_MAX)
        return false;
    colon = strrchr(host, ':');
    if (colon == NULL || colon == host || !isdigit((unsigned char)colon[1]))
        return false;
    if (memchr(host, ':', (size_t)(colon - host)) != NULL && (host[0] != '[' || colon[-1] != ']'))
        return false;
    for (const char *c = host; c < colon; c++)
        if (!isgraph((unsigned char)*c) || *c == '/' || *c == ',')
            return false;
    port = strtoul(colon + 1, &end, 10);
    return *end == '\0' && port <= 65534 && (port > 0 || may_be_zero);
}

static int set_text(char **field, const char *name, const char *value, char **ret_message)
{
    if (value[0] == '\0')
        return complain(ret_message, "%s: a value is needed", name);
    return replace(field, value);
}

static int set_socket(char **field, const char *name, const char *value, char **ret_message)
{
    if (strlen(value) > SOCKET_PATH_LIMIT)
        return complain(ret_message,
                        "%s: \"%s\" has more than %zu bytes, the system's limit for the path of a socket; "
                        "choose a shorter one",
                        name, value, SOCKET_PATH_LIMIT);
    return set_text(field, name, value, ret_message);
}

static int set_endpoint(char **field, const char *name, const char *value, char **ret_message)
{
    if (!endpoint_is_valid(value, strcmp(name, "listen") == 0))
        return complain(ret_message,
                        "%s: \"%s\" is not an address; write tcp://HOST:PORT (an IPv6 address in brackets, "
                        "PORT at most 65534)",
                        name, value);
    return replace(field, value);
}

static bool label_is_valid(const char *text, size_t max)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)text[i]) && strchr("-_.", text[i]) == NULL)
            return false;
    return n >= 1 && n <= max;
}

static int set_label(char **field, const char *name, const char *value, size_t max, char **ret_message)
{
    if (!label_is_valid(value, max))
        return complain(ret_message,
                        "%s: \"%s\" is not a name; use 1 to %zu letters, digits, \"-\", \"_\" and \".\"",
                        name, value, max);
    return replace(field, value);
}

/* The whole list at once; a later setting replaces it. */
static int set_join(struct node_config *config, const char *name, const char *value, char **ret_message)
{
    char *list = strdup(value), *rest = list, *one;
    int code = list == NULL ? REPLICA_E_NOMEM : 0;
    clear_join(config);
    while (code == 0 && (one = strsep(&rest, ",")) != NULL) {
        one += strspn(one, " \t");
        one[strcspn(one, " \t")] = '\0';
        if (config->join_n == GOSSIP_JOIN_MAX) {
            code = complain(ret_message,
                            "%s: more than %d addresses; a few nodes that are always there are enough", name,
                            GOSSIP_JOIN_MAX);
            break;
        }
        config->join[config->join_n] = NULL;
        code = set_endpoint(&config->join[config->join_n], name, one, ret_message);
        if (code == 0)
            config->join_n++;
    }
    free(list);
    return code;
}

static int set_bytes(uint64_t *field, const char *name, const char *value, char **ret_message)
{
    if (parse_size(value, field) != 0)
        return complain(ret_message,
                        "%s: \"%s\" is not a size; write a whole number, with K, M, G or T for powers of "
                        "1024 (10G, 512MiB)",
                        name, value);
    return 0;
}

static int set_number(uint32_t *field, const char *name, const char *value, uint32_t min, uint32_t max,
                      char **ret_message)
{
    char *end;
    unsigned long number;
    errno = 0;
    number = strtoul(value, &end, 10);
    if (!isdigit((unsigned char)value[0]) || *end != '\0' || errno != 0 || number < min || number > max)
        return complain(ret_message, "%s: \"%s\" is not a number from %u to %u", name, value, min, max);
    *field = (uint32_t)number;
    return 0;
}

static int set_bool(bool *field, const char *name, const char *value, char **ret_message)
{
    static const char *const YES[] = {"", "true", "yes", "on", "1"}, *const NO[] = {"false", "no", "off",
                                                                                    "0"};
    for (size_t i = 0; i < sizeof YES / sizeof YES[0]; i++)
        if (strcasecmp(value, YES[i]) == 0) {
            *field = true;
            return 0;
        }
    for (size_t i = 0; i < sizeof NO / sizeof NO[0]; i++)
        if (strcasecmp(value, NO[i]) == 0) {
            *field = false;
            return 0;
        }
    return complain(ret_message, "%s: \"%s\" is neither true nor false", name, value);
}

static int set_level(int *field, const char *name, const char *value, char **ret_message)
{
    static const char *const LEVELS[] = {"debug", "info", "warning", "error"};
    for (int i = 0; i < 4; i++)
        if (strcasecmp(value, LEVELS[i]) == 0) {
            *field = i;
            return 0;
        }
    return complain(ret_message, "%s: \"%s\" is not one of debug, info, warning, error", name, value);
}

static int set_allow(struct node_config *config, const char *name, const char *value, char **ret_message)
{
    struct node_policy *policy;
    char *reason;
    int code = node_policy_parse(value, &policy, &reason);
    if (code == 0) {
        node_policy_destroy(&policy);
        return replace(&config->allow, value);
    }
    if (reason != NULL)
        complain(ret_message, "%s: %s", name, reason);
    free(reason);
    return code;
}

static int set_listen(struct node_config *config, const char *name, const char *value, char **ret_message)
{
    int code = set_endpoint(&config->listen, name, value, ret_message);
    if (code == 0)
        config->listen_given = true;
    return code;
}

enum setting_type { ALLOW, TEXT, SOCKET, LISTEN, ENDPOINT, LABEL, JOIN, BYTES, NUMBER, BOOL, LEVEL };

struct setting {
    const char *name;
    enum setting_type type;
    size_t offset;
    uint32_t min, max;    /* of a number; max also of a label's length */
    const char *argument; /* for people; NULL: a switch */
    const char *help;
};
#define AT(field) offsetof(struct node_config, field)

static const struct setting SETTINGS[] = {
    {"data", TEXT, AT(data), 0, 0, "DIR",
     "the store: identity, log, map and contents (/var/lib/remora as root, else ~/.local/share/remora)"},
    {"socket", SOCKET, AT(socket), 0, 0, "PATH",
     "of the API socket (/run/remora/remora.sock as root, else $XDG_RUNTIME_DIR/remora/remora.sock)"},
    {"listen", LISTEN, AT(listen), 0, 0, "tcp://H:P",
     "control channel; data is on the next port (tcp://127.0.0.1:7410, or the next free pair)"},
    {"advertise", ENDPOINT, AT(advertise), 0, 0, "tcp://H:P",
     "what others reach this node by, if not the address listened on"},
    {"key", TEXT, AT(key), 0, 0, "FILE",
     "a cluster key or credential, made by `remora keygen`; needed beyond this machine"},
    {"allow", ALLOW, AT(allow), 0, 0, "RULES",
     "users of this machine that may use volumes: \"uid:1000=weights:ro,logs gid:100=*:ro\" (only the node's "
     "user and group)"},
    {"zone", LABEL, AT(zone), 0, GOSSIP_ZONE_MAX, "Z", "where this node is: voters are spread over zones"},
    {"name", LABEL, AT(name), 0, GOSSIP_NAME_MAX, "NAME", "for people, in listings (the host name)"},
    {"config", TEXT, AT(config_file), 0, 0, "FILE", "lines \"name = value\", named as these flags"},
    {"join", JOIN, AT(join), 0, 0, "tcp://H:P[,...]",
     "addresses of nodes of the cluster; names are resolved anew at each try"},
    {"capacity", BYTES, AT(capacity), 0, 0, "SIZE",
     "bytes of contents that a voter takes in, then exit 5 (0: what the disk has)"},
    {"cache-size", BYTES, AT(cache_size), 0, 0, "SIZE",
     "bytes of contents that another node holds; of a voter, on top of --capacity (0: what the disk has)"},
    {"free-space", BYTES, AT(free_space), 0, 0, "SIZE",
     "what is left free on the disk; less is refused, exit 5 (1 GiB, or a twentieth of the disk)"},
    {"expect", NUMBER, AT(expect), 1, GOSSIP_CONTROL_MEMBERS_MAX, "N",
     "begin a cluster with exactly the N nodes in --join, this one among them; 1, 3 or 5"},
    {"shutdown-timeout", NUMBER, AT(shutdown_timeout_s), 0, SECONDS_MAX, "S",
     "seconds for the last commits at SIGTERM (25)"},
    {"background-commit", NUMBER, AT(background_commit_s), 1, SECONDS_MAX, "S",
     "seconds between commits of views that are opened with auto (5)"},
    {"vote", BOOL, AT(vote), 0, 0, NULL, "a candidate for voting: keeps whole volumes"},
    {"data-plain", BOOL, AT(data_plain), 0, 0, NULL,
     "contents travel unencrypted (they are verified anyway); all nodes alike"},
    {"log-json", BOOL, AT(log_json), 0, 0, NULL, "log lines as JSON"},
    {"log-level", LEVEL, AT(log_level), 0, 0, "LEVEL", "debug, info, warning or error (info)"},
};
#define SETTINGS_N (sizeof SETTINGS / sizeof SETTINGS[0])

static int apply(struct node_config *config, const struct setting *setting, const char *value,
                 char **ret_message)
{
    void *field = (char *)config + setting->offset;
    switch (setting->type) {
    case ALLOW:
        return set_allow(config, setting->name, value, ret_message);
    case TEXT:
        return set_text(field, setting->name, value, ret_message);
    case SOCKET:
        return set_socket(field, setting->name, value, ret_message);
    case LISTEN:
        return set_listen(config, setting->name, value, ret_message);
    case ENDPOINT:
        return set_endpoint(field, setting->name, value, ret_message);
    case LABEL:
        return set_label(field, setting->name, value, setting->max, ret_message);
    case JOIN:
        return set_join(config, setting->name, value, ret_message);
    case BYTES:
        return set_bytes(field, setting->name, value, ret_message);
    case NUMBER:
        return set_number(field, setting->name, value, setting->min, setting->max, ret_message);
    case BOOL:
        return set_bool(field, setting->name, value, ret_message);
    case LEVEL:
        return set_level(field, setting->name, value, ret_message);
    }
    abort();
}

int node_config_set(struct node_config *config, const char *name, const char *value, char **ret_message)
{
    for (size_t i = 0; i < SETTINGS_N; i++)
        if (strcmp(name, SETTINGS[i].name) == 0)
            return apply(config, &SETTINGS[i], value == NULL ? "" : value, ret_message);
    return complain(ret_message, "%s: no such setting; `remora node --help` lists them", name);
}

static void variable_of(const char *setting, char *ret_name, size_t n)
{
    snprintf(ret_name, n, "REMORA_%s", setting);
    for (char *c = ret_name; *c != '\0'; c++)
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

void node_config_each(void (*visit)(void *context, const char *name, const char *variable,
                                    const char *argument, const char *help),
                      void *context)
{
    for (size_t i = 0; i < SETTINGS_N; i++) {
        char variable[64];
        variable_of(SETTINGS[i].name, variable, sizeof variable);
        visit(context, SETTINGS[i].name, variable, SETTINGS[i].argument, SETTINGS[i].help);
    }
}

bool node_config_is_known(const char *name)
{
    for (size_t i = 0; i < SETTINGS_N; i++)
        if (strcmp(name, SETTINGS[i].name) == 0)
            return true;
    return false;
}

bool node_config_is_switch(const char *name)
{
    for (size_t i = 0; i < SETTINGS_N; i++)
        if (strcmp(name, SETTINGS[i].name) == 0)
            return SETTINGS[i].argument == NULL;
    return false;
}

/* What node_config_set said, behind where the setting came from. */
static int locate(int code, const char *where, char **ret_message)
{
    char *said = *ret_message;
    if (code == 0 || said == NULL)
        return code;
    if (asprintf(ret_message, "%s: %s", where, said) < 0)
        *ret_message = said;
    else
        free(said);
    return code;
}

int node_config_environment(struct node_config *config, char **ret_message)
{
    for (size_t i = 0; i < SETTINGS_N; i++) {
        char variable[64];
        const char *value;
        int code;
        variable_of(SETTINGS[i].name, variable, sizeof variable);
        value = getenv(variable);
        if (value == NULL || value[0] == '\0') /* manifests leave empty ones behind */
            continue;
        *ret_message = NULL;
        code = apply(config, &SETTINGS[i], value, ret_message);
        if (code != 0)
            return locate(code, variable, ret_message);
    }
    return 0;
}

static char *trim(char *text)
{
    size_t n;
    text += strspn(text, " \t");
    n = strlen(text);
    while (n > 0 && strchr(" \t\r\n", text[n - 1]) != NULL)
        text[--n] = '\0';
    return text;
}

/* A # at the beginning or after a blank starts a comment; elsewhere it may belong to a path. */
static void cut_comment(char *line)
{
    for (char *c = line; *c != '\0'; c++)
        if (*c == '#' && (c == line || c[-1] == ' ' || c[-1] == '\t')) {
            *c = '\0';
            return;
        }
}

static int apply_line(struct node_config *config, char *line, char **ret_message)
{
    char *name, *value, *equals;
    cut_comment(line);
    name = trim(line);
    if (*name == '\0')
        return 0;
    equals = strchr(name, '=');
    if (equals == NULL)
        return complain(ret_message, "\"%s\" is not of the form \"name = value\"", name);
    *equals = '\0';
    name = trim(name);
    value = trim(equals + 1);
    if (strcmp(name, "config") == 0)
        return complain(ret_message, "config: a configuration file cannot name another");
    return node_config_set(config, name, value, ret_message);
}

int node_config_file(struct node_config *config, const char *path, char **ret_message)
{
    char line[FILE_LINE_MAX], where[PATH_MAX + 32];
    int code = 0;
    unsigned number = 0;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return complain(ret_message, "config: cannot read \"%s\": %s", path, strerror(errno));
    while (code == 0 && fgets(line, sizeof line, file) != NULL) {
        number++;
        *ret_message = NULL;
        if (strlen(line) == sizeof line - 1)
            code = complain(ret_message, "a line of %d bytes or more; the settings are shorter",
                            FILE_LINE_MAX - 1);
        else
            code = apply_line(config, line, ret_message);
        snprintf(where, sizeof where, "%s:%u", path, number);
        code = locate(code, where, ret_message);
    }
    if (code == 0 && ferror(file))
        code = complain(ret_message, "config: cannot read \"%s\": %s", path, strerror(errno));
    fclose(file);
    return code;
}

static void host_of(const char *endpoint, char *ret_host, size_t n)
{
    const char *host = endpoint + strlen("tcp://"), *colon = strrchr(host, ':');
    snprintf(ret_host, n, "%.*s", (int)(colon - host), host);
}

static bool is_loopback(const char *endpoint)
{
    char host[GOSSIP_ENDPOINT_MAX + 1];
    host_of(endpoint, host, sizeof host);
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "[::1]") == 0 || strcmp(host, "localhost") == 0;
}

static bool is_wildcard(const char *endpoint)
{
    char host[GOSSIP_ENDPOINT_MAX + 1];
    host_of(endpoint, host, sizeof host);
    return strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "[::]") == 0;
}

int node_config_check(const struct node_config *config, char **ret_message)
{
    if (config->expect != 0 && config->expect % 2 == 0)
        return complain(
            ret_message,
            "expect: %u is even, and an odd number of nodes is what can have a majority; use 1, 3 or 5",
            config->expect);
    if (config->expect != 0 && config->join_n != config->expect)
        return complain(ret_message,
                        "expect: %u nodes are expected and join lists %zu addresses; list exactly those %u, "
                        "this node's among them",
                        config->expect, config->join_n, config->expect);
    if (config->join_n > 0 && config->key == NULL)
        return complain(
            ret_message,
            "join: nodes join with a cluster key; give its file by key (`remora keygen FILE` makes one)");
    if (config->key == NULL && !is_loopback(config->listen))
        return complain(ret_message,
                        "listen: without a cluster key a node listens on 127.0.0.1 only, and \"%s\" is not "
                        "it; give a key file by "
                        "key (`remora keygen FILE` makes one)",
                        config->listen);
    if (is_wildcard(config->listen) && config->advertise == NULL)
        return complain(ret_message,
                        "advertise: listening on \"%s\" does not say where others reach this node; give its "
                        "own address by advertise",
                        config->listen);
    if (config->advertise != NULL && is_wildcard(config->advertise))
        return complain(ret_message, "advertise: nobody can reach \"%s\"; give this node's own address",
                        config->advertise);
    return 0;
}

/* The nearest ancestor that exists tells the disk of a directory that is yet to be made. */
uint64_t node_config_free_space(const struct node_config *config)
{
    struct statvfs disk;
    char path[PATH_MAX];
    char *slash;
    uint64_t part;
    if (config->free_space != NODE_FREE_SPACE_DEFAULT)
        return config->free_space;
    snprintf(path, sizeof path, "%s", config->data);
    while (statvfs(path, &disk) != 0) {
        slash = strrchr(path, '/');
        if (slash == NULL)
            strcpy(path, ".");
        else if (slash == path)
            return FREE_SPACE_MOST;
        else
            *slash = '\0';
        if (slash == NULL && statvfs(path, &disk) != 0)
            return FREE_SPACE_MOST;
    }
    part = (uint64_t)disk.f_blocks * disk.f_frsize / FREE_SPACE_PART;
    return part < FREE_SPACE_MOST ? part : FREE_SPACE_MOST;
}
