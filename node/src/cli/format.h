/* format: how sizes, times, modes and names are shown. Pure. */
#ifndef CLI_FORMAT_H
#define CLI_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define CLI_SIZE_TEXT     16 /* "1023.9 GiB" and room */
#define CLI_DURATION_TEXT 24
#define CLI_TIME_TEXT     32
#define CLI_MODE_TEXT     11

/* "0 B", "1023 B", "1.5 GiB". */
void cli_format_size(uint64_t bytes, char ret_text[CLI_SIZE_TEXT]);
/* "0:07", "12:34", "1:02:03"; "> 99 days" beyond. */
void cli_format_duration(uint64_t seconds, char ret_text[CLI_DURATION_TEXT]);
/* "2026-11-25 04:49:34" in local time. */
void cli_format_time(int64_t seconds, char ret_text[CLI_TIME_TEXT]);
/* "drwxr-xr-x", as ls: kind is one of "-dlpscb". */
void cli_format_mode(char kind, uint32_t mode, char ret_text[CLI_MODE_TEXT]);
/* What was moved, as `volume info` counts: a file is everything that is no directory, once however many names it has. */
struct cli_count {
    uint64_t files, directories, bytes;
};
#define CLI_COUNT_TEXT 96
void cli_count_file(struct cli_count *count, uint64_t bytes);
/* "3 files and 1 directory, 1.5 GiB". */
void cli_format_count(const struct cli_count *count, char ret_text[CLI_COUNT_TEXT]);
/* "s" unless it is one. */
const char *cli_plural(uint64_t n);
/* Control bytes (a name may hold any) as "?", so that they cannot steer a terminal. In place. */
void cli_format_tame(char *text);

/* Nanoseconds since 1970. Beyond 1677-09-21 and 2262-04-11, which 64 bits do not reach, the nearest time that they do. */
int64_t cli_nanoseconds(const struct timespec *time);

#endif
