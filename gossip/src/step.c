/* What all rooms share: filling an update, seeded randomness, and what a principal may do. */
#include "gossip/step.h"

#include "replica/merkle.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Capacity of a list at its first use; it doubles from there and is kept between steps. */
#define ITEMS_FIRST 16

void gossip_update_init(struct gossip_update *update)
{
    memset(update, 0, sizeof *update);
    replica_kv_batch_init(&update->log);
    replica_kv_batch_init(&update->map);
    replica_buffer_init(&update->bytes);
    update->wake_ms = UINT64_MAX;
}

void gossip_update_close(struct gossip_update *update)
{
    replica_kv_batch_close(&update->log);
    replica_kv_batch_close(&update->map);
    replica_buffer_close(&update->bytes);
    free(update->sends);
    free(update->answers);
    free(update->uploads);
    free(update->settles);
    free(update->notes);
    gossip_update_init(update);
}

void gossip_update_clear(struct gossip_update *update)
{
    replica_kv_batch_clear(&update->log);
    replica_kv_batch_clear(&update->map);
    replica_buffer_clear(&update->bytes);
    update->sends_n = 0;
    update->answers_n = 0;
    update->uploads_n = 0;
    update->settles_n = 0;
    update->notes_n = 0;
    update->reads = 0;
    update->wake_ms = UINT64_MAX;
    update->map_sync = false;
    update->again = false;
    update->failed = false;
}

/* Makes room for item n of a list; false without memory, and then the update is failed. */
static bool reserve(struct gossip_update *update, void **items, size_t n, size_t *capacity, size_t item_size)
{
    size_t wanted = *capacity == 0 ? ITEMS_FIRST : *capacity * 2;
    void *grown;
    if (n < *capacity)
        return true;
    grown = reallocarray(*items, wanted, item_size);
    if (grown == NULL) {
        update->failed = true;
        return false;
    }
    *items = grown;
    *capacity = wanted;
    return true;
}

#define RESERVE(update, list)                                                                                \
    reserve((update), (void **)&(update)->list, (update)->list##_n, &(update)->list##_capacity,              \
            sizeof *(update)->list)

/* Copies a payload (NULL: none) behind the others. */
static void add_bytes(struct gossip_update *update, const struct replica_buffer *payload, size_t *ret_offset,
                      size_t *ret_size)
{
    *ret_offset = update->bytes.size;
    *ret_size = payload == NULL ? 0 : payload->size;
    if (payload == NULL)
        return;
    if (payload->failed || replica_buffer_append(&update->bytes, payload->data, payload->size) != 0)
        update->failed = true;
}

static void add_send(struct gossip_update *update, const struct replica_id *to, const char *endpoint,
                     enum gossip_room room, uint8_t type, const struct replica_buffer *payload, bool durable)
{
    struct gossip_send *send;
    if (!RESERVE(update, sends))
        return;
    send = &update->sends[update->sends_n];
    memset(send, 0, sizeof *send);
    if (to != NULL)
        send->to = *to;
    if (endpoint != NULL) {
        size_t n = strlen(endpoint);
        assert(n <= GOSSIP_ENDPOINT_MAX);
        memcpy(send->endpoint, endpoint, n + 1);
    }
    send->room = room;
    send->type = type;
    send->durable = durable;
    add_bytes(update, payload, &send->offset, &send->size);
    update->sends_n++;
}

void gossip_update_send(struct gossip_update *update, const struct replica_id *to, enum gossip_room room,
                        uint8_t type, const struct replica_buffer *payload, bool durable)
{
    assert(!replica_id_is_zero(to));
    add_send(update, to, NULL, room, type, payload, durable);
}

void gossip_update_send_endpoint(struct gossip_update *update, const char *endpoint, enum gossip_room room,
                                 uint8_t type, const struct replica_buffer *payload)
{
    add_send(update, NULL, endpoint, room, type, payload, false);
}

static void add_answer(struct gossip_update *update, const struct gossip_answer *answer,
                       const struct replica_buffer *payload)
{
    struct gossip_answer *added;
    if (answer->token == 0 || !RESERVE(update, answers))
        return;
    added = &update->answers[update->answers_n];
    *added = *answer;
    add_bytes(update, payload, &added->offset, &added->size);
    update->answers_n++;
}

