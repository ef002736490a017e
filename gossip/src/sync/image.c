#include "sync/image.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

enum image_phase {
    IMAGE_TAKING,
    IMAGE_SYNCING,  /* all parts are in the map, which is being synced */
    IMAGE_CLEARING, /* given up, or left by an earlier life: its parts leave the map */
    IMAGE_DROPPING, /* the cleared map is being synced */
};

struct attached_image {
    struct replica_id source;
    struct replica_image image;
    enum image_phase phase;
    struct replica_image_progress progress;
    uint8_t position[REPLICA_IMAGE_POSITION_MAX];
    size_t position_n;
    unsigned tries;
    uint64_t deadline_ms;
    bool sync_asked;
};

static uint64_t lacking(const struct replica_vector *committed, const struct replica_vector *have)
{
    uint64_t n = 0;
    for (size_t i = 0; i < committed->n; i++) {
        uint64_t seq = replica_vector_get(have, &committed->entries[i].actor);
        n += committed->entries[i].seq > seq ? committed->entries[i].seq - seq : 0;
    }
    return n;
}

bool image_should_offer(const struct attached *attached, const struct replica_vector *have)
{
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    return have->n == 0 && state->applied_seq > 0 &&
           (state->base.n > 0 || lacking(&state->applied, have) >= IMAGE_DELTAS_MIN);
}

void image_offer(const struct attached *attached, const struct replica_id *to, struct gossip_update *update)
{
    struct replica_image *image = malloc(sizeof *image);
    struct replica_buffer payload;
    if (image == NULL) {
        update->failed = true;
        return;
    }
    replica_image_describe(attached->volume, image);
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 2);
    replica_pack_id(&payload, &attached->id);
    replica_image_pack(&payload, image);
    gossip_update_send(update, to, GOSSIP_ROOM_SYNC, MESSAGE_IMAGE_OFFER, &payload, true);
    replica_buffer_close(&payload);
    free(image);
}

/* Taking */

static void ask(struct gossip_sync *sync, struct attached *attached, struct gossip_time time,
                struct gossip_update *update)
{
    struct attached_image *image = attached->image;
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 3);
    replica_pack_id(&payload, &attached->id);
    replica_pack_uint(&payload, image->image.apply_seq);
    replica_pack_bin(&payload, image->position, image->position_n);
    /* No part may come before the mark in the log is durable. */
    gossip_update_send(update, &image->source, GOSSIP_ROOM_SYNC, MESSAGE_IMAGE_PULL, &payload,
                       image->position_n == 0);
    replica_buffer_close(&payload);
    image->deadline_ms = time.now_ms + sync->options.pull_ms;
    gossip_update_wake(update, image->deadline_ms);
}

static void end(struct attached *attached, struct gossip_update *update)
{
    free(attached->image);
    attached->image = NULL;
    memset(&attached->source, 0, sizeof attached->source);
    update->again = true; /* the pull begins anew */
}

/* What came so far must be gone before anything else is applied: the log of another voter may be what comes next. */
static void give_up(struct attached *attached, struct gossip_update *update)
{
    attached->image->phase = IMAGE_CLEARING;
    attached->image->sync_asked = false;
    update->again = true;
}

bool image_is_coming(const struct attached *attached)
{
    return attached->image != NULL || replica_image_is_unfinished(attached->volume);
}

int image_receive_offer(struct gossip_sync *sync, struct attached *attached,
                        const struct gossip_sync_event *event, struct replica_pack_reader *reader,
                        struct gossip_update *update)
{
    struct replica_image offered;
    const struct replica_id *from = &event->message.from->store;
    if (replica_image_read(reader, &offered) != 0)
        return REPLICA_E_MALFORMED;
    if (!gossip_sync_from_voter(sync->control, &attached->id, event->message.from))
        return REPLICA_E_DENIED; /* a state names no signers: only a voter's word stands for it */
    if (!replica_id_equal(&attached->source, from) || image_is_coming(attached) ||
        !replica_image_is_wanted(attached->volume))
        return 0;
    attached->image = calloc(1, sizeof *attached->image);
    if (attached->image == NULL)
        return REPLICA_E_NOMEM;
    attached->image->source = *from;
    attached->image->image = offered;
    attached->image->phase = IMAGE_TAKING;
    replica_image_begin(attached->volume, &update->log);
    ask(sync, attached, event->time, update);
    return 0;
}

static int clear_some(struct attached *attached, struct gossip_update *update)
{
    int rv;
    if (update->map.count > 0) { /* scans do not see what this step writes */
        update->again = true;
        return 0;
    }
    rv = replica_image_clear(attached->volume, &update->reads, &update->map);
    if (rv != 0 && rv != REPLICA_E_AGAIN)
        return rv;
    update->again = true;
    if (rv == 0)
        attached->image->phase = IMAGE_DROPPING;
    return 0;
}

