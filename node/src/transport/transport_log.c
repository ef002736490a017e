/* What an operator reads of a channel. Whoever knocks again and again is named once a minute, and a flood of strangers is cut at so many
 * lines a second. */
#include "transport_internal.h"

#include "loop.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LOG_WINDOW_MS 1000
#define LOG_LINES_MAX 10 /* per window */
#define LOG_TEXT_MAX  512
#define AGAIN_MS      60000 /* until the same line is written again */

/* FNV-1a: only to tell lines apart. */
static uint64_t hash(const char *text)
{
    uint64_t value = 14695981039346656037u;
    for (; *text != '\0'; text++)
        value = (value ^ (unsigned char)*text) * 1099511628211u;
    return value;
}

/* The line's place among those said lately; a new one takes the place of the one said longest ago. */
static struct node_said *find_said(struct node_channel_actor *channel, uint64_t line)
{
    struct node_said *oldest = &channel->said[0];
    for (size_t i = 0; i < NODE_SAID_MAX; i++) {
        if (channel->said[i].line == line)
            return &channel->said[i];
        if (channel->said[i].until_ms < oldest->until_ms)
            oldest = &channel->said[i];
    }
    *oldest = (struct node_said){.line = line};
    return oldest;
}

static bool is_too_many(struct node_channel_actor *channel, uint64_t now)
{
    const struct node_transport_handler *handler = &channel->transport->handler;
    char text[64];
    if (now >= channel->log_window_ms) {
        if (channel->log_lines > LOG_LINES_MAX) {
            snprintf(text, sizeof text, "%u more lines like these were left out",
                     channel->log_lines - LOG_LINES_MAX);
            handler->on_log(handler->context, 1, text);
        }
        channel->log_window_ms = now + LOG_WINDOW_MS;
        channel->log_lines = 0;
    }
    return channel->log_lines++ >= LOG_LINES_MAX;
}

void node_channel_log(struct node_channel_actor *channel, int level, const char *format, ...)
{
    const struct node_transport_handler *handler = &channel->transport->handler;
    uint64_t now = node_now_ms();
    char text[LOG_TEXT_MAX];
    struct node_said *said;
    va_list arguments;
    int n;
    if (handler->on_log == NULL)
        return;
    va_start(arguments, format);
    n = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    said = find_said(channel, hash(text));
    if (now < said->until_ms) {
        said->more++;
        return;
    }
    if (is_too_many(channel, now))
        return;
    if (said->more > 0 && n > 0 && (size_t)n < sizeof text)
        snprintf(text + n, sizeof text - (size_t)n, " (and %u times since this was last said)", said->more);
    said->more = 0;
    said->until_ms = now + AGAIN_MS;
    handler->on_log(handler->context, level, text);
}

/* Strangers */

void node_knock_accepted(struct node_channel_actor *channel, int fd)
{
    struct node_knock *knock = &channel->knocks[channel->knocks_at];
    socklen_t n = sizeof knock->address;
    if (getpeername(fd, (struct sockaddr *)&knock->address, &n) != 0)
        return; /* gone already */
    knock->fd = fd;
    channel->knocks_at = (channel->knocks_at + 1) % NODE_KNOCKS_MAX;
}

bool node_knock_ended(struct node_channel_actor *channel, int fd, char *ret_address, size_t n)
{
    for (size_t i = 1; i <= NODE_KNOCKS_MAX; i++) { /* the latest of that descriptor */
        struct node_knock *knock =
            &channel->knocks[(channel->knocks_at + NODE_KNOCKS_MAX - i) % NODE_KNOCKS_MAX];
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&knock->address;
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&knock->address;
        if (knock->fd != fd)
            continue;
        if (knock->address.ss_family == AF_INET6)
            inet_ntop(AF_INET6, &v6->sin6_addr, ret_address, (socklen_t)n);
        else
            inet_ntop(AF_INET, &v4->sin_addr, ret_address, (socklen_t)n);
        memset(knock, 0, sizeof *knock);
        return true;
    }
    return false;
}
