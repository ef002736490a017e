/* Messages: one shape for all types, checked whole before anything is taken from it. */
#include "member/member.h"

#include "replica/error.h"

#include <string.h>

#define RECORD_ITEMS  10 /* of ours; a newer version may append more */
#define MESSAGE_ITEMS 5
#define ITEMS_MAX     32

/* Text of peers ends up on terminals and in logs. */
static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

static int check_record(const struct gossip_member_record *record)
{
    if (replica_id_is_zero(&record->store) || record->generation > MEMBER_NUMBER_MAX ||
        record->incarnation > MEMBER_NUMBER_MAX)
        return REPLICA_E_MALFORMED;
    /* Only what our transport speaks: an address makes others connect. */
    if (strncmp(record->endpoint, "tcp://", 6) != 0)
        return REPLICA_E_MALFORMED;
    if (!is_printable(record->name) || !is_printable(record->zone) || !is_printable(record->endpoint) ||
        !is_printable(record->version))
        return REPLICA_E_MALFORMED;
    return 0;
}

static void pack_record(struct replica_buffer *out, const struct gossip_member_record *record)
{
    replica_pack_array(out, RECORD_ITEMS);
    replica_pack_id(out, &record->store);
    replica_pack_uint(out, record->generation);
    replica_pack_uint(out, record->incarnation);
    replica_pack_uint(out, (uint64_t)record->state);
    replica_pack_uint(out, record->roles);
    replica_pack_uint(out, record->capacity_free);
    replica_pack_cstr(out, record->name);
    replica_pack_cstr(out, record->zone);
    replica_pack_cstr(out, record->endpoint);
    replica_pack_cstr(out, record->version);
}

/* At most max bytes, none of them NUL, into a field of max + 1. */
static void read_text(struct replica_pack_reader *reader, size_t max, char *ret_text)
{
    const char *text;
    size_t n;
    ret_text[0] = '\0';
    if (replica_pack_read_str(reader, max, &text, &n) != 0)
        return;
    if (memchr(text, '\0', n) != NULL) {
        reader->failed = true;
        return;
    }
    memcpy(ret_text, text, n);
    ret_text[n] = '\0';
}

static int read_record(struct replica_pack_reader *reader, struct gossip_member_record *ret_record)
{
    struct gossip_member_record *record = ret_record;
    uint64_t state, roles;
    size_t n;
    replica_pack_read_array(reader, ITEMS_MAX, &n);
    replica_pack_read_id(reader, &record->store);
    replica_pack_read_uint(reader, MEMBER_NUMBER_MAX, &record->generation);
    replica_pack_read_uint(reader, MEMBER_NUMBER_MAX, &record->incarnation);
    replica_pack_read_uint(reader, GOSSIP_MEMBER_LEFT, &state);
    replica_pack_read_uint(reader, UINT32_MAX, &roles);
    replica_pack_read_uint(reader, UINT64_MAX, &record->capacity_free);
    read_text(reader, GOSSIP_NAME_MAX, record->name);
    read_text(reader, GOSSIP_ZONE_MAX, record->zone);
    read_text(reader, GOSSIP_ENDPOINT_MAX, record->endpoint);
    read_text(reader, sizeof record->version - 1, record->version);
    if (reader->failed || n < RECORD_ITEMS)
        return REPLICA_E_MALFORMED;
    record->state = (enum gossip_member_state)state;
    record->roles = (uint32_t)roles;
    for (size_t i = RECORD_ITEMS; i < n; i++)
        replica_pack_skip(reader);
    return reader->failed ? REPLICA_E_MALFORMED : check_record(record);
}

static int ignore(void *context, const struct gossip_member_record *record)
{
    (void)context;
    (void)record;
    return 0;
}

int member_each(const struct member_message_read *read,
                int (*visit)(void *context, const struct gossip_member_record *record), void *context)
{
    struct replica_pack_reader reader;
    replica_pack_reader_init(&reader, read->records, read->records_size);
    for (size_t i = 0; i < read->records_n; i++) {
        struct gossip_member_record record;
        int rv;
        memset(&record, 0, sizeof record);
        rv = read_record(&reader, &record);
        if (rv == 0)
            rv = visit(context, &record);
        if (rv != 0)
            return rv;
    }
    return 0;
}