/* An earlier life's image. */
static int take_up(struct attached *attached)
{
    attached->image = calloc(1, sizeof *attached->image);
    if (attached->image == NULL)
        return REPLICA_E_NOMEM;
    attached->image->phase = IMAGE_CLEARING;
    return 0;
}

int image_tick(struct gossip_sync *sync, struct attached *attached, const struct gossip_sync_event *event,
               struct gossip_update *update)
{
    struct attached_image *image = attached->image;
    if (image == NULL && image_is_coming(attached)) {
        int rv = take_up(attached);
        if (rv != 0)
            return rv;
        image = attached->image;
    }
    if (image == NULL)
        return 0;
    if (image->phase == IMAGE_CLEARING)
        return clear_some(attached, update);
    if (image->phase == IMAGE_SYNCING || image->phase == IMAGE_DROPPING) {
        if (!image->sync_asked)
            image->sync_asked = sync_map(sync, update);
        return 0;
    }
    if (event->time.now_ms < image->deadline_ms) {
        gossip_update_wake(update, image->deadline_ms);
        return 0;
    }
    if (++image->tries > IMAGE_TRIES_MAX)
        give_up(attached, update);
    else
        ask(sync, attached, event->time, update);
    return 0;
}

int image_receive_part(struct gossip_sync *sync, struct attached *attached,
                       const struct gossip_sync_event *event, struct replica_pack_reader *reader,
                       struct gossip_update *update)
{
    struct attached_image *image = attached->image;
    const uint8_t *position, *next;
    size_t position_n, next_n;
    uint64_t apply_seq;
    int rv;
    replica_pack_read_uint(reader, UINT64_MAX, &apply_seq);
    replica_pack_read_bin(reader, REPLICA_IMAGE_POSITION_MAX, &position, &position_n);
    if (reader->failed)
        return REPLICA_E_MALFORMED;
    if (image == NULL || image->phase != IMAGE_TAKING ||
        !replica_id_equal(&image->source, &event->message.from->store) ||
        apply_seq != image->image.apply_seq || position_n != image->position_n ||
        (position_n > 0 && memcmp(position, image->position, position_n) != 0))
        return 0; /* late, or a duplicate */
    if (!gossip_sync_from_voter(sync->control, &attached->id, event->message.from))
        return REPLICA_E_DENIED; /* its credential is another by now */
    rv = replica_image_take(attached->volume, reader->data + reader->offset, reader->size - reader->offset,
                            &update->log, &update->map, &image->progress, &update->reads, &next, &next_n);
    if (rv == REPLICA_E_MALFORMED || (rv == 0 && next_n > sizeof image->position)) {
        give_up(attached, update);
        return rv;
    }
    if (rv != 0)
        return rv;
    if (next_n > 0)
        memcpy(image->position, next, next_n);
    image->position_n = next_n;
    image->tries = 0;
    if (next_n > 0) {
        ask(sync, attached, event->time, update);
    } else {
        image->phase = IMAGE_SYNCING;
        update->again = true;
    }
    return 0;
}

int image_map_synced(struct attached *attached, struct gossip_update *update)
{
    struct attached_image *image = attached->image;
    int rv;
    if (image == NULL || !image->sync_asked)
        return 0;
    if (image->phase == IMAGE_DROPPING) {
        replica_image_drop(attached->volume, &update->log);
        end(attached, update);
        return 0;
    }
    rv = replica_image_adopt(attached->volume, &image->image, &image->progress, &update->log);
    if (rv == REPLICA_E_MISMATCH || rv == REPLICA_E_TOOBIG) {
        give_up(attached, update); /* not what was promised: begin anew */
        return 0;
    }
    end(attached, update);
    attached->applying = true;
    if (rv == 0)
        gossip_update_note(update, GOSSIP_NOTE_APPLIED, &attached->id, NULL, NULL);
    return rv;
}

/* Giving */

int image_serve(struct attached *attached, const struct gossip_sync_event *event,
                struct replica_pack_reader *reader, struct gossip_update *update)
{
    struct replica_buffer payload;
    const uint8_t *position;
    uint64_t apply_seq;
    size_t n;
    int rv;
    replica_pack_read_uint(reader, UINT64_MAX, &apply_seq);
    replica_pack_read_bin(reader, REPLICA_IMAGE_POSITION_MAX, &position, &n);
    if (reader->failed || apply_seq == 0)
        return REPLICA_E_MALFORMED;
    if (apply_seq > replica_volume_state(attached->volume)->applied_seq)
        return 0; /* of another life; the asker gives up and begins anew */
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 4);
    replica_pack_id(&payload, &attached->id);
    replica_pack_uint(&payload, apply_seq);
    replica_pack_bin(&payload, position, n);
    rv = replica_image_part(attached->volume, apply_seq, position, n, &payload, &update->reads);
    if (rv == 0)
        gossip_update_send(update, &event->message.from->store, GOSSIP_ROOM_SYNC, MESSAGE_IMAGE_PART,
                           &payload, true);
    replica_buffer_close(&payload);
    return rv;
}
