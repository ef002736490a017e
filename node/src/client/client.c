/* Connecting, and what went wrong last. */
#include "client/client.h"

#include "socket_path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define RETRY_MS 20 /* between tries: a node starts within a few of these */

static int say(char **ret_message, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int say(char **ret_message, int code, const char *format, ...)
{
    va_list arguments;
    if (ret_message == NULL)
        return code;
    va_start(arguments, format);
    if (vasprintf(ret_message, format, arguments) < 0)
        *ret_message = NULL;
    va_end(arguments);
    return code;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Returns an errno; 0 is a connection. */
static int try_connect(const struct sockaddr_un *address, int *ret_fd)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error;
    struct stat info;
    if (fd < 0)
        return errno;
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0) {
        *ret_fd = fd;
        return 0;
    }
    error = errno;
    close(fd);
    if (error == ECONNREFUSED && stat(address->sun_path, &info) == 0 && !S_ISSOCK(info.st_mode))
        error = ENOTSOCK;
    return error;
}

/* No socket yet, one left by a node that died, or one whose backlog is full: what a starting node looks like.
 */
static bool may_come(int error)
{
    return error == ENOENT || error == ECONNREFUSED || error == EAGAIN || error == EINTR;
}

/* "", or how long was waited in vain. */
static void describe_wait(int wait_ms, char *ret_text, size_t size)
{
    ret_text[0] = '\0';
    if (wait_ms > 0)
        snprintf(ret_text, size, " (waited %.3g s)", (double)wait_ms / 1000);
}

static int explain(int error, const char *path, int wait_ms, char **ret_message)
{
    char waited[32];
    describe_wait(wait_ms, waited, sizeof waited);
    switch (error) {
    case ENOENT:
        return say(
            ret_message, REPLICA_E_UNAVAILABLE,
            "no node answers at %s: there is no such socket%s; start one by `remora node`, or name its "
            "socket by --socket or REMORA_SOCKET",
            path, waited);
    case ECONNREFUSED:
        return say(ret_message, REPLICA_E_UNAVAILABLE,
                   "no node answers at %s: nobody listens on that socket%s; start one by `remora node`", path,
                   waited);
    case ENOTSOCK:
        return say(ret_message, REPLICA_E_INVALID,
                   "%s is no socket; name the node's by --socket or REMORA_SOCKET", path);
    case EAGAIN:
        return say(ret_message, REPLICA_E_UNAVAILABLE, "the node at %s does not accept connections%s", path,
                   waited);
    case EACCES:
    case EPERM:
        return say(ret_message, REPLICA_E_DENIED,
                   "this user may not use the socket %s: run as the node's user, or join its group", path);
    default:
        return say(ret_message, REPLICA_E_UNAVAILABLE, "cannot connect to the node at %s: %s", path,
                   strerror(error));
    }
}

static int connect_within(const char *path, int wait_ms, int *ret_fd, char **ret_message)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int64_t until_ms = now_ms() + wait_ms;
    int error;
    if (strlen(path) >= sizeof address.sun_path)
        return say(ret_message, REPLICA_E_INVALID,
                   "%s is too long for the path of a socket (at most %zu bytes)", path,
                   sizeof address.sun_path - 1);
    strcpy(address.sun_path, path);
    for (;;) {
        int64_t left_ms;
        error = try_connect(&address, ret_fd);
        left_ms = until_ms - now_ms();
        if (error == 0)
            return 0;
        if (!may_come(error) || left_ms <= 0)
            return explain(error, path, wait_ms, ret_message);
        poll(NULL, 0, left_ms < RETRY_MS ? (int)left_ms : RETRY_MS);
    }
}

