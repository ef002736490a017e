#include "swarm_support.h"

#include "replica/merkle.h"
#include "swarm/swarm.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CHECK_ALL_MAX 200  /* fetches up to which every step is followed by a check of everything */
#define CHECK_EVERY   1000 /* steps, beyond */

enum packet_kind { PACKET_MESSAGE, PACKET_UPLOADED, PACKET_PIECE };

struct swarm_packet {
    uint64_t at_ms, sequence;
    enum packet_kind kind;
    size_t from, to;
    uint8_t type;
    struct replica_content_id content;
    struct replica_piece piece;
    uint64_t sent; /* bytes of the upload that is done */
    size_t size;
    uint8_t data[];
};

struct replica_id swarm_net_store(size_t node)
{
    struct replica_id id = {{0}};
    id.bytes[0] = (uint8_t)(node * 37 + 1); /* not in the order of the nodes */
    id.bytes[15] = (uint8_t)(node + 1);
    return id;
}

static size_t node_of(const struct swarm_net *net, const struct replica_id *store)
{
    for (size_t i = 0; i < net->n; i++) {
        struct replica_id id = swarm_net_store(i);
        if (replica_id_equal(&id, store))
            return i;
    }
    return SIZE_MAX;
}

/* The heap of what is under way: by time, then by order of sending. */

static bool is_before(const struct swarm_packet *a, const struct swarm_packet *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->sequence < b->sequence;
}

static void push(struct swarm_net *net, struct swarm_packet *packet)
{
    size_t at = net->heap_n++;
    if (net->heap_n > net->heap_capacity) {
        net->heap_capacity = net->heap_capacity == 0 ? 64 : net->heap_capacity * 2;
        net->heap = realloc(net->heap, net->heap_capacity * sizeof(struct swarm_packet *));
        assert(net->heap != NULL);
    }
    packet->sequence = net->sequence++;
    for (; at > 0 && is_before(packet, net->heap[(at - 1) / 2]); at = (at - 1) / 2)
        net->heap[at] = net->heap[(at - 1) / 2];
    net->heap[at] = packet;
}

static struct swarm_packet *pop(struct swarm_net *net)
{
    struct swarm_packet *first = net->heap[0], *last = net->heap[--net->heap_n];
    size_t at = 0;
    for (;;) {
        size_t child = at * 2 + 1;
        if (child >= net->heap_n)
            break;
        if (child + 1 < net->heap_n && is_before(net->heap[child + 1], net->heap[child]))
            child++;
        if (!is_before(net->heap[child], last))
            break;
        net->heap[at] = net->heap[child];
        at = child;
    }
    net->heap[at] = last;
    return first;
}

static struct swarm_packet *make_packet(enum packet_kind kind, size_t from, size_t to, uint64_t at_ms,
                                        const void *data, size_t size)
{
    struct swarm_packet *packet = calloc(1, sizeof *packet + size);
    assert(packet != NULL);
    packet->kind = kind;
    packet->from = from;
    packet->to = to;
    packet->at_ms = at_ms;
    packet->size = size;
    if (size > 0)
        memcpy(packet->data, data, size);
    return packet;
}

/* The directory */

struct context {
    struct swarm_net *net;
    size_t node;
};
static struct context contexts[SWARM_NODES_MAX];

static size_t holders(void *context, const struct replica_id *volume, struct replica_id *ret, size_t max)
{
    const struct context *c = context;
    size_t n = 0;
    (void)volume;
    for (size_t i = 0; i < c->net->voters_n && n < max; i++)
        if (c->net->voters[i] != c->node)
            ret[n++] = swarm_net_store(c->net->voters[i]);
    return n;
}

static bool may_read(void *context, const struct replica_id *volume, const struct gossip_principal *principal)
{
    const struct context *c = context;
    size_t node = node_of(c->net, &principal->store);
    return replica_id_equal(volume, &c->net->volume) && (node == SIZE_MAX || !c->net->nodes[node].stranger);
}

