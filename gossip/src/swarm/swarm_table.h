/* Lists and hash tables whose links lie inside their items, so that moving an item between them allocates
 * nothing. The order of a list is the order of insertion, and a table is never walked where order could show:
 * nothing depends on addresses. */
#ifndef GOSSIP_SRC_SWARM_TABLE_H
#define GOSSIP_SRC_SWARM_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An element of a ring; the list itself is the one element that belongs to no item. Alone: linked to itself.
 */
struct swarm_link {
    struct swarm_link *prev, *next;
};

#define SWARM_ITEM(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

static inline void swarm_link_init(struct swarm_link *link)
{
    link->prev = link->next = link;
}

static inline bool swarm_link_alone(const struct swarm_link *link)
{
    return link->next == link;
}

static inline void swarm_link_remove(struct swarm_link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    swarm_link_init(link);
}

/* Behind all others of list. */
static inline void swarm_link_append(struct swarm_link *list, struct swarm_link *link)
{
    link->prev = list->prev;
    link->next = list;
    list->prev->next = link;
    list->prev = link;
}

/* Before all others of list. */
static inline void swarm_link_prepend(struct swarm_link *list, struct swarm_link *link)
{
    swarm_link_append(list->next, link);
}

struct swarm_node {
    struct swarm_node *next;
    uint64_t hash;
};

/* Chained; twice as many buckets whenever items outnumber them. */
struct swarm_table {
    struct swarm_node **buckets;
    size_t buckets_n, n; /* buckets_n: a power of two, or 0 */
};

void swarm_table_close(struct swarm_table *table);
/* The chain that an item of that hash would be in. */
struct swarm_node *swarm_table_chain(const struct swarm_table *table, uint64_t hash);
/* Errors: NOMEM. */
int swarm_table_add(struct swarm_table *table, struct swarm_node *node, uint64_t hash);
void swarm_table_remove(struct swarm_table *table, struct swarm_node *node);

/* The finaliser of splitmix64: spreads any 64 bits. */
uint64_t swarm_mix(uint64_t value);

#endif
