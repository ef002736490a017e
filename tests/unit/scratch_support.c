#include "scratch_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <ftw.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATHS_MAX 16 /* at once; a test has a few */
#define OPEN_MAX  32 /* descriptors that a removal may hold */

static char paths[PATHS_MAX][SCRATCH_PATH_SIZE]; /* "" is free */
static pid_t owner;                              /* a forked child ends without touching them */

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

void scratch_remove_below(const char *path)
{
    (void)nftw(path, remove_one, OPEN_MAX, FTW_DEPTH | FTW_PHYS);
}

static void remove_all(void)
{
    for (size_t i = 0; getpid() == owner && i < PATHS_MAX; i++)
        if (paths[i][0] != '\0')
            scratch_remove_below(paths[i]);
}

static char *slot(const char *path)
{
    for (size_t i = 0; i < PATHS_MAX; i++)
        if (strcmp(paths[i], path) == 0)
            return paths[i];
    fail_msg("no place for %s", path);
    return NULL;
}

void scratch_make(char ret_path[SCRATCH_PATH_SIZE])
{
    const char *below = getenv("TMPDIR");
    int n = snprintf(ret_path, SCRATCH_PATH_SIZE, "%s/remora-XXXXXX", below == NULL ? "/tmp" : below);
    assert_true(n > 0 && n < SCRATCH_PATH_SIZE);
    if (owner == 0) {
        owner = getpid();
        assert_int_equal(atexit(remove_all), 0);
    }
    assert_non_null(mkdtemp(ret_path));
    strcpy(slot(""), ret_path);
}

void scratch_remove(const char *path)
{
    char *mine = slot(path);
    scratch_remove_below(path);
    assert_int_not_equal(access(path, F_OK), 0);
    mine[0] = '\0';
}

pid_t scratch_fork(void)
{
    pid_t parent = getpid(), child;
    fflush(NULL); /* else what is buffered is written twice */
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) /* it ended before that */
            _exit(1);
    }
    return child;
}
