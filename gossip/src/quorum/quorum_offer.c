/* Contents first (design §3): what a writer has taken in is offered to the volume's voters at once, before commit is called, so that the
 * bytes are on their way while it goes on. An offer promises nothing and pins nothing: prepare asks again for what is missing. A voter
 * forgets it after OFFER_MS. */
#include "quorum/quorum.h"

#include "replica/error.h"

#include <string.h>

/* A put that takes longer than this before its commit loses only the head start. */
#define OFFER_MS (10ull * 60 * 1000)

void quorum_offer_send(struct gossip_quorum *quorum, const struct replica_id *volume,
                       const struct replica_content_id *contents, size_t n, struct gossip_update *update)
{
    const struct gossip_volume *entry = quorum_volume(quorum, volume);
    for (size_t at = 0; entry != NULL && !entry->deleted && at < n; at += OFFER_CONTENTS_MAX) {
        size_t count = n - at < OFFER_CONTENTS_MAX ? n - at : OFFER_CONTENTS_MAX;
        struct replica_buffer payload;
        replica_buffer_init(&payload);
        replica_pack_array(&payload, 4);
        replica_pack_id(&payload, volume);
        replica_pack_uint(&payload, entry->configuration.epoch);
        replica_pack_uint(&payload, entry->configuration.phase);
        replica_pack_array(&payload, count);
        for (size_t i = 0; i < count; i++)
            replica_pack_content_id(&payload, &contents[at + i]);
        for (size_t i = 0; i < entry->configuration.voters_n; i++)
            if (!replica_id_equal(&entry->configuration.voters[i], &quorum->table->self))
                gossip_update_send(update, &entry->configuration.voters[i], GOSSIP_ROOM_QUORUM, QUORUM_OFFER,
                                   &payload, false);
        replica_buffer_close(&payload);
    }
}

bool quorum_offer_refers(const struct gossip_quorum *quorum, const struct replica_id *volume,
                         const struct replica_content_id *content)
{
    for (size_t i = 0; i < quorum->offers_n; i++)
        if ((volume == NULL || replica_id_equal(&quorum->offers[i].volume, volume)) &&
            replica_content_id_equal(&quorum->offers[i].content, content))
            return true;
    return false;
}

int quorum_offer_receive(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                         struct replica_pack_reader *reader, const struct gossip_volume *volume,
                         struct gossip_update *update)
{
    uint64_t epoch, phase;
    size_t count;
    replica_pack_read_uint(reader, UINT64_MAX, &epoch);
    replica_pack_read_uint(reader, UINT32_MAX, &phase);
    replica_pack_read_array(reader, OFFER_CONTENTS_MAX, &count);
    if (reader->failed)
        return REPLICA_E_MALFORMED;
    if (!gossip_principal_may(event->message.from, volume->name, true))
        return REPLICA_E_DENIED;
    for (size_t i = 0; i < count; i++) {
        struct replica_content_id content;
        if (replica_pack_read_content_id(reader, &content) != 0)
            return REPLICA_E_MALFORMED;
        if (quorum->offers_n == OFFERS_MAX)
            return 0; /* prepare will ask for the rest */
        if (content.length == 0 || quorum_offer_refers(quorum, &volume->id, &content) ||
            replica_contents_state(quorum->table->contents, &content) >= REPLICA_CONTENTS_FILLED)
            continue;
        quorum->offers[quorum->offers_n++] = (struct offer){.content = content,
                                                            .volume = volume->id,
                                                            .wanted = true,
                                                            .until_ms = event->time.now_ms + OFFER_MS};
        gossip_update_note(update, GOSSIP_NOTE_WANT, &volume->id, &event->message.from->store, &content);
    }
    return 0;
}

void quorum_offer_event(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                        struct gossip_update *update)
{
    for (size_t i = quorum->offers_n; i > 0; i--) {
        struct offer *offer = &quorum->offers[i - 1];
        if (event->kind == GOSSIP_QUORUM_EVENT_HAVE &&
            replica_content_id_equal(&offer->content, &event->content))
            offer->wanted = false; /* kept: nothing else may name it yet */
        if (event->kind != GOSSIP_QUORUM_EVENT_TIMER || event->time.now_ms < offer->until_ms)
            continue;
        if (offer->wanted)
            gossip_update_note(update, GOSSIP_NOTE_UNWANT, &offer->volume, NULL, &offer->content);
        *offer = quorum->offers[--quorum->offers_n];
    }
}
