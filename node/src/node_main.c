#include "node_main.h"

#include "config.h"
#include "log.h"
#include "node.h"
#include "replica/error.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REOPEN_RETRY_MS 1000

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NO_SPACE = 5, EXIT_BUSY = 6, EXIT_DENIED = 7 };

static void print_setting(void *context, const char *name, const char *variable, const char *argument,
                          const char *help)
{
    char flag[64];
    (void)context;
    snprintf(flag, sizeof flag, "--%s%s%s", name, argument != NULL ? " " : "",
             argument != NULL ? argument : "");
    printf("  %-28s %s\n  %-28s   %s\n", flag, help, "", variable);
}

static void print_help(void)
{
    printf("usage: remora node [OPTION...]\n\n"
           "Runs a node in the foreground until SIGTERM or SIGINT. Without any flag it is a cluster of its "
           "own on this machine.\n"
           "Each flag can also be given by the variable named below it, or in a file; flags win over "
           "variables, those over the file.\n\n");
    node_config_each(print_setting, NULL);
    printf("\nA SIZE is in bytes, or with K, M, G, T or P (powers of 1024). Exit codes: 0 stopped in order, "
           "1 failed, or "
           "drafts\n"
           "of `auto` views could not be committed (they are kept), 2 a flag or setting is wrong, 5 no "
           "space, 6 the port "
           "or the\n"
           "data directory is in use, 7 the key or the directory may not be read.\n");
}

static int complain(const char *message)
{
    fprintf(stderr, "remora node: %s\n", message);
    return EXIT_USAGE;
}

/* "--name value", "--name=value", "--name" of a switch. Only --config is read in the first pass, all else in
 * the second. */
static int read_flags(struct node_config *config, int argc, char **argv, bool only_config, char **ret_message)
{
    for (int i = 1; i < argc; i++) {
        const char *equals, *value;
        char name[64];
        int rv = 0;
        if (strncmp(argv[i], "--", 2) != 0 || strlen(argv[i]) - 2 >= sizeof name)
            return asprintf(ret_message, "\"%s\" is not a flag; `remora node --help` lists them", argv[i]),
                   REPLICA_E_INVALID;
        equals = strchr(argv[i], '=');
        value = equals != NULL ? equals + 1 : NULL;
        snprintf(name, sizeof name, "%.*s",
                 equals != NULL ? (int)(equals - argv[i] - 2) : (int)sizeof name - 1, argv[i] + 2);
        if (!node_config_is_known(name) && strcmp(name, "config") != 0)
            return asprintf(ret_message, "there is no flag --%s; `remora node --help` lists them", name),
                   REPLICA_E_INVALID;
        if (value == NULL && !node_config_is_switch(name)) {
            if (i + 1 == argc && (only_config || strcmp(name, "config") != 0))
                return asprintf(ret_message, "--%s needs a value; `remora node --help` tells which", name),
                       REPLICA_E_INVALID;
            value = argv[++i];
        }
        if ((strcmp(name, "config") == 0) == only_config)
            rv = node_config_set(config, name, value, ret_message);
        if (rv != 0)
            return rv;
    }
    return 0;
}

/* Later wins: defaults, file, environment, flags. */
static int read_config(struct node_config *config, int argc, char **argv, char **ret_message)
{
    const char *file;
    int rv = read_flags(config, argc, argv, true, ret_message);
    file = config->config_file != NULL ? config->config_file : getenv("REMORA_CONFIG");
    if (rv == 0 && file != NULL && file[0] != '\0')
        rv = node_config_file(config, file, ret_message);
    if (rv == 0)
        rv = node_config_environment(config, ret_message);
    if (rv == 0)
        rv = read_flags(config, argc, argv, false, ret_message);
    return rv == 0 ? node_config_check(config, ret_message) : rv;
}

/* A signal that ends the process, within that time. Nodes leave them blocked. */
static bool is_told_to_end(unsigned ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return sigtimedwait(&set, NULL, &time) > 0;
}

/* In place of one whose disk was full: the room may be gone again, or the port not free yet. */
static int reopen(const struct node_config *config, struct node **ret_node, char **ret_message)
{
    int rv;
    while ((rv = node_new(config, ret_node, ret_message)) == REPLICA_E_NOSPACE || rv == REPLICA_E_BUSY) {
        node_log(NODE_LOG_WARNING, "store_reopens", "error=%s text=\"%s\"", replica_error_symbol(rv),
                 *ret_message != NULL ? *ret_message : replica_error_text(rv));
        if (is_told_to_end(REOPEN_RETRY_MS))
            break;
        free(*ret_message);
        *ret_message = NULL;
    }
    return rv;
}

static int run(const struct node_config *config)
{
    struct node *node = NULL;
    char *message = NULL;
    size_t unfinished = 0;
    bool again = false, reopens = false;
    int rv = node_new(config, &node, &message);
    while (rv == 0) {
        rv = node_run(node, again, &unfinished);
        reopens = rv == 0 && node_is_to_reopen(node);
        node_destroy(&node);
        if (!reopens)
            break;
        again = true;
        rv = reopen(config, &node, &message);
    }
    if (rv != 0)
        fprintf(stderr, "remora node: %s\n", message != NULL ? message : replica_error_text(rv));
    free(message);
    switch (rv) {
    case 0:
        return unfinished > 0 ? EXIT_FAILED : EXIT_OK;
    case REPLICA_E_NOSPACE:
        return EXIT_NO_SPACE;
    case REPLICA_E_BUSY:
        return EXIT_BUSY;
    case REPLICA_E_DENIED:
        return EXIT_DENIED;
    default:
        return EXIT_FAILED;
    }
}

int node_main(int argc, char **argv)
{
    struct node_config config;
    char *message = NULL;
    int code;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help();
            return EXIT_OK;
        }
    if (node_config_init(&config) != 0)
        return complain("out of memory");
    if (read_config(&config, argc, argv, &message) != 0) {
        code = complain(message != NULL ? message : "out of memory");
    } else {
        node_log_configure(config.log_level, config.log_json);
        code = run(&config);
    }
    free(message);
    node_config_close(&config);
    return code;
}