static bool belongs(void *context, const struct replica_id *volume, const struct replica_content_id *content)
{
    const struct context *c = context;
    (void)content;
    return replica_id_equal(volume, &c->net->volume) && !c->net->nodes[c->node].denies;
}

/* Making */

void swarm_net_restart(struct swarm_net *net, size_t node, const struct gossip_swarm_options *options)
{
    struct gossip_swarm_options defaults;
    struct replica_id self = swarm_net_store(node);
    struct gossip_swarm_directory directory = {
        .context = &contexts[node], .holders = holders, .may_read = may_read, .belongs = belongs};
    contexts[node] = (struct context){net, node};
    gossip_swarm_options_default(&defaults);
    gossip_swarm_destroy(&net->nodes[node].swarm);
    if (gossip_swarm_new(options != NULL ? options : &defaults, net->nodes[node].contents,
                         net->nodes[node].member, &directory, &self, node + 1, &net->nodes[node].swarm) != 0)
        abort();
    net->nodes[node].wake_ms = UINT64_MAX;
    net->nodes[node].uploading = 0;
}

struct swarm_net *swarm_net_new(size_t n, size_t voters_n, const struct gossip_swarm_options *options)
{
    struct swarm_net *net = calloc(1, sizeof *net);
    assert(net != NULL);
    net->n = n;
    net->now_ms = 1000;
    net->volume.bytes[3] = 77;
    net->voters_n = voters_n;
    gossip_random_init(&net->random, n, 98);
    for (size_t i = 0; i < n; i++) {
        struct swarm_net_node *node = &net->nodes[i];
        if (replica_contents_memory_new(&node->contents) != 0)
            abort();
        node->principal = (struct gossip_principal){
            .store = swarm_net_store(i), .role = GOSSIP_ROLE_VOTER, .every_volume = true};
        node->rate = 100 * 1024; /* 100 MB/s */
        gossip_update_init(&node->update);
        net->voters[i] = i;
        swarm_net_restart(net, i, options);
    }
    return net;
}

void swarm_net_destroy(struct swarm_net **net)
{
    for (size_t i = 0; i < (*net)->n; i++) {
        struct swarm_net_node *node = &(*net)->nodes[i];
        gossip_swarm_destroy(&node->swarm);
        gossip_member_destroy(&node->member);
        replica_contents_destroy(&node->contents);
        gossip_update_close(&node->update);
    }
    while ((*net)->heap_n > 0)
        free(pop(*net));
    free((*net)->heap);
    free(*net);
    *net = NULL;
}

static void fill(uint8_t *data, size_t n, uint64_t seed)
{
    struct gossip_random random;
    gossip_random_init(&random, seed, 99);
    for (size_t i = 0; i < n; i += 8) {
        uint64_t value = gossip_random_next(&random);
        memcpy(data + i, &value, n - i < 8 ? n - i : 8);
    }
}

struct replica_content_id swarm_net_put(struct swarm_net *net, size_t node, uint64_t seed, size_t size)
{
    uint8_t *data = malloc(size + 1);
    struct replica_content_id id;
    assert(data != NULL);
    fill(data, size, seed);
    if (replica_contents_ingest(net->nodes[node].contents, data, size, &id) != 0)
        abort();
    free(data);
    return id;
}

static void write_piece(struct replica_contents *contents, const struct replica_content_id *id,
                        enum replica_piece_kind kind, uint32_t index, const void *data, size_t n)
{
    if (replica_contents_write(contents, id, (struct replica_piece){kind, index}, data, n) != 0)
        abort();
}

