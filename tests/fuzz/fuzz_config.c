/* A configuration file: read, or refused with words that name the place. */
#include "config.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct node_config config;
    char path[64], *message = NULL;
    int fd = memfd_create("config", MFD_CLOEXEC), rv;
    if (fd < 0 || node_config_init(&config) != 0 || write(fd, data, n) != (ssize_t)n)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    rv = node_config_file(&config, path, &message);
    assert((rv == 0) == (message == NULL));
    assert(config.join_n <= GOSSIP_JOIN_MAX);
    free(message);
    message = NULL;
    if (rv == 0) {
        rv = node_config_check(&config, &message);
        assert(rv == 0 || message != NULL);
        free(message);
    }
    node_config_close(&config);
    close(fd);
    return 0;
}
