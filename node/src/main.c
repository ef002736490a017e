#include "node_main.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "node") == 0)
        return node_main(argc - 1, argv + 1);
    fprintf(stderr, "usage: remora node …\n");
    return 2;
}
