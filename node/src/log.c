#include "log.h"

#include "node.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* PIPE_BUF: one write, so that lines of several threads or processes do not mix. */
#define LINE_MAX_SIZE 4096
#define TEXT_MAX_SIZE 1024

static int log_level = NODE_LOG_INFO;
static bool log_json;

static const char *const LEVELS[] = {"debug", "info", "warning", "error"};

void node_log_configure(int level, bool json)
{
    log_level = level;
    log_json = json;
}

struct line {
    char text[LINE_MAX_SIZE];
    size_t size;
};

static void add(struct line *line, const char *text, size_t n)
{
    size_t room = sizeof line->text - 2 - line->size; /* the end of the line always fits */
    if (n > room)
        n = room;
    memcpy(line->text + line->size, text, n);
    line->size += n;
}

static void add_json(struct line *line, const char *text, size_t n)
{
    add(line, "\"", 1);
    for (size_t i = 0; i < n; i++) {
        char escaped[8];
        unsigned char c = (unsigned char)text[i];
        int size = snprintf(escaped, sizeof escaped,
                            c == '"' || c == '\\' ? "\\%c"
                            : c < 0x20            ? "\\u%04x"
                                                  : "%c",
                            c);
        if (line->size + (size_t)size + 4 > sizeof line->text - 2)
            break; /* cut, but closed: a reader still parses the line */
        add(line, escaped, (size_t)size);
    }
    add(line, "\"", 1);
}

/* A newline in a path or message must not look like another log line. */
static void add_plain(struct line *line, const char *text)
{
    for (; *text != '\0'; text++)
        add(line, (unsigned char)*text < 0x20 || *text == 0x7f ? "?" : text, 1);
}

static void format_time(char *ret_text, size_t n)
{
    struct timespec now;
    struct tm utc;
    char seconds[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(ret_text, n, "%s.%03dZ", seconds, (int)(now.tv_nsec / 1000000));
}

static void compose(struct line *line, enum node_log_level level, const char *event, const char *text)
{
    char at[48];
    format_time(at, sizeof at);
    if (log_json) {
        const char *const fields[][2] = {
            {"time", at}, {"level", LEVELS[level]}, {"event", event}, {"text", text}};
        for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
            add(line, i == 0 ? "{" : ",", 1);
            add_json(line, fields[i][0], strlen(fields[i][0]));
            add(line, ":", 1);
            add_json(line, fields[i][1], strlen(fields[i][1]));
        }
        line->text[line->size++] = '}';
    } else {
        const char *const words[] = {at, LEVELS[level], event, text};
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
            add(line, " ", i == 0 || words[i][0] == '\0' ? 0 : 1);
            add_plain(line, words[i]);
        }
    }
    line->text[line->size++] = '\n';
}

void node_log(enum node_log_level level, const char *event, const char *format, ...)
{
    struct line line = {.size = 0};
    char text[TEXT_MAX_SIZE];
    va_list arguments;
    ssize_t ignored;
    if ((int)level < log_level)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    compose(&line, level, event, text);
    ignored = write(STDERR_FILENO, line.text, line.size); /* nowhere to complain to */
    (void)ignored;
}
