/* The default API socket of this user: /run/remora/remora.sock as root, else $XDG_RUNTIME_DIR/remora/remora.sock or
 * /tmp/remora-UID/remora.sock. In a header of its own because the node and the client library, which share nothing else,
 * must agree on it. */
#ifndef NODE_SOCKET_PATH_H
#define NODE_SOCKET_PATH_H

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void socket_path_default(char *ret_path, size_t n)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (geteuid() == 0)
        snprintf(ret_path, n, "/run/remora/remora.sock");
    else if (runtime != NULL && runtime[0] == '/')
        snprintf(ret_path, n, "%s/remora/remora.sock", runtime);
    else
        snprintf(ret_path, n, "/tmp/remora-%u/remora.sock", (unsigned)geteuid());
}

#endif
