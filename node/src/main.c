/* main: `remora node` is a node, everything else is a client of one. */
#include "cli/cli.h"
#include "node_main.h"

#include <string.h>

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "node") == 0)
        return node_main(argc - 1, argv + 1);
    return cli_main(argc, argv);
}