int remora_connect(const char *path, int wait_ms, struct remora **ret_remora, char **ret_message)
{
    char standard[PATH_MAX];
    struct remora *remora;
    int code;
    if (ret_message != NULL)
        *ret_message = NULL;
    if (path == NULL)
        path = getenv("REMORA_SOCKET");
    if (path == NULL || path[0] == '\0') {
        socket_path_default(standard, sizeof standard);
        path = standard;
    }
    remora = calloc(1, sizeof *remora);
    if (remora == NULL || (remora->path = strdup(path)) == NULL) {
        free(remora);
        return say(ret_message, REPLICA_E_NOMEM, "out of memory");
    }
    remora_set_timeout(remora, CLIENT_TIMEOUT_MS);
    replica_buffer_init(&remora->input);
    frame_init(&remora->frame);
    code = connect_within(path, wait_ms, &remora->fd, ret_message);
    if (code != 0) {
        free(remora->path);
        free(remora);
        return code;
    }
    *ret_remora = remora;
    return 0;
}

void client_lose(struct remora *remora)
{
    if (remora->fd >= 0)
        close(remora->fd);
    remora->fd = -1;
    for (size_t i = 0; i < remora->fds_n; i++)
        close(remora->fds[i]);
    remora->fds_n = 0;
}

void remora_close(struct remora **remora)
{
    if (*remora == NULL)
        return;
    client_lose(*remora);
    replica_buffer_close(&(*remora)->input);
    free((*remora)->path);
    free((*remora)->error);
    free(*remora);
    *remora = NULL;
}

/* Errors */

static void set_symbol(struct remora *remora, const char *symbol)
{
    snprintf(remora->symbol, sizeof remora->symbol, "%s", symbol);
}

int client_fail(struct remora *remora, int code, const char *format, ...)
{
    va_list arguments;
    free(remora->error);
    va_start(arguments, format);
    if (vasprintf(&remora->error, format, arguments) < 0)
        remora->error = NULL;
    va_end(arguments);
    set_symbol(remora, replica_error_symbol(code));
    return code;
}

/* What apps compile in is what the node means. */
#define SAME(name)                                                                                           \
    _Static_assert(REMORA_E_##name == REPLICA_E_##name, "remora.h says another value of " #name)
SAME(NOMEM);
SAME(IO);
SAME(CORRUPT);
SAME(MALFORMED);
SAME(NOTFOUND);
SAME(EXISTS);
SAME(NOSPACE);
SAME(TOOBIG);
SAME(ABSENT);
SAME(INVALID);
SAME(NOTDIR);
SAME(ISDIR);
SAME(NOTEMPTY);
SAME(READONLY);
SAME(UNAVAILABLE);
SAME(INDETERMINATE);
SAME(REFUSED);
SAME(BUSY);
SAME(STALE);
SAME(EXPIRED);
SAME(DENIED);
SAME(VERSION);
SAME(DELETED);
SAME(PERM);
SAME(CANCELLED);
#undef SAME

static int code_of(const char *symbol)
{
#define X(name, value, text)                                                                                 \
    if (strcmp(symbol, #name) == 0)                                                                          \
        return value;
    REPLICA_ERROR_TABLE(X)
#undef X
    return REPLICA_E_IO; /* of a newer node: a failure in any case */
}

int client_fail_symbol(struct remora *remora, const char *symbol, const char *text, size_t n)
{
    free(remora->error);
    remora->error = strndup(text, n);
    set_symbol(remora, symbol);
    return code_of(symbol);
}

const char *remora_error(const struct remora *remora)
{
    return remora->error != NULL ? remora->error : "out of memory";
}

const char *remora_error_symbol(const struct remora *remora)
{
    return remora->symbol;
}

void remora_set_timeout(struct remora *remora, uint32_t timeout_ms)
{
    uint32_t grace_ms = timeout_ms / 10;
    remora->timeout_ms = timeout_ms;
    remora->grace_ms = grace_ms < CLIENT_GRACE_MS_MIN   ? CLIENT_GRACE_MS_MIN
                       : grace_ms > CLIENT_GRACE_MS_MAX ? CLIENT_GRACE_MS_MAX
                                                        : grace_ms;
}

void remora_on_progress(struct remora *remora, int (*progress)(void *context, uint64_t bytes, uint64_t total),
                        void *context)
{
    remora->progress = progress;
    remora->context = context;
}
