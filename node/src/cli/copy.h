/* copy: the bytes of one local file into another, as cheaply as the file system allows: by a reflink, else
 * range by range inside the kernel, else by hand; holes stay holes. */
#ifndef CLI_COPY_H
#define CLI_COPY_H

#include <stdbool.h>
#include <stdint.h>

/* Whether `to`, which is empty, is a reflink of `from` now. */
bool cli_clone(int from, int to);

/* `to` is empty and gets size bytes. progress is called after each piece; non-zero ends it. 0, -1 (errno), or
 * 1: ended. */
int cli_copy(int from, int to, uint64_t size, int (*progress)(void *context, uint64_t done), void *context);

#endif
