/* remora checkout: a tree of ordinary files for any program that only reads, kept up to date by --follow. */
#include "cli/format.h"
#include "cli/generation.h"
#include "cli/get.h"
#include "cli/json.h"
#include "cli/paths.h"
#include "cli/tree.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POLL_MS     1000  /* between two looks for a new commit: each is a round trip to a majority */
#define COLLECT_MS  10000 /* between two looks for old generations that nobody uses any more */
#define VOLUME_TEXT 256

struct checkout {
    struct cli *cli;
    char volume[VOLUME_TEXT];
    struct cli_path sub;
    struct cli_generations generations;
    struct cli_count count; /* of the newest generation */
    bool troubled;          /* a failure to follow has been said */
};

/* One generation */

static bool reuse(void *context, int dir, const char *name, const char *path,
                  const struct remora_entry *entry)
{
    struct checkout *checkout = context;
    const char *below = checkout->sub.size == 0 ? path : path + checkout->sub.size + 1;
    cli_generations_note(&checkout->generations, path, entry);
    return cli_generations_take(&checkout->generations, dir, name, below, path, entry);
}

static int write_tree(struct checkout *checkout, const struct remora_entry *entry)
{
    struct cli *cli = checkout->cli;
    struct cli_tree tree = {.cli = cli,
                            .from = checkout->sub.text,
                            .shown = checkout->generations.dir,
                            .reuse = reuse,
                            .context = checkout};
    bool shown = !cli->quiet && isatty(STDERR_FILENO) == 1;
    uint64_t bytes = 0;
    int dir, code = shown ? cli_tree_bytes(cli, checkout->sub.text, &bytes) : 0;
    cli_progress_begin(&cli->progress, "fetch", bytes, shown);
    if (code == 0)
        code = cli_fetch(cli, checkout->sub.text, true);
    if (code == 0)
        code = cli_generations_begin(&checkout->generations, &dir);
    if (code != 0)
        return code;
    cli_restore_init(&tree.restore, cli);
    tree.restore.hardlink = cli_flag(cli, "hardlink");
    cli_progress_begin(&cli->progress, "checkout", bytes, shown);
    code = cli_tree_write(&tree, dir, entry);
    close(dir);
    cli_progress_hide(&cli->progress);
    checkout->count = tree.count;
    if (code == 0)
        code = cli_generations_switch(&checkout->generations);
    if (code != 0)
        cli_generations_abandon(&checkout->generations);
    return code;
}

static void tell(const struct checkout *checkout)
{
    const struct cli *cli = checkout->cli;
    char count[CLI_COUNT_TEXT];
    struct cli_json json;
    cli_format_count(&checkout->count, count);
    cli_say(cli, "%s is generation %llu: %s", checkout->generations.dir,
            (unsigned long long)checkout->generations.current, count);
    if (!cli->json)
        return;
    cli_json_init(&json, stdout);
    cli_json_begin(&json, '{');
    cli_json_pair_text(&json, "dir", checkout->generations.dir);
    cli_json_pair_uint(&json, "generation", checkout->generations.current);
    cli_json_count(&json, &checkout->count);
    cli_json_end(&json, '}');
    cli_json_close(&json);
    fflush(stdout); /* --follow goes on */
}

/* The directory that is checked out. 0 or an exit code. */
static int find_root(const struct checkout *checkout, struct remora_entry *ret_entry)
{
    int code = cli_stat(checkout->cli, checkout->sub.text, ret_entry);
    if (code != 0 || ret_entry->kind == REMORA_DIRECTORY)
        return code;
    remora_entry_free(ret_entry);
    return cli_fail(CLI_REFUSED, "%s is no directory; use `remora get`", checkout->sub.text);
}

static int make_generation(struct checkout *checkout)
{
    struct remora_entry entry;
    int code = find_root(checkout, &entry);
    if (code != 0)
        return code;
    code = write_tree(checkout, &entry);
    remora_entry_free(&entry);
    if (code == 0) {
        tell(checkout);
        cli_generations_collect(&checkout->generations);
    }
    return code;
}

/* Following */

