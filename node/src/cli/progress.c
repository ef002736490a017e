#include "cli/progress.h"

#include "cli/format.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define DRAW_MS        100 /* between two drawings: smooth to the eye, nothing to the processor */
#define PATIENCE_MS    300 /* what is done sooner needs no bar */
#define WIDTH_STANDARD 80
#define BAR_MIN        10
#define BAR_MAX        40
#define LABEL_MAX      24

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static size_t terminal_width(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return WIDTH_STANDARD;
    return size.ws_col < CLI_PROGRESS_WIDTH_MAX ? size.ws_col : CLI_PROGRESS_WIDTH_MAX - 1;
}

/* The end of a long name tells more than its beginning. */
static void shorten(const char *label, char ret_text[LABEL_MAX + 4])
{
    size_t n = strlen(label), from = n > LABEL_MAX ? n - LABEL_MAX + 3 : 0;
    size_t at = from > 0 ? (size_t)snprintf(ret_text, LABEL_MAX + 4, "...") : 0;
    for (const char *c = label + from; *c != '\0' && at < LABEL_MAX; c++)
        ret_text[at++] = (unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c;
    ret_text[at] = '\0';
}

static void draw_bar(char *text, size_t size, uint64_t done, uint64_t total)
{
    size_t filled =
        total > 0 ? (size_t)((double)(done < total ? done : total) / (double)total * (double)size) : 0;
    for (size_t i = 0; i < size; i++)
        text[i] = i < filled ? '#' : ' ';
    text[size] = '\0';
}

void cli_progress_line(char ret_text[CLI_PROGRESS_WIDTH_MAX], size_t width, const char *label, uint64_t done,
                       uint64_t total, uint64_t elapsed_ms)
{
    char name[LABEL_MAX + 4], now[CLI_SIZE_TEXT], all[CLI_SIZE_TEXT], speed[CLI_SIZE_TEXT],
        left[CLI_DURATION_TEXT] = "-:--";
    char figures[128], bar[BAR_MAX + 1] = "";
    uint64_t rate = elapsed_ms > 0 ? (uint64_t)((double)done * 1000 / (double)elapsed_ms) : 0;
    int percent = total > 0 ? (int)((double)(done < total ? done : total) * 100 / (double)total) : 0;
    size_t used, room;
    shorten(label, name);
    cli_format_size(done, now);
    cli_format_size(total, all);
    cli_format_size(rate, speed);
    if (rate > 0 && total >= done)
        cli_format_duration((total - done) / rate, left);
    snprintf(figures, sizeof figures, "%3d %%  %s of %s  %s/s  %s", percent, now, all, speed, left);
    used = strlen(name) + strlen(figures) + 6; /* gaps and brackets */
    room = width > used + BAR_MIN ? width - used : 0;
    if (room >= BAR_MIN) {
        draw_bar(bar, room < BAR_MAX ? room : BAR_MAX, done, total);
        snprintf(ret_text, CLI_PROGRESS_WIDTH_MAX, "%s  [%s]  %s", name, bar, figures);
    } else {
        snprintf(ret_text, CLI_PROGRESS_WIDTH_MAX, "%s  %s", name, figures);
    }
    if (strlen(ret_text) > width)
        ret_text[width] = '\0';
}

void cli_progress_begin(struct cli_progress *progress, const char *verb, uint64_t total, bool shown)
{
    cli_progress_hide(progress);
    *progress = (struct cli_progress){.shown = shown, .verb = verb, .total = total, .began_ms = now_ms()};
    progress->drawn_ms = progress->began_ms + PATIENCE_MS - DRAW_MS;
}

static void draw(struct cli_progress *progress)
{
    char line[CLI_PROGRESS_WIDTH_MAX];
    uint64_t now = now_ms();
    size_t width = terminal_width();
    if (!progress->shown || now < progress->drawn_ms + DRAW_MS)
        return;
    cli_progress_hide(progress);
    progress->drawn_ms = now;
    cli_progress_line(line, width - 1, progress->verb, progress->done + progress->file_done, progress->total,
                      now - progress->began_ms);
    fprintf(stderr, "%s", line);
    progress->lines = 1;
    if (progress->file != NULL && progress->file_total >= CLI_PROGRESS_LARGE) {
        cli_progress_line(line, width - 1, progress->file, progress->file_done, progress->file_total,
                          now - progress->file_began_ms);
        fprintf(stderr, "\n%s", line);
        progress->lines = 2;
    }
    fflush(stderr);
}

void cli_progress_file(struct cli_progress *progress, const char *name, uint64_t size)
{
    progress->file = name;
    progress->file_total = size;
    progress->file_done = 0;
    progress->file_began_ms = progress->shown ? now_ms() : 0;
}

void cli_progress_at(struct cli_progress *progress, uint64_t file_bytes)
{
    progress->file_done = file_bytes;
    draw(progress);
}

void cli_progress_add(struct cli_progress *progress, uint64_t bytes)
{
    progress->done += bytes;
    progress->file = NULL;
    progress->file_total = progress->file_done = 0;
    draw(progress);
}

/* Erases from the last line upwards; the cursor ends where the first began. */
void cli_progress_hide(struct cli_progress *progress)
{
    if (progress->lines == 0)
        return;
    fprintf(stderr, "\r\x1b[K");
    if (progress->lines == 2)
        fprintf(stderr, "\x1b[A\r\x1b[K");
    fflush(stderr);
    progress->lines = 0;
}
