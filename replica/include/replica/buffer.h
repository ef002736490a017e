/* A growable run of bytes. Caller-owned struct: _init/_close. Growth failure is remembered (`failed`) so that a
 * writer may append many times and check once, at the end. */
#ifndef REPLICA_BUFFER_H
#define REPLICA_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct replica_buffer {
    uint8_t *data;
    size_t size;
    size_t capacity;
    bool failed; /* an append did not get memory; size is what fitted before it */
};

void replica_buffer_init(struct replica_buffer *buffer);
void replica_buffer_close(struct replica_buffer *buffer); /* frees; leaves an initialised empty buffer */
void replica_buffer_clear(struct replica_buffer *buffer); /* size 0, memory kept, failed reset */

/* Appends n bytes (data borrowed). Errors: REPLICA_E_NOMEM, also kept in buffer->failed. */
int replica_buffer_append(struct replica_buffer *buffer, const void *data, size_t n);

/* Makes room for n more bytes and returns where they start; NULL without memory. Add to size what you used. */
uint8_t *replica_buffer_reserve(struct replica_buffer *buffer, size_t n);

#endif