static bool concerns(const struct checkout *checkout, const struct remora_reload *reload)
{
    if (reload->more)
        return true;
    for (size_t i = 0; i < reload->changed_n; i++) {
        struct cli_path path;
        if (replica_path_canonicalize(reload->changed[i], strlen(reload->changed[i]), path.text,
                                      &path.size) != 0 ||
            cli_is_within(path.text, checkout->sub.text) || cli_is_within(checkout->sub.text, path.text))
            return true;
    }
    return false;
}

/* While the node or a majority is away the tree stays as it is; that is said once. */
static void trouble(struct checkout *checkout)
{
    if (!checkout->troubled)
        cli_warn("%s stays as it is: %s", checkout->generations.dir, remora_error(checkout->cli->remora));
    checkout->troubled = true;
    cli_disconnect(checkout->cli);
}

/* A node that has been restarted knows nothing of our private view. 0, or an exit code that ends the
 * following. */
static int reconnect(struct checkout *checkout)
{
    struct cli *cli = checkout->cli;
    char *message = NULL;
    int error = remora_connect(cli_text(cli, "socket"), 0, &cli->remora, &message);
    if (error != 0 && !checkout->troubled)
        cli_warn("%s stays as it is: %s", checkout->generations.dir,
                 message != NULL ? message : replica_error_text(error));
    if (error != 0)
        checkout->troubled = true;
    free(message);
    if (error != 0)
        return 0;
    cli_prepare(cli);
    error = remora_view_open(cli->remora, checkout->volume, NULL, NULL, REMORA_READ_ONLY, &cli->view);
    if (error == REPLICA_E_NOTFOUND || error == REPLICA_E_DENIED)
        return cli_fail_call(cli, error, NULL);
    if (error != 0) {
        trouble(checkout);
        return 0;
    }
    checkout->troubled = false;
    return make_generation(checkout);
}

static int follow_step(struct checkout *checkout)
{
    struct remora_reload reload;
    int code = 0, error;
    if (checkout->cli->remora == NULL)
        return reconnect(checkout);
    error = remora_reload(checkout->cli->remora, &checkout->cli->view, REMORA_RELOAD_QUORUM, NULL, &reload);
    if (error == REPLICA_E_CANCELLED)
        return 0;
    if (error == REPLICA_E_DELETED || error == REPLICA_E_DENIED)
        return cli_fail_call(checkout->cli, error, checkout->volume);
    if (error != 0) {
        trouble(checkout);
        return 0;
    }
    checkout->troubled = false;
    if (reload.before != reload.after && concerns(checkout, &reload))
        code = make_generation(checkout);
    remora_reload_free(&reload);
    return code;
}

/* Until a signal, or what no waiting mends. A generation that could not be made (a full disk) is tried again
 * at the next commit. */
static int follow(struct checkout *checkout)
{
    unsigned since_collection_ms = 0;
    while (!cli_interrupted()) {
        int code = follow_step(checkout);
        if (code == CLI_DENIED || code == CLI_REFUSED || code == CLI_FAILED)
            return code;
        if (cli_interrupted())
            break;
        poll(NULL, 0, POLL_MS);
        since_collection_ms += POLL_MS;
        if (since_collection_ms >= COLLECT_MS) {
            cli_generations_collect(&checkout->generations);
            since_collection_ms = 0;
        }
    }
    return cli_terminated() ? CLI_DONE : CLI_INTERRUPTED;
}

int cli_verb_checkout(struct cli *cli)
{
    struct checkout checkout = {.cli = cli};
    struct remora_entry root;
    const char *sub;
    int code;
    if (cli_split_volume(cli->args.words[0], checkout.volume, sizeof checkout.volume, &sub) != 0)
        return cli_fail(CLI_REFUSED, "%s: no volume has so long a name", cli->args.words[0]);
    code = cli_path(sub, &checkout.sub);
    if (code == 0)
        code = cli_open_view(cli, checkout.volume, REMORA_READ_ONLY);
    if (code == 0)
        code = find_root(&checkout, &root);
    if (code != 0) /* before anything is made beside DIR */
        return code;
    remora_entry_free(&root);
    code = cli_generations_open(cli->args.words[1], &checkout.generations);
    if (code == 0)
        code = make_generation(&checkout);
    if (code == 0 && cli_flag(cli, "follow"))
        code = follow(&checkout);
    cli_generations_close(&checkout.generations);
    return code;
}