void gossip_update_answer(struct gossip_update *update, uint64_t token, int code,
                          const struct replica_buffer *payload, bool durable)
{
    struct gossip_answer answer = {.token = token, .code = code, .durable = durable, .final = true};
    add_answer(update, &answer, payload);
}

void gossip_update_progress(struct gossip_update *update, uint64_t token,
                            const struct replica_buffer *payload)
{
    struct gossip_answer answer = {.token = token};
    add_answer(update, &answer, payload);
}

void gossip_update_upload(struct gossip_update *update, const struct replica_id *to,
                          const struct replica_content_id *content, struct replica_piece piece)
{
    if (RESERVE(update, uploads))
        update->uploads[update->uploads_n++] =
            (struct gossip_upload){.to = *to, .content = *content, .piece = piece};
}

void gossip_update_settle(struct gossip_update *update, const struct replica_id *view, uint64_t draft)
{
    if (RESERVE(update, settles))
        update->settles[update->settles_n++] = (struct gossip_settle){.view = *view, .draft = draft};
}

void gossip_update_note(struct gossip_update *update, enum gossip_note_kind kind,
                        const struct replica_id *volume, const struct replica_id *store,
                        const struct replica_content_id *content)
{
    struct gossip_note *note;
    if (!RESERVE(update, notes))
        return;
    note = &update->notes[update->notes_n++];
    memset(note, 0, sizeof *note);
    note->kind = kind;
    if (volume != NULL)
        note->volume = *volume;
    if (store != NULL)
        note->store = *store;
    if (content != NULL)
        note->content = *content;
}

void gossip_update_note_piece(struct gossip_update *update, const struct replica_content_id *content,
                              uint64_t bytes)
{
    gossip_update_note(update, GOSSIP_NOTE_PIECE, NULL, NULL, content);
    if (!update->failed)
        update->notes[update->notes_n - 1].bytes = bytes;
}

void gossip_update_wake(struct gossip_update *update, uint64_t at_ms)
{
    if (at_ms < update->wake_ms)
        update->wake_ms = at_ms;
}

/* Randomness: xoshiro256** (Blackman, Vigna 2018), its state filled by splitmix64 as its authors advise. */

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void gossip_random_init(struct gossip_random *random, uint64_t seed, uint64_t stream)
{
    uint64_t state = seed;
    state = splitmix(&state) ^ stream;
    for (size_t i = 0; i < 4; i++)
        random->state[i] = splitmix(&state);
}

static uint64_t rotate_left(uint64_t value, int bits)
{
    return (value << bits) | (value >> (64 - bits));
}

uint64_t gossip_random_next(struct gossip_random *random)
{
    uint64_t *s = random->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

/* Lemire's multiplication with rejection: unbiased, rarely divides. */
uint64_t gossip_random_below(struct gossip_random *random, uint64_t bound)
{
    unsigned __int128 product;
    assert(bound >= 1);
    product = (unsigned __int128)gossip_random_next(random) * bound;
    if ((uint64_t)product < bound) {
        uint64_t threshold = -bound % bound;
        while ((uint64_t)product < threshold)
            product = (unsigned __int128)gossip_random_next(random) * bound;
    }
    return (uint64_t)(product >> 64);
}

void gossip_random_id(struct gossip_random *random, struct replica_id *ret_id)
{
    replica_u64_encode(gossip_random_next(random), ret_id->bytes);
    replica_u64_encode(gossip_random_next(random), ret_id->bytes + 8);
}

/* Principals */

bool gossip_principal_may(const struct gossip_principal *principal, const char *volume_name, bool write)
{
    struct replica_hash hash;
    if (principal->every_volume)
        return true;
    replica_hash_bytes(volume_name, strlen(volume_name), &hash);
    for (size_t i = 0; i < principal->volumes_n; i++)
        if (memcmp(principal->volumes[i].volume_name_hash.bytes, hash.bytes, REPLICA_ID_SIZE) == 0 &&
            (!write || !principal->volumes[i].read_only))
            return true;
    return false;
}
