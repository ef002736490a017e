/* verbs: the table of all verbs, and the help that is printed from it. */
#ifndef CLI_VERBS_H
#define CLI_VERBS_H

#include "cli/cli.h"

extern const struct cli_verb CLI_VERBS[];
extern const size_t CLI_VERBS_N;

/* The help of cli's verb or group, or the overview of all. Returns CLI_DONE. */
int cli_help(const struct cli *cli, FILE *out);

#endif