struct replica_content_id swarm_net_put_sparse(struct swarm_net *net, size_t node, uint64_t length,
                                               const uint32_t *chunks, size_t n)
{
    struct replica_contents *contents = net->nodes[node].contents;
    uint32_t count = replica_merkle_chunks(length), pages = replica_merkle_pages(length);
    struct replica_hash *ids = calloc(count, sizeof *ids), *page_ids = calloc(pages, sizeof *page_ids);
    uint8_t *data = calloc(1, REPLICA_CHUNK_SIZE);
    struct replica_content_id id = {.length = length};
    assert(ids != NULL && page_ids != NULL && data != NULL);
    for (uint32_t i = 0; i < count; i++)
        replica_merkle_zero_chunk(replica_merkle_chunk_size(length, i), &ids[i]);
    for (size_t i = 0; i < n; i++) {
        fill(data, REPLICA_CHUNK_SIZE, chunks[i] + 1);
        replica_merkle_chunk(data, replica_merkle_chunk_size(length, chunks[i]), &ids[chunks[i]]);
    }
    for (uint32_t page = 0; page < pages; page++)
        replica_merkle_fold(ids + (size_t)page * REPLICA_PAGE_CHUNKS,
                            replica_merkle_page_chunks(length, page), &page_ids[page]);
    replica_merkle_fold(page_ids, pages, (struct replica_hash *)id.root);
    if (replica_contents_begin(contents, &id) != 0)
        abort();
    if (pages > 1)
        write_piece(contents, &id, REPLICA_PIECE_ROOT, 0, page_ids, pages * sizeof *page_ids);
    for (uint32_t page = 0; page < pages; page++)
        write_piece(contents, &id, REPLICA_PIECE_PAGE, page, ids + (size_t)page * REPLICA_PAGE_CHUNKS,
                    replica_merkle_page_chunks(length, page) * sizeof *ids);
    for (size_t i = 0; i < n; i++) {
        fill(data, REPLICA_CHUNK_SIZE, chunks[i] + 1);
        write_piece(contents, &id, REPLICA_PIECE_CHUNK, chunks[i], data,
                    replica_merkle_chunk_size(length, chunks[i]));
    }
    free(ids);
    free(page_ids);
    free(data);
    return id;
}

/* The shell's part */

static void send_pieces(struct swarm_net *net, size_t from)
{
    struct swarm_net_node *node = &net->nodes[from];
    struct replica_buffer data;
    replica_buffer_init(&data);
    for (size_t i = 0; i < node->update.uploads_n; i++) {
        const struct gossip_upload *upload = &node->update.uploads[i];
        struct swarm_packet *packet;
        size_t to = node_of(net, &upload->to);
        if (replica_contents_read_piece(node->contents, &upload->content, upload->piece, &data) != 0)
            abort();
        if (node->lies)
            data.data[0] ^= 1;
        if (node->busy_until_ms < net->now_ms)
            node->busy_until_ms = net->now_ms;
        node->busy_until_ms += data.size / node->rate;
        packet = make_packet(PACKET_UPLOADED, to, from, node->busy_until_ms, NULL, 0);
        packet->content = upload->content;
        packet->piece = upload->piece;
        packet->sent = data.size;
        if (++node->uploading > node->uploading_max)
            node->uploading_max = node->uploading;
        push(net, packet);
        node->uploaded += data.size;
        if (node->mute || node->dead)
            continue;
        packet =
            make_packet(PACKET_PIECE, from, to, node->busy_until_ms + SWARM_LATENCY_MS, data.data, data.size);
        packet->content = upload->content;
        packet->piece = upload->piece;
        push(net, packet);
    }
    replica_buffer_close(&data);
}

static void take_answers(struct swarm_net *net, struct swarm_net_node *node)
{
    for (size_t i = 0; i < node->update.answers_n; i++) {
        const struct gossip_answer *answer = &node->update.answers[i];
        if (!answer->final) {
            node->progress++;
            continue;
        }
        node->answers++;
        node->answered = answer->token;
        node->answered_ms = net->now_ms;
        node->code = answer->code;
    }
    for (size_t i = 0; i < node->update.notes_n; i++)
        node->haves += node->update.notes[i].kind == GOSSIP_NOTE_HAVE;
}

