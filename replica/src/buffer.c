#include "replica/buffer.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

void replica_buffer_init(struct replica_buffer *buffer)
{
    memset(buffer, 0, sizeof *buffer);
}

void replica_buffer_close(struct replica_buffer *buffer)
{
    free(buffer->data);
    replica_buffer_init(buffer);
}

void replica_buffer_clear(struct replica_buffer *buffer)
{
    buffer->size = 0;
    buffer->failed = false;
}

uint8_t *replica_buffer_reserve(struct replica_buffer *buffer, size_t n)
{
    size_t capacity = buffer->capacity < 64 ? 64 : buffer->capacity;
    uint8_t *data;
    if (buffer->failed || n > SIZE_MAX / 2 - buffer->size) {
        buffer->failed = true;
        return NULL;
    }
    if (n <= buffer->capacity - buffer->size && buffer->data != NULL)
        return buffer->data + buffer->size;
    while (capacity - buffer->size < n)
        capacity *= 2;
    data = realloc(buffer->data, capacity);
    if (data == NULL) {
        buffer->failed = true;
        return NULL;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return buffer->data + buffer->size;
}

int replica_buffer_append(struct replica_buffer *buffer, const void *data, size_t n)
{
    uint8_t *room;
    if (n == 0)
        return buffer->failed ? REPLICA_E_NOMEM : 0;
    room = replica_buffer_reserve(buffer, n);
    if (room == NULL)
        return REPLICA_E_NOMEM;
    memcpy(room, data, n);
    buffer->size += n;
    return 0;
}
