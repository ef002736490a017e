#include "inside.h"

#include <stdlib.h>

static bool before(const struct event *a, const struct event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

struct event *event_new(enum event_kind kind, uint64_t at_ms, size_t node, uint64_t life)
{
    struct event *event = calloc(1, sizeof *event);
    if (event == NULL)
        abort();
    event->kind = kind;
    event->at_ms = at_ms;
    event->node = node;
    event->life = life;
    return event;
}

void event_free(struct event *event)
{
    free(event->bytes);
    free(event);
}

void queue_push(struct queue *queue, struct event *event)
{
    size_t at = queue->n;
    queue->events = world_grow(queue->events, queue->n, &queue->capacity, sizeof(struct event *));
    event->order = queue->order++;
    for (; at > 0 && before(event, queue->events[(at - 1) / 2]); at = (at - 1) / 2)
        queue->events[at] = queue->events[(at - 1) / 2];
    queue->events[at] = event;
    queue->n++;
}

struct event *queue_pop(struct queue *queue)
{
    struct event *first, *last;
    size_t at = 0;
    if (queue->n == 0)
        return NULL;
    first = queue->events[0];
    last = queue->events[--queue->n];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= queue->n)
            break;
        if (child + 1 < queue->n && before(queue->events[child + 1], queue->events[child]))
            child++;
        if (before(last, queue->events[child]))
            break;
        queue->events[at] = queue->events[child];
        at = child;
    }
    queue->events[at] = last;
    return first;
}

const struct event *queue_peek(const struct queue *queue)
{
    return queue->n == 0 ? NULL : queue->events[0];
}
