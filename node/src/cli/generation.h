/* generation: where a checkout's trees lie, and how one takes the place of another.
 *
 *   DIR                         a symbolic link to .NAME.remora/gen-N, relative, so that it holds under any mount of its directory
 *   .NAME.remora/lock           held by the one checkout that works on DIR
 *   .NAME.remora/gen-N/         a generation: a whole tree, never changed once DIR points to it
 *   .NAME.remora/gen-N.keys     16 bytes for each file in it: a hash of its path and entry, so that the next generation can take over
 *                               what stayed the same by a hard link
 *   .NAME.remora/new-N/         one that is being written, or was when its checkout was killed
 *
 * A switch is one rename(2) of a symbolic link over DIR. Who resolved DIR before works on in the old
 * generation, whole. */
#ifndef CLI_GENERATION_H
#define CLI_GENERATION_H

#include "cli/cli.h"

#include <limits.h>

#define CLI_GENERATION_KEY  16
#define CLI_GENERATION_NAME 40

struct cli_generations {
    const char *dir; /* as written, for messages */
    int parent;      /* that DIR lies in */
    int home;        /* .NAME.remora */
    int lock;
    bool held; /* the lock, by this process */
    char name[NAME_MAX + 1], home_name[NAME_MAX + 1];
    uint64_t current; /* 0: none */
    uint8_t *keys;    /* of the current one, sorted */
    size_t keys_n;
    int current_dir; /* or -1 */
    struct replica_buffer new_keys;
};

/* Takes the lock, finds out what is there, and clears away what a killed checkout left. 0 or an exit code:
 * CLI_BUSY if another one works on DIR, CLI_REFUSED if DIR is something else. Closed either way. */
int cli_generations_open(const char *dir, struct cli_generations *ret_generations);
void cli_generations_close(struct cli_generations *generations);

/* A new tree to write into, in ret_dir (the caller's). */
int cli_generations_begin(struct cli_generations *generations, int *ret_dir);
void cli_generations_abandon(struct cli_generations *generations);
/* DIR is the new tree from here on. */
int cli_generations_switch(struct cli_generations *generations);

/* What the entry at path was hashed to; remembered for the new generation. */
void cli_generations_note(struct cli_generations *generations, const char *path,
                          const struct remora_entry *entry);
/* Links the file from the current generation, if it is there and still what its entry says. */
bool cli_generations_take(struct cli_generations *generations, int dir, const char *name, const char *path,
                          const char *whole_path, const struct remora_entry *entry);

/* Removes every generation but the current one that nothing has open, as far as this process can see. */
void cli_generations_collect(struct cli_generations *generations);

/* in_use.c: whether any process has a file in the tree open, or works in one of its directories. */
bool cli_tree_in_use(int home, const char *name);

#endif