static void carry_out(struct swarm_net *net, size_t from)
{
    struct swarm_net_node *node = &net->nodes[from];
    for (size_t i = 0; i < node->update.sends_n; i++) {
        const struct gossip_send *send = &node->update.sends[i];
        size_t to = node_of(net, &send->to);
        struct swarm_packet *packet;
        assert(send->size <= GOSSIP_MESSAGE_SIZE_MAX);
        node->messages++;
        if (node->mute || node->dead || to == SIZE_MAX)
            continue;
        packet = make_packet(PACKET_MESSAGE, from, to, net->now_ms + SWARM_LATENCY_MS,
                             node->update.bytes.data + send->offset, send->size);
        packet->type = send->type;
        push(net, packet);
    }
    send_pieces(net, from);
    take_answers(net, node);
}

void swarm_net_step(struct swarm_net *net, size_t node, const struct gossip_swarm_event *event)
{
    struct swarm_net_node *self = &net->nodes[node];
    struct gossip_swarm_event e = *event;
    do {
        int rv;
        e.time = (struct gossip_time){.now_ms = net->now_ms, .wall_ms = net->now_ms};
        gossip_update_clear(&self->update);
        rv = gossip_swarm_step(self->swarm, &e, &self->update);
        assert(rv == 0 || rv == REPLICA_E_MALFORMED);
        if (++self->steps % CHECK_EVERY == 0 || self->swarm->fetches.n <= CHECK_ALL_MAX)
            swarm_check_invariants(self->swarm);
        carry_out(net, node);
        e = (struct gossip_swarm_event){.kind = GOSSIP_SWARM_EVENT_TIMER};
    } while (self->update.again && !net->holding);
    self->wake_ms = self->update.wake_ms;
}

static bool is_lost(struct swarm_net *net, const struct swarm_packet *packet)
{
    net->trace =
        swarm_mix(net->trace ^ net->now_ms << 20 ^ packet->from << 12 ^ packet->to << 4 ^ packet->kind) +
        packet->size;
    return packet->kind != PACKET_UPLOADED && net->loss_percent > 0 &&
           gossip_random_below(&net->random, 100) < net->loss_percent;
}

static void arrive(struct swarm_net *net, const struct swarm_packet *packet)
{
    struct swarm_net_node *node = &net->nodes[packet->to];
    struct gossip_swarm_event event = {
        .content = packet->content, .piece = packet->piece, .source = swarm_net_store(packet->from)};
    if (node->dead || is_lost(net, packet))
        return;
    switch (packet->kind) {
    case PACKET_MESSAGE:
        event.kind = GOSSIP_SWARM_EVENT_MESSAGE;
        event.message = (struct gossip_message){.from = &net->nodes[packet->from].principal,
                                                .type = packet->type,
                                                .payload = packet->data,
                                                .size = packet->size};
        break;
    case PACKET_UPLOADED:
        event.kind = GOSSIP_SWARM_EVENT_UPLOADED;
        event.bytes = packet->sent;
        if (node->uploading > 0) /* 0: of an earlier life */
            node->uploading--;
        break;
    case PACKET_PIECE:
        event.kind = GOSSIP_SWARM_EVENT_PIECE;
        event.bytes = packet->size;
        event.code = replica_contents_write(node->contents, &packet->content, packet->piece, packet->data,
                                            packet->size);
        break;
    }
    swarm_net_step(net, packet->to, &event);
}

int swarm_net_message(struct swarm_net *net, const struct gossip_principal *from, size_t to, uint8_t type,
                      const void *payload, size_t size)
{
    struct swarm_net_node *node = &net->nodes[to];
    struct gossip_swarm_event event = {
        .kind = GOSSIP_SWARM_EVENT_MESSAGE,
        .time = {.now_ms = net->now_ms},
        .message = {.from = from, .type = type, .payload = payload, .size = size}};
    gossip_update_clear(&node->update);
    return gossip_swarm_step(node->swarm, &event, &node->update);
}

void swarm_net_want(struct swarm_net *net, size_t node, const struct replica_content_id *content,
                    size_t source, uint64_t token)
{
    struct gossip_swarm_event event = {
        .kind = GOSSIP_SWARM_EVENT_WANT, .volume = net->volume, .content = *content, .token = token};
    if (source != SIZE_MAX)
        event.source = swarm_net_store(source);
    swarm_net_step(net, node, &event);
}

