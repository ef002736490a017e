#include "cli/format.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define DAY_S 86400u

void cli_format_size(uint64_t bytes, char ret_text[CLI_SIZE_TEXT])
{
    static const char *const UNITS[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1023.95 && unit + 1 < sizeof UNITS / sizeof UNITS[0]) { /* what would round to 1024.0 */
        value /= 1024;
        unit++;
    }
    if (unit == 0)
        snprintf(ret_text, CLI_SIZE_TEXT, "%u B", (unsigned)bytes);
    else
        snprintf(ret_text, CLI_SIZE_TEXT, "%.1f %s", value, UNITS[unit]);
}

void cli_format_duration(uint64_t seconds, char ret_text[CLI_DURATION_TEXT])
{
    unsigned s = (unsigned)(seconds % 60), m = (unsigned)(seconds / 60 % 60);
    if (seconds >= 100u * DAY_S)
        snprintf(ret_text, CLI_DURATION_TEXT, "> 99 days");
    else if (seconds >= 3600)
        snprintf(ret_text, CLI_DURATION_TEXT, "%u:%02u:%02u", (unsigned)(seconds / 3600), m, s);
    else
        snprintf(ret_text, CLI_DURATION_TEXT, "%u:%02u", m, s);
}

void cli_format_time(int64_t seconds, char ret_text[CLI_TIME_TEXT])
{
    time_t time = (time_t)seconds;
    struct tm parts;
    if (localtime_r(&time, &parts) == NULL ||
        strftime(ret_text, CLI_TIME_TEXT, "%Y-%m-%d %H:%M:%S", &parts) == 0)
        snprintf(ret_text, CLI_TIME_TEXT, "%lld", (long long)seconds);
}

void cli_format_mode(char kind, uint32_t mode, char ret_text[CLI_MODE_TEXT])
{
    static const char BITS[] = "rwxrwxrwx";
    ret_text[0] = kind;
    for (unsigned i = 0; i < 9; i++)
        ret_text[1 + i] = mode & (0400u >> i) ? BITS[i] : '-';
    if (mode & 04000)
        ret_text[3] = mode & 0100 ? 's' : 'S';
    if (mode & 02000)
        ret_text[6] = mode & 0010 ? 's' : 'S';
    if (mode & 01000)
        ret_text[9] = mode & 0001 ? 't' : 'T';
    ret_text[10] = '\0';
}

const char *cli_plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

void cli_count_file(struct cli_count *count, uint64_t bytes)
{
    count->files++;
    count->bytes += bytes;
}

void cli_format_count(const struct cli_count *count, char ret_text[CLI_COUNT_TEXT])
{
    char bytes[CLI_SIZE_TEXT], directories[40] = "";
    cli_format_size(count->bytes, bytes);
    if (count->directories > 0)
        snprintf(directories, sizeof directories, " and %llu director%s",
                 (unsigned long long)count->directories, count->directories == 1 ? "y" : "ies");
    snprintf(ret_text, CLI_COUNT_TEXT, "%llu file%s%s, %s", (unsigned long long)count->files,
             cli_plural(count->files), directories, bytes);
}

void cli_format_tame(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

int64_t cli_nanoseconds(const struct timespec *time)
{
    int64_t ns;
    if (__builtin_mul_overflow((int64_t)time->tv_sec, 1000000000, &ns) ||
        __builtin_add_overflow(ns, (int64_t)time->tv_nsec, &ns))
        return time->tv_sec < 0 ? INT64_MIN : INT64_MAX;
    return ns;
}
