/* get: what checkout shares with it. */
#ifndef CLI_GET_H
#define CLI_GET_H

#include "cli/cli.h"

/* Makes the node hold all the bytes at path, with all below it. 0 or an exit code. */
int cli_fetch(struct cli *cli, const char *path, bool recursive);

/* Opens the directory that a local path lies in. 0 or an exit code. */
int cli_open_parent(const char *path, int *ret_dir);

#endif
