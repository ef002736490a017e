/* Records of the control log and the registry: what is read packs to what is read again. */
#include "control/control.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void volume(const uint8_t *data, size_t n)
{
    struct gossip_volume first, second;
    struct replica_pack_reader reader;
    struct replica_buffer out;
    replica_pack_reader_init(&reader, data, n);
    if (control_volume_read(&reader, &first) != 0)
        return;
    assert(first.configuration.voters_n <= GOSSIP_VOTERS_MAX && control_name_valid(first.name));
    replica_buffer_init(&out);
    control_volume_pack(&out, &first);
    replica_pack_reader_init(&reader, out.data, out.size);
    assert(control_volume_read(&reader, &second) == 0 && replica_pack_reader_finish(&reader) == 0);
    assert(strcmp(first.name, second.name) == 0 && first.configuration.epoch == second.configuration.epoch);
    replica_buffer_close(&out);
}

static void proposal(const uint8_t *data, size_t n)
{
    struct control_proposal first, second;
    struct replica_buffer out;
    if (control_proposal_decode(data, n, &first) != 0)
        return;
    replica_buffer_init(&out);
    control_proposal_pack(&out, &first);
    assert(control_proposal_decode(out.data, out.size, &second) == 0);
    assert(first.kind == second.kind && strcmp(first.name, second.name) == 0 &&
           first.voters_n == second.voters_n && first.time_ms == second.time_ms);
    replica_buffer_close(&out);
}

static void outcome(const uint8_t *data, size_t n)
{
    struct control_outcome first, second;
    struct replica_pack_reader reader;
    struct replica_buffer out;
    replica_pack_reader_init(&reader, data, n);
    if (control_outcome_read(&reader, &first) != 0)
        return;
    assert(first.code <= 0); /* whether it means anything is the receiver's question */
    replica_buffer_init(&out);
    control_outcome_pack(&out, &first);
    replica_pack_reader_init(&reader, out.data, out.size);
    assert(control_outcome_read(&reader, &second) == 0 && replica_pack_reader_finish(&reader) == 0);
    assert(first.code == second.code && first.index == second.index);
    replica_buffer_close(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    switch (data[0] % 3) {
    case 0:
        volume(data + 1, n - 1);
        break;
    case 1:
        proposal(data + 1, n - 1);
        break;
    default:
        outcome(data + 1, n - 1);
    }
    return 0;
}