void swarm_net_want_all(struct swarm_net *net, size_t node, const struct replica_content_id *contents,
                        size_t n, size_t source)
{
    const struct gossip_swarm_event timer = {.kind = GOSSIP_SWARM_EVENT_TIMER};
    net->holding = true;
    for (size_t i = 0; i < n; i++)
        swarm_net_want(net, node, &contents[i], source, 0);
    net->holding = false;
    swarm_net_step(net, node, &timer);
}

void swarm_net_want_range(struct swarm_net *net, size_t node, const struct replica_content_id *content,
                          size_t source, uint32_t first, uint32_t count, uint64_t token)
{
    struct gossip_swarm_event event = {.kind = GOSSIP_SWARM_EVENT_WANT_RANGE,
                                       .volume = net->volume,
                                       .content = *content,
                                       .token = token,
                                       .first = first,
                                       .count = count};
    if (source != SIZE_MAX)
        event.source = swarm_net_store(source);
    swarm_net_step(net, node, &event);
}

void swarm_net_member_dead(struct swarm_net *net, size_t node, size_t dead)
{
    struct gossip_swarm_event event = {.kind = GOSSIP_SWARM_EVENT_MEMBER_DEAD,
                                       .source = swarm_net_store(dead)};
    swarm_net_step(net, node, &event);
}

/* Running */

/* The next thing that happens, if it does before until. */
static bool run_one(struct swarm_net *net, uint64_t until_ms)
{
    const struct gossip_swarm_event timer = {.kind = GOSSIP_SWARM_EVENT_TIMER};
    uint64_t at = net->heap_n > 0 ? net->heap[0]->at_ms : UINT64_MAX;
    size_t waking = SIZE_MAX;
    for (size_t i = 0; i < net->n; i++)
        if (!net->nodes[i].dead && net->nodes[i].wake_ms < at) {
            at = net->nodes[i].wake_ms;
            waking = i;
        }
    if (at > until_ms) {
        net->now_ms = until_ms;
        return false;
    }
    if (at > net->now_ms)
        net->now_ms = at;
    if (waking != SIZE_MAX) {
        swarm_net_step(net, waking, &timer);
    } else {
        struct swarm_packet *packet = pop(net);
        arrive(net, packet);
        free(packet);
    }
    return true;
}

void swarm_net_run(struct swarm_net *net, uint64_t ms)
{
    uint64_t until = net->now_ms + ms;
    while (run_one(net, until))
        ;
}

bool swarm_net_is_filled(const struct swarm_net *net, size_t node, const struct replica_content_id *content)
{
    return replica_contents_state(net->nodes[node].contents, content) >= REPLICA_CONTENTS_FILLED;
}

bool swarm_net_run_until_filled(struct swarm_net *net, size_t node, const struct replica_content_id *content,
                                uint64_t ms)
{
    uint64_t until = net->now_ms + ms;
    while (!swarm_net_is_filled(net, node, content))
        if (!run_one(net, until))
            return swarm_net_is_filled(net, node, content);
    return true;
}

bool swarm_net_run_until_answer(struct swarm_net *net, size_t node, uint64_t token, uint64_t ms)
{
    uint64_t until = net->now_ms + ms;
    while (net->nodes[node].answered != token)
        if (!run_one(net, until))
            return net->nodes[node].answered == token;
    return true;
}

uint32_t swarm_net_chunks(const struct swarm_net *net, size_t node, const struct replica_content_id *content)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < replica_merkle_chunks(content->length); i++)
        n += replica_contents_has(net->nodes[node].contents, content,
                                  (struct replica_piece){REPLICA_PIECE_CHUNK, i});
    return n;
}

struct gossip_swarm_status swarm_net_status(const struct swarm_net *net, size_t node)
{
    struct gossip_swarm_status status;
    gossip_swarm_status(net->nodes[node].swarm, &status);
    return status;
}
