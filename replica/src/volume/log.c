#include "volume/log.h"

#include <assert.h>
#include <string.h>

static void key_append(struct replica_log_key *key, const void *data, size_t n)
{
    assert(key->size + n <= sizeof key->bytes);
    memcpy(key->bytes + key->size, data, n);
    key->size += n;
}

static void key_append_u64(struct replica_log_key *key, uint64_t value)
{
    uint8_t bytes[8];
    replica_u64_encode(value, bytes);
    key_append(key, bytes, sizeof bytes);
}

static struct replica_log_key key_start(const struct replica_id *volume, char tag)
{
    struct replica_log_key key = {.size = 0};
    key_append(&key, "v", 1);
    key_append(&key, volume->bytes, sizeof volume->bytes);
    key_append(&key, &tag, 1);
    return key;
}

struct replica_log_key replica_log_key_head(const struct replica_id *volume)
{
    return key_start(volume, 'h');
}

struct replica_log_key replica_log_key_checkpoint(const struct replica_id *volume)
{
    return key_start(volume, 'c');
}

struct replica_log_key replica_log_key_delta(const struct replica_id *volume, const struct replica_dot *dot)
{
    struct replica_log_key key = key_start(volume, 'd');
    uint8_t bytes[REPLICA_LOG_DOT_SIZE];
    replica_log_dot_encode(dot, bytes);
    key_append(&key, bytes, sizeof bytes);
    return key;
}

struct replica_log_key replica_log_key_commit(const struct replica_id *volume,
                                              const struct replica_id *commit)
{
    struct replica_log_key key = key_start(volume, 'k');
    key_append(&key, commit->bytes, sizeof commit->bytes);
    return key;
}

struct replica_log_key replica_log_key_order(const struct replica_id *volume, uint64_t apply_seq)
{
    struct replica_log_key key = key_start(volume, 'a');
    key_append_u64(&key, apply_seq);
    return key;
}

struct replica_log_key replica_log_key_proposal(const struct replica_id *volume,
                                                const struct replica_id *commit)
{
    struct replica_log_key key = key_start(volume, 'p');
    key_append(&key, commit->bytes, sizeof commit->bytes);
    return key;
}

struct replica_log_key replica_log_key_image(const struct replica_id *volume)
{
    return key_start(volume, 'i');
}

struct replica_log_key replica_log_key_pin(const struct replica_content_id *content,
                                           const struct replica_id *volume, const struct replica_id *commit)
{
    struct replica_log_key key = {.size = 0};
    uint8_t id[REPLICA_CONTENT_ID_SIZE];
    replica_content_id_encode(content, id);
    key_append(&key, "q", 1);
    key_append(&key, id, sizeof id);
    key_append(&key, volume->bytes, sizeof volume->bytes);
    key_append(&key, commit->bytes, sizeof commit->bytes);
    return key;
}

void replica_log_dot_encode(const struct replica_dot *dot, uint8_t ret[REPLICA_LOG_DOT_SIZE])
{
    replica_actor_encode(&dot->actor, ret);
    replica_u64_encode(dot->seq, ret + REPLICA_ACTOR_SIZE);
}

void replica_log_dot_decode(const uint8_t bytes[REPLICA_LOG_DOT_SIZE], struct replica_dot *ret_dot)
{
    replica_actor_decode(bytes, &ret_dot->actor);
    ret_dot->seq = replica_u64_decode(bytes + REPLICA_ACTOR_SIZE);
}