int member_read(const struct gossip_message *message, struct member_message_read *ret_read)
{
    struct replica_pack_reader reader;
    struct member_message_read read = {.records_n = 0};
    size_t n;
    if (message->type < MEMBER_PING || message->type > MEMBER_PAGE)
        return REPLICA_E_MALFORMED;
    if (message->from->role != GOSSIP_ROLE_VOTER && message->from->role != GOSSIP_ROLE_CACHE)
        return REPLICA_E_DENIED;
    replica_pack_reader_init(&reader, message->payload, message->size);
    replica_pack_read_array(&reader, ITEMS_MAX, &n);
    if (read_record(&reader, &read.self) != 0)
        return REPLICA_E_MALFORMED;
    replica_pack_read_uint(&reader, UINT64_MAX, &read.number);
    replica_pack_read_id(&reader, &read.subject);
    replica_pack_read_bool(&reader, &read.flag);
    replica_pack_read_array(&reader, MEMBER_PAGE_MAX, &read.records_n);
    if (reader.failed || n < MESSAGE_ITEMS)
        return REPLICA_E_MALFORMED;
    /* Of itself a sender says only that it is here or that it goes, and only under its authenticated name. */
    if (!replica_id_equal(&read.self.store, &message->from->store) ||
        read.self.state == GOSSIP_MEMBER_SUSPECT || read.self.state == GOSSIP_MEMBER_DEAD)
        return REPLICA_E_MALFORMED;
    read.records = reader.data + reader.offset;
    read.records_size = reader.size - reader.offset;
    if (member_each(&read, ignore, NULL) != 0)
        return REPLICA_E_MALFORMED;
    *ret_read = read;
    return 0;
}

/* Sending */

/* The next news goes behind those that were told less often. */
static void rotate(struct gossip_member *member, struct member_entry *entry)
{
    if (member->oldest == entry)
        return;
    if (entry->newer != NULL)
        entry->newer->older = entry->older;
    else
        member->newest = entry->older;
    entry->older->newer = entry->newer;
    entry->newer = member->oldest;
    entry->older = NULL;
    member->oldest->older = entry;
    member->oldest = entry;
}

static size_t pack_news(struct gossip_member *member, const struct member_send *send,
                        struct replica_buffer *out)
{
    const struct member_entry *to = member_find(member, &send->to);
    struct member_entry *picked[MEMBER_NEWS_MAX];
    size_t picked_n = 0, n = 0;
    /* Whoever is thought to be gone is told first, so that it can say otherwise. */
    if (to != NULL && to != member->self && to->record.state != GOSSIP_MEMBER_ALIVE) {
        pack_record(out, &to->record);
        n++;
    }
    for (struct member_entry *entry = member->newest; entry != NULL && n + picked_n < MEMBER_NEWS_MAX;
         entry = entry->older)
        if (entry != to && entry != member->self) /* its own record heads every message anyway */
            picked[picked_n++] = entry;
    for (size_t i = 0; i < picked_n; i++) {
        pack_record(out, &picked[i]->record);
        picked[i]->left--;
        if (picked[i]->left == 0)
            member_unspread(member, picked[i]);
        else
            rotate(member, picked[i]);
    }
    return n + picked_n;
}

static size_t pack_page(const struct gossip_member *member, const struct replica_id *after, bool *last,
                        struct replica_buffer *out)
{
    size_t at = member_position(member, after), n = 0;
    if (at < member->n && replica_id_equal(&member->entries[at]->record.store, after))
        at++;
    for (; at < member->n && n < MEMBER_PAGE_MAX; at++, n++)
        pack_record(out, &member->entries[at]->record);
    *last = at == member->n;
    return n;
}

void member_send(struct gossip_member *member, const struct member_send *send, struct gossip_update *update)
{
    struct replica_buffer payload, records;
    bool flag = send->flag;
    size_t n;
    replica_buffer_init(&payload);
    replica_buffer_init(&records);
    n = send->type == MEMBER_PAGE ? pack_page(member, &send->subject, &flag, &records)
                                  : pack_news(member, send, &records);
    replica_pack_array(&payload, MESSAGE_ITEMS);
    pack_record(&payload, &member->self->record);
    replica_pack_uint(&payload, send->number);
    replica_pack_id(&payload, &send->subject);
    replica_pack_bool(&payload, flag);
    replica_pack_array(&payload, n);
    replica_buffer_append(&payload, records.data, records.size);
    if (records.failed)
        update->failed = true;
    if (replica_id_is_zero(&send->to))
        gossip_update_send_endpoint(update, send->endpoint, GOSSIP_ROOM_MEMBER, (uint8_t)send->type,
                                    &payload);
    else
        gossip_update_send(update, &send->to, GOSSIP_ROOM_MEMBER, (uint8_t)send->type, &payload, false);
    replica_buffer_close(&payload);
    replica_buffer_close(&records);
}
