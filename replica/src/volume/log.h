/* Keys of the log kv that belong to volumes: prefix `v`, the volume's id, a tag. docs/storage-format.md,
 * "Log". */
#ifndef REPLICA_SRC_LOG_H
#define REPLICA_SRC_LOG_H

#include "replica/volume.h"

#define REPLICA_LOG_KEY_MAX 96

struct replica_log_key {
    uint8_t bytes[REPLICA_LOG_KEY_MAX];
    size_t size;
};

struct replica_log_key replica_log_key_head(const struct replica_id *volume);       /* h */
struct replica_log_key replica_log_key_checkpoint(const struct replica_id *volume); /* c */
struct replica_log_key replica_log_key_delta(const struct replica_id *volume,
                                             const struct replica_dot *dot); /* d */
struct replica_log_key replica_log_key_commit(const struct replica_id *volume,
                                              const struct replica_id *commit);                    /* k */
struct replica_log_key replica_log_key_order(const struct replica_id *volume, uint64_t apply_seq); /* a */
struct replica_log_key replica_log_key_proposal(const struct replica_id *volume,
                                                const struct replica_id *commit); /* p */
struct replica_log_key replica_log_key_image(const struct replica_id *volume);    /* i */
/* Prefix `q`: a content pinned by a proposal. */
struct replica_log_key replica_log_key_pin(const struct replica_content_id *content,
                                           const struct replica_id *volume, const struct replica_id *commit);

/* Dots as stored in values: actor, then seq big-endian. */
#define REPLICA_LOG_DOT_SIZE (REPLICA_ACTOR_SIZE + 8)
void replica_log_dot_encode(const struct replica_dot *dot, uint8_t ret[REPLICA_LOG_DOT_SIZE]);
void replica_log_dot_decode(const uint8_t bytes[REPLICA_LOG_DOT_SIZE], struct replica_dot *ret_dot);

#endif
