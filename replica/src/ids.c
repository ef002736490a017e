#include "replica/ids.h"

#include "replica/error.h"

#include <string.h>

void replica_u64_encode(uint64_t value, uint8_t ret[8])
{
    for (int i = 7; i >= 0; i--, value >>= 8)
        ret[i] = (uint8_t)value;
}

uint64_t replica_u64_decode(const uint8_t bytes[8])
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | bytes[i];
    return value;
}

int replica_id_compare(const struct replica_id *a, const struct replica_id *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes);
}

bool replica_id_equal(const struct replica_id *a, const struct replica_id *b)
{
    return replica_id_compare(a, b) == 0;
}

bool replica_id_is_zero(const struct replica_id *id)
{
    static const struct replica_id zero;
    return replica_id_equal(id, &zero);
}

void replica_id_format(const struct replica_id *id, char ret_text[33])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < REPLICA_ID_SIZE; i++) {
        ret_text[2 * i] = digits[id->bytes[i] >> 4];
        ret_text[2 * i + 1] = digits[id->bytes[i] & 15];
    }
    ret_text[32] = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int replica_id_parse(const char *text, struct replica_id *ret_id)
{
    struct replica_id id;
    for (size_t i = 0; i < REPLICA_ID_SIZE; i++) {
        int high = hex_digit(text[2 * i]);
        int low = high < 0 ? -1 : hex_digit(text[2 * i + 1]);
        if (low < 0)
            return REPLICA_E_INVALID;
        id.bytes[i] = (uint8_t)(high << 4 | low);
    }
    if (text[32] != '\0')
        return REPLICA_E_INVALID;
    *ret_id = id;
    return 0;
}

static int compare_u64(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

int replica_content_id_compare(const struct replica_content_id *a, const struct replica_content_id *b)
{
    int rv = memcmp(a->root, b->root, sizeof a->root);
    return rv != 0 ? rv : compare_u64(a->length, b->length);
}

bool replica_content_id_equal(const struct replica_content_id *a, const struct replica_content_id *b)
{
    return replica_content_id_compare(a, b) == 0;
}

void replica_content_id_encode(const struct replica_content_id *id, uint8_t ret[REPLICA_CONTENT_ID_SIZE])
{
    memcpy(ret, id->root, sizeof id->root);
    replica_u64_encode(id->length, ret + sizeof id->root);
}

void replica_content_id_decode(const uint8_t bytes[REPLICA_CONTENT_ID_SIZE],
                               struct replica_content_id *ret_id)
{
    memcpy(ret_id->root, bytes, sizeof ret_id->root);
    ret_id->length = replica_u64_decode(bytes + sizeof ret_id->root);
}

int replica_stamp_compare(const struct replica_stamp *a, const struct replica_stamp *b)
{
    int rv = compare_u64(a->hlc, b->hlc);
    return rv != 0 ? rv : replica_id_compare(&a->commit, &b->commit);
}

bool replica_stamp_is_zero(const struct replica_stamp *stamp)
{
    return stamp->hlc == 0 && replica_id_is_zero(&stamp->commit);
}

void replica_stamp_encode(const struct replica_stamp *stamp, uint8_t ret[REPLICA_STAMP_SIZE])
{
    replica_u64_encode(stamp->hlc, ret);
    memcpy(ret + 8, stamp->commit.bytes, REPLICA_ID_SIZE);
}

void replica_stamp_decode(const uint8_t bytes[REPLICA_STAMP_SIZE], struct replica_stamp *ret_stamp)
{
    ret_stamp->hlc = replica_u64_decode(bytes);
    memcpy(ret_stamp->commit.bytes, bytes + 8, REPLICA_ID_SIZE);
}

int replica_actor_compare(const struct replica_actor *a, const struct replica_actor *b)
{
    int rv = replica_id_compare(&a->store, &b->store);
    return rv != 0 ? rv : compare_u64(a->epoch, b->epoch);
}

void replica_actor_encode(const struct replica_actor *actor, uint8_t ret[REPLICA_ACTOR_SIZE])
{
    memcpy(ret, actor->store.bytes, REPLICA_ID_SIZE);
    replica_u64_encode(actor->epoch, ret + REPLICA_ID_SIZE);
}

void replica_actor_decode(const uint8_t bytes[REPLICA_ACTOR_SIZE], struct replica_actor *ret_actor)
{
    memcpy(ret_actor->store.bytes, bytes, REPLICA_ID_SIZE);
    ret_actor->epoch = replica_u64_decode(bytes + REPLICA_ID_SIZE);
}
