/* Records of the registry and of its log: on disk, in snapshots and in messages alike. */
#include "control/control.h"

#include <string.h>

#define VOLUME_FIELDS   12
#define PROPOSAL_FIELDS 12
#define OUTCOME_FIELDS  4
#define FIELDS_MAX      32 /* that we step over in the records of a newer version */

bool control_name_valid(const char *name)
{
    size_t n = strnlen(name, GOSSIP_VOLUME_NAME_MAX + 1);
    return n >= 1 && n <= GOSSIP_VOLUME_NAME_MAX && strspn(name, GOSSIP_VOLUME_NAME_LETTERS) == n;
}

bool control_code_valid(int code)
{
    switch (code) {
    case 0:
    case REPLICA_E_EXISTS:
    case REPLICA_E_NOTFOUND:
    case REPLICA_E_REFUSED:
    case REPLICA_E_NOSPACE:
    case REPLICA_E_INDETERMINATE:
        return true;
    default:
        return false;
    }
}

void control_skip(struct replica_pack_reader *reader, size_t n, size_t known)
{
    for (size_t i = known; i < n && !reader->failed; i++)
        replica_pack_skip(reader);
}

/* An absent name is empty. */
static void read_name(struct replica_pack_reader *reader, char ret_name[GOSSIP_VOLUME_NAME_MAX + 1])
{
    const char *text;
    size_t n;
    memset(ret_name, 0, GOSSIP_VOLUME_NAME_MAX + 1);
    if (replica_pack_read_str(reader, GOSSIP_VOLUME_NAME_MAX, &text, &n) != 0 || n == 0)
        return;
    memcpy(ret_name, text, n);
    if (!control_name_valid(ret_name) || strlen(ret_name) != n)
        reader->failed = true;
}

static void read_voters(struct replica_pack_reader *reader, struct replica_id *ret_voters, size_t *ret_n)
{
    size_t n;
    replica_pack_read_array(reader, GOSSIP_VOTERS_MAX, &n);
    *ret_n = n;
    for (size_t i = 0; i < n; i++) {
        replica_pack_read_id(reader, &ret_voters[i]);
        if (replica_id_is_zero(&ret_voters[i]))
            reader->failed = true;
        for (size_t j = 0; j < i; j++)
            if (replica_id_equal(&ret_voters[i], &ret_voters[j]))
                reader->failed = true;
    }
}

static uint32_t read_u32(struct replica_pack_reader *reader, uint32_t max)
{
    uint64_t value;
    replica_pack_read_uint(reader, max, &value);
    return (uint32_t)value;
}

static void pack_voters(struct replica_buffer *out, const struct replica_id *voters, size_t n)
{
    replica_pack_array(out, n);
    for (size_t i = 0; i < n; i++)
        replica_pack_id(out, &voters[i]);
}

void control_volume_pack(struct replica_buffer *out, const struct gossip_volume *volume)
{
    replica_pack_array(out, VOLUME_FIELDS);
    replica_pack_id(out, &volume->id);
    replica_pack_cstr(out, volume->name);
    replica_pack_uint(out, volume->version);
    replica_pack_uint(out, volume->created_ms);
    replica_pack_id(out, &volume->creator);
    replica_pack_bool(out, volume->deleted);
    replica_pack_uint(out, volume->deleted_ms);
    replica_pack_uint(out, volume->voters_wanted);
    replica_pack_uint(out, volume->index);
    replica_pack_uint(out, volume->configuration.epoch);
    replica_pack_uint(out, volume->configuration.phase);
    pack_voters(out, volume->configuration.voters, volume->configuration.voters_n);
}

int control_volume_read(struct replica_pack_reader *reader, struct gossip_volume *ret_volume)
{
    struct gossip_volume volume = {.version = 0};
    size_t n;
    replica_pack_read_array(reader, FIELDS_MAX, &n);
    replica_pack_read_id(reader, &volume.id);
    read_name(reader, volume.name);
    volume.version = read_u32(reader, 2);
    replica_pack_read_uint(reader, UINT64_MAX, &volume.created_ms);
    replica_pack_read_id(reader, &volume.creator);
    replica_pack_read_bool(reader, &volume.deleted);
    replica_pack_read_uint(reader, UINT64_MAX, &volume.deleted_ms);
    volume.voters_wanted = read_u32(reader, GOSSIP_VOTERS_MAX);
    replica_pack_read_uint(reader, CONTROL_NUMBER_MAX, &volume.index);
    replica_pack_read_uint(reader, CONTROL_NUMBER_MAX, &volume.configuration.epoch);
    volume.configuration.phase = (enum gossip_phase)read_u32(reader, GOSSIP_PHASE_FINAL);
    read_voters(reader, volume.configuration.voters, &volume.configuration.voters_n);
    if (reader->failed || n < VOLUME_FIELDS || replica_id_is_zero(&volume.id) || volume.name[0] == '\0' ||
        volume.version == 0 || volume.index == 0 || volume.configuration.epoch == 0 ||
        volume.configuration.phase < GOSSIP_PHASE_LEARNING || volume.configuration.voters_n == 0)
        return REPLICA_E_MALFORMED;
    control_skip(reader, n, VOLUME_FIELDS);
    *ret_volume = volume;
    return reader->failed ? REPLICA_E_MALFORMED : 0;
}

