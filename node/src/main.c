/* main: `remora node` is a node, everything else is a client of one. */
#include "cli/cli.h"
#include "node_main.h"

#include <string.h>

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "node") == 0 && !asks_for_help(argc, argv))
        return node_main(argc - 1, argv + 1);
    return cli_main(argc, argv);
}
