/* Routing inside the room, and what its parts share. */
#include "quorum/quorum_writing.h"

#include "replica/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gossip_quorum_options_default(struct gossip_quorum_options *options)
{
    options->retry_ms = 500;
    options->deadline_ms = 30000;
}

int gossip_quorum_init(struct gossip_quorum *quorum, const struct gossip_quorum_options *options,
                       struct attached_table *table, struct gossip_sync *sync,
                       const struct gossip_member *member, const struct gossip_control *control,
                       struct replica_views *views, const struct gossip_principal *self, uint64_t seed)
{
    memset(quorum, 0, sizeof *quorum);
    quorum->options = *options;
    quorum->table = table;
    quorum->sync = sync;
    quorum->member = member;
    quorum->control = control;
    quorum->views = views;
    quorum->self = *self;
    gossip_random_init(&quorum->random, seed, 4 /* stream */);
    quorum->rounds = gossip_random_next(&quorum->random) >>
                     16; /* a late answer to an earlier life fits no round of this one */
    quorum->commits = calloc(COMMITS_MAX, sizeof(struct commit *));
    quorum->reloads = calloc(RELOADS_MAX, sizeof(struct reload *));
    if (quorum->commits == NULL || quorum->reloads == NULL) {
        gossip_quorum_close(quorum);
        return REPLICA_E_NOMEM;
    }
    return 0;
}

void gossip_quorum_close(struct gossip_quorum *quorum)
{
    for (size_t i = 0; i < quorum->commits_n; i++)
        writing_free(quorum->commits[i]);
    for (size_t i = 0; i < quorum->reloads_n; i++)
        free(quorum->reloads[i]);
    free(quorum->commits);
    free(quorum->reloads);
    memset(quorum, 0, sizeof *quorum);
}

const struct gossip_volume *quorum_volume(const struct gossip_quorum *quorum, const struct replica_id *volume)
{
    return gossip_control_volume(quorum->control, volume);
}

int quorum_voter_index(const struct gossip_configuration *configuration, const struct replica_id *store)
{
    for (size_t i = 0; i < configuration->voters_n; i++)
        if (replica_id_equal(&configuration->voters[i], store))
            return (int)i;
    return -1;
}

void quorum_answer_code(struct gossip_update *update, uint64_t token, int code, const char *reason,
                        bool durable)
{
    struct replica_buffer payload;
    if (token == 0)
        return;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 1);
    replica_pack_cstr(&payload, reason);
    gossip_update_answer(update, token, code, &payload, durable);
    replica_buffer_close(&payload);
}

bool quorum_may(const struct gossip_quorum *quorum, const struct replica_id *volume, bool write,
                uint64_t token, struct gossip_update *update)
{
    const struct gossip_volume *entry = quorum_volume(quorum, volume);
    char reason[64 + GOSSIP_VOLUME_NAME_MAX];
    if (entry == NULL || gossip_principal_may(&quorum->self, entry->name, write))
        return true;
    snprintf(reason, sizeof reason, "this node's credential may not %s the volume \"%s\"",
             write ? "write to" : "read", entry->name);
    quorum_answer_code(update, token, REPLICA_E_DENIED, reason, false);
    return false;
}

bool gossip_quorum_refers(const struct gossip_quorum *quorum, const struct replica_id *volume,
                          const struct replica_content_id *content)
{
    for (size_t i = 0; i < quorum->commits_n; i++)
        if (quorum->commits[i]->ops_content.length > 0 &&
            (volume == NULL || replica_id_equal(&quorum->commits[i]->volume, volume)) &&
            replica_content_id_equal(&quorum->commits[i]->ops_content, content))
            return true;
    return quorum_offer_refers(quorum, volume, content);
}

/* Messages that count only from a volume's voters, whose credential must allow that still. */
static bool says_what_voters_say(uint8_t type)
{
    return type == QUORUM_PREPARED || type == QUORUM_OUTCOME || type == QUORUM_REPLICATE ||
           type == QUORUM_HELD;
}

static int route_message(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                         struct gossip_update *update)
{
    if (says_what_voters_say(event->message.type) && event->message.from->role != GOSSIP_ROLE_VOTER)
        return REPLICA_E_DENIED;
    switch (event->message.type) {
    case QUORUM_PREPARE:
    case QUORUM_MINT:
    case QUORUM_REPLICATE:
    case QUORUM_ASK:
    case QUORUM_OFFER:
    case QUORUM_ABANDON:
        return quorum_voter_message(quorum, event, update);
    case QUORUM_PREPARED:
    case QUORUM_OUTCOME:
        return quorum_writer_message(quorum, event, update);
    case QUORUM_HELD:
        return quorum_reader_message(quorum, event, update);
    case QUORUM_REFUSED:
        return quorum_reader_refused(quorum, event, update);
    default:
        return REPLICA_E_MALFORMED;
    }
}

int gossip_quorum_step(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                       struct gossip_update *update)
{
    int rv;
    quorum->batch = event->batch;
    switch (event->kind) {
    case GOSSIP_QUORUM_EVENT_MESSAGE:
        return route_message(quorum, event, update);
    case GOSSIP_QUORUM_EVENT_FAILED:
        quorum->failed = true;
        return 0;
    default:
        break;
    }
    quorum_offer_event(quorum, event, update);
    rv = quorum_voter_event(quorum, event, update);
    if (rv == 0)
        rv = quorum_writer_event(quorum, event, update);
    if (rv == 0)
        rv = quorum_reader_event(quorum, event, update);
    return rv;
}
