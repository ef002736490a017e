/* cli: the command line. Every verb but `remora node` is a client of a node's local API (remora/remora.h) and
 * nothing more.
 *
 * A verb is a row of the table in verbs.c and a function that gets a struct cli and returns an exit code.
 * What failed has been said on standard error by then. Single-threaded. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "cli/args.h"
#include "cli/format.h"
#include "cli/progress.h"
#include "remora/remora.h"
#include "replica/error.h"
#include "replica/pack.h"
#include "replica/path.h"

#include <stdio.h>

enum cli_exit {
    CLI_DONE = 0,
    CLI_FAILED = 1,
    CLI_REFUSED = 2, /* usage, or refused: it exists */
    CLI_UNAVAILABLE = 3,
    CLI_INDETERMINATE = 4,
    CLI_NO_SPACE = 5,
    CLI_BUSY = 6,
    CLI_DENIED = 7,
    CLI_INTERRUPTED = 130,
};

#define CLI_CONNECT_MS 10000 /* how long verbs wait for a node that is starting */
#define CLI_TIMEOUT_MS 30000

struct cli {
    struct cli_args args;
    const struct cli_verb *verbs;
    size_t verbs_n;
    bool json, quiet;
    bool terminal; /* standard output is one */
    uint32_t timeout_ms;
    struct remora *remora; /* NULL: not connected */
    struct remora_view view;
    bool view_open;
    struct cli_progress progress;
};

/* argv as main has it; returns the exit code. */
int cli_main(int argc, char **argv);

/* Options of the verb in course. */
bool cli_flag(const struct cli *cli, const char *option);
const char *cli_text(const struct cli *cli, const char *option); /* NULL: not given */
uint64_t cli_number(const struct cli *cli, const char *option, uint64_t otherwise);

/* "remora: …" on standard error; returns code, so that a verb can end with it. */
int cli_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cli_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A word about success, on standard error; nothing with --quiet or --json. */
void cli_say(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));
int cli_no_memory(void);
/* For verbs that write a file's own bytes to standard output. 0, or CLI_REFUSED after saying so. */
int cli_refuse_json(const struct cli *cli);

/* The exit code that an error of the API stands for. */
int cli_exit_of(int error);
int cli_exit_of_errno(int error); /* of a local call */
/* Says what the last call of remora.h complained of, and returns the exit code of `error`. about: the thing,
 * or NULL. */
int cli_fail_call(struct cli *cli, int error, const char *about);

/* Interrupts: SIGINT and SIGTERM set a flag once a node is connected; before that they just end the process.
 */
void cli_catch_interrupts(void);
bool cli_interrupted(void);
bool cli_terminated(void); /* by SIGTERM: asked to stop in good order */

/* A connection, within the time that verbs wait for a node. 0 or an exit code. */
int cli_connect(struct cli *cli);
void cli_prepare(struct cli *cli); /* what a new connection in cli->remora needs */
/* Connects if need be and opens a private view: of the newest commit, unless --local was given. 0 or an exit
 * code. */
int cli_open_view(struct cli *cli, const char *volume, unsigned flags);
/* Commits what was done in the view and tells of it: one line, or with --json the documented object. count: of
 * what was put, or NULL. 0 or an exit code. */
int cli_commit(struct cli *cli, const char *what, const struct cli_count *count);
void cli_disconnect(struct cli *cli);

/* Any method; params is taken. result is closed by cli_result_close either way. 0 or an exit code. */
struct cli_result {
    void *data;
    size_t size;
};
int cli_call(struct cli *cli, const char *method, struct replica_buffer *params, const char *about,
             struct cli_result *ret_result);
void cli_result_close(struct cli_result *result);
void cli_result_reader(const struct cli_result *result, struct replica_pack_reader *ret_reader);

/* Values of a result's map, which comes from a node that may be newer: what is missing reads as nothing. */
bool cli_find(const struct replica_pack_reader *map, const char *key, struct replica_pack_reader *ret_reader);
void cli_get_text(const struct replica_pack_reader *map, const char *key, char *ret_text,
                  size_t size); /* cut to size */
uint64_t cli_get_number(const struct replica_pack_reader *map, const char *key);
bool cli_get_bool(const struct replica_pack_reader *map, const char *key);
/* Enters the array under key: its number of items, with ret_reader at the first; 0 if there is none. */
size_t cli_get_array(const struct replica_pack_reader *map, const char *key,
                     struct replica_pack_reader *ret_reader);

/* A path of a volume as its user wrote it. 0, or CLI_REFUSED after saying why. */
struct cli_path {
    char text[REPLICA_PATH_MAX + 1]; /* canonical: "" is the root */
    size_t size;
    bool slash; /* written with one at the end */
};
int cli_path(const char *written, struct cli_path *ret_path);

/* For messages and listings: "/" for the root. */
const char *cli_shown(const char *path);

/* The verbs, one file for each family. */
int cli_verb_help(struct cli *cli);
int cli_verb_version(struct cli *cli);
int cli_verb_keygen(struct cli *cli);
int cli_verb_wait(struct cli *cli);
int cli_verb_volume_create(struct cli *cli);
int cli_verb_volume_list(struct cli *cli);
int cli_verb_volume_info(struct cli *cli);
int cli_verb_volume_rename(struct cli *cli);
int cli_verb_volume_delete(struct cli *cli);
int cli_verb_volume_undelete(struct cli *cli);
int cli_verb_cluster_init(struct cli *cli);
int cli_verb_cluster_members(struct cli *cli);
int cli_verb_cluster_status(struct cli *cli);
int cli_verb_ls(struct cli *cli);
int cli_verb_stat(struct cli *cli);
int cli_verb_cat(struct cli *cli);
int cli_verb_du(struct cli *cli);
int cli_verb_mkdir(struct cli *cli);
int cli_verb_mv(struct cli *cli);
int cli_verb_rm(struct cli *cli);
int cli_verb_cp(struct cli *cli);
int cli_verb_put(struct cli *cli);
int cli_verb_get(struct cli *cli);
int cli_verb_checkout(struct cli *cli);
int cli_verb_commit(struct cli *cli);
int cli_verb_reload(struct cli *cli);
int cli_verb_hold(struct cli *cli);
int cli_verb_log(struct cli *cli);

#endif
