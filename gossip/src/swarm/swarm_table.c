#include "swarm/swarm.h"

#include "replica/error.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS_FIRST 64

void swarm_table_close(struct swarm_table *table)
{
    free(table->buckets);
    memset(table, 0, sizeof *table);
}

struct swarm_node *swarm_table_chain(const struct swarm_table *table, uint64_t hash)
{
    return table->buckets_n == 0 ? NULL : table->buckets[hash & (table->buckets_n - 1)];
}

static void put(struct swarm_table *table, struct swarm_node *node)
{
    struct swarm_node **bucket = &table->buckets[node->hash & (table->buckets_n - 1)];
    node->next = *bucket;
    *bucket = node;
}

static int grow(struct swarm_table *table)
{
    struct swarm_table grown = {.buckets_n = table->buckets_n == 0 ? BUCKETS_FIRST : table->buckets_n * 2,
                                .n = table->n};
    grown.buckets = calloc(grown.buckets_n, sizeof(struct swarm_node *));
    if (grown.buckets == NULL)
        return REPLICA_E_NOMEM;
    for (size_t i = 0; i < table->buckets_n; i++)
        while (table->buckets[i] != NULL) {
            struct swarm_node *node = table->buckets[i];
            table->buckets[i] = node->next;
            put(&grown, node);
        }
    free(table->buckets);
    *table = grown;
    return 0;
}

int swarm_table_add(struct swarm_table *table, struct swarm_node *node, uint64_t hash)
{
    if (table->n == table->buckets_n) {
        int rv = grow(table);
        if (rv != 0)
            return rv;
    }
    node->hash = hash;
    put(table, node);
    table->n++;
    return 0;
}

void swarm_table_remove(struct swarm_table *table, struct swarm_node *node)
{
    struct swarm_node **at = &table->buckets[node->hash & (table->buckets_n - 1)];
    while (*at != node) {
        assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = node->next;
    table->n--;
}

uint64_t swarm_mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

int swarm_volume_number(struct gossip_swarm *swarm, const struct replica_id *volume, uint16_t *ret_number)
{
    for (size_t i = swarm->volumes_n; i > 0; i--) /* what was added last is what is asked for most */
        if (replica_id_equal(&swarm->volumes[i - 1], volume)) {
            *ret_number = (uint16_t)(i - 1);
            return 0;
        }
    if (swarm->volumes_n == SWARM_VOLUMES_MAX)
        return REPLICA_E_NOSPACE;
    if (swarm->volumes_n == swarm->volumes_capacity) {
        size_t capacity = swarm->volumes_capacity == 0 ? 8 : swarm->volumes_capacity * 2;
        struct replica_id *volumes = realloc(swarm->volumes, capacity * sizeof *volumes);
        if (volumes == NULL)
            return REPLICA_E_NOMEM;
        swarm->volumes = volumes;
        swarm->volumes_capacity = capacity;
    }
    swarm->volumes[swarm->volumes_n] = *volume;
    *ret_number = (uint16_t)swarm->volumes_n++;
    return 0;
}
