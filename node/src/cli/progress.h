/* progress: one bar over all, and one for the file in course if it is large; on a terminal only, at most ten
 * times a second. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A file from this size on takes long enough to be watched alone. */
#define CLI_PROGRESS_LARGE     ((uint64_t)16 << 20)
#define CLI_PROGRESS_WIDTH_MAX 512

struct cli_progress {
    bool shown; /* else all of this does nothing */
    const char *verb;
    uint64_t total, done; /* bytes over all; of whole files */
    const char *file;     /* borrowed; NULL: none in course */
    uint64_t file_total, file_done;
    uint64_t began_ms, file_began_ms, drawn_ms;
    unsigned lines; /* on the screen */
};

void cli_progress_begin(struct cli_progress *progress, const char *verb, uint64_t total, bool shown);
void cli_progress_file(struct cli_progress *progress, const char *name, uint64_t size);
void cli_progress_at(struct cli_progress *progress, uint64_t file_bytes); /* of the file in course */
void cli_progress_add(struct cli_progress *progress,
                      uint64_t bytes);                 /* whole files; none is in course then */
void cli_progress_hide(struct cli_progress *progress); /* before anything else is printed */

/* One bar, at most width characters: "label  [####    ]  45 %  1.2 GiB of 2.6 GiB  310 MiB/s  0:04". Pure. */
void cli_progress_line(char ret_text[CLI_PROGRESS_WIDTH_MAX], size_t width, const char *label, uint64_t done,
                       uint64_t total, uint64_t elapsed_ms);

#endif
