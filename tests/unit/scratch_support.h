/* scratch: what a test has outside its own memory, directories and processes. Whatever is left when the test program ends goes with it,
 * also when a test failed half-way; if the program crashed, its directories below TMPDIR stay. */
#ifndef TESTS_UNIT_SCRATCH_SUPPORT_H
#define TESTS_UNIT_SCRATCH_SUPPORT_H

#include <sys/types.h>

#define SCRATCH_PATH_SIZE 64 /* short, so that a socket's path fits below it */

/* A new directory, for this user only, below TMPDIR (/tmp if there is none). */
void scratch_make(char ret_path[SCRATCH_PATH_SIZE]);
/* Removes a directory of scratch_make with all that is in it. */
void scratch_remove(const char *path);
/* Removes anything below such a directory. */
void scratch_remove_below(const char *path);

/* As fork; the child is killed when the test program ends before it. */
pid_t scratch_fork(void);

#endif