void control_proposal_pack(struct replica_buffer *out, const struct control_proposal *proposal)
{
    replica_pack_array(out, PROPOSAL_FIELDS);
    replica_pack_uint(out, proposal->kind);
    replica_pack_id(out, &proposal->id);
    replica_pack_uint(out, proposal->base);
    replica_pack_cstr(out, proposal->name);
    replica_pack_cstr(out, proposal->new_name);
    replica_pack_uint(out, proposal->version);
    replica_pack_bool(out, proposal->if_missing);
    replica_pack_uint(out, proposal->voters_wanted);
    replica_pack_id(out, &proposal->creator);
    replica_pack_uint(out, proposal->time_ms);
    replica_pack_id(out, &proposal->volume);
    pack_voters(out, proposal->voters, proposal->voters_n);
}

/* Whether a proposal names what its kind needs. */
static bool proposal_complete(const struct control_proposal *proposal)
{
    switch (proposal->kind) {
    case CONTROL_CREATE:
        return proposal->name[0] != '\0' && proposal->voters_wanted % 2 == 1;
    case CONTROL_RENAME:
        return proposal->name[0] != '\0' && proposal->new_name[0] != '\0';
    case CONTROL_DELETE:
    case CONTROL_UNDELETE:
    case CONTROL_LOOKUP:
        return proposal->name[0] != '\0';
    case CONTROL_NOOP:
    case CONTROL_EXPIRE:
    case CONTROL_KINDS:
        break;
    }
    return true;
}

int control_proposal_decode(const uint8_t *data, size_t n, struct control_proposal *ret_proposal)
{
    struct control_proposal proposal = {.kind = CONTROL_NOOP};
    struct replica_pack_reader reader;
    size_t fields;
    if (n > CONTROL_ENTRY_MAX)
        return REPLICA_E_MALFORMED;
    replica_pack_reader_init(&reader, data, n);
    replica_pack_read_array(&reader, FIELDS_MAX, &fields);
    proposal.kind = (enum control_kind)read_u32(&reader, CONTROL_KINDS - 1);
    replica_pack_read_id(&reader, &proposal.id);
    replica_pack_read_uint(&reader, CONTROL_NUMBER_MAX, &proposal.base);
    read_name(&reader, proposal.name);
    read_name(&reader, proposal.new_name);
    proposal.version = read_u32(&reader, 2);
    replica_pack_read_bool(&reader, &proposal.if_missing);
    proposal.voters_wanted = read_u32(&reader, GOSSIP_VOTERS_MAX);
    replica_pack_read_id(&reader, &proposal.creator);
    replica_pack_read_uint(&reader, UINT64_MAX, &proposal.time_ms);
    replica_pack_read_id(&reader, &proposal.volume);
    read_voters(&reader, proposal.voters, &proposal.voters_n);
    if (reader.failed || fields < PROPOSAL_FIELDS || replica_id_is_zero(&proposal.id) ||
        !proposal_complete(&proposal))
        return REPLICA_E_MALFORMED;
    control_skip(&reader, fields, PROPOSAL_FIELDS);
    if (replica_pack_reader_finish(&reader) != 0)
        return REPLICA_E_MALFORMED;
    *ret_proposal = proposal;
    return 0;
}

void control_outcome_pack(struct replica_buffer *out, const struct control_outcome *outcome)
{
    replica_pack_array(out, OUTCOME_FIELDS);
    replica_pack_id(out, &outcome->id);
    replica_pack_uint(out, outcome->index);
    replica_pack_int(out, outcome->code);
    replica_pack_id(out, &outcome->volume);
}

int control_outcome_read(struct replica_pack_reader *reader, struct control_outcome *ret_outcome)
{
    struct control_outcome outcome = {.code = 0};
    int64_t code;
    size_t n;
    replica_pack_read_array(reader, FIELDS_MAX, &n);
    replica_pack_read_id(reader, &outcome.id);
    replica_pack_read_uint(reader, CONTROL_NUMBER_MAX, &outcome.index);
    replica_pack_read_int(reader, &code);
    replica_pack_read_id(reader, &outcome.volume);
    if (reader->failed || n < OUTCOME_FIELDS || code < INT32_MIN || code > 0)
        return REPLICA_E_MALFORMED;
    outcome.code = (int)code;
    control_skip(reader, n, OUTCOME_FIELDS);
    *ret_outcome = outcome;
    return reader->failed ? REPLICA_E_MALFORMED : 0;
}
