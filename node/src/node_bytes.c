/* Bytes go round the core, not through it: pieces in and out on the data channel, drafts that become
 * contents, syncs of the map. All of it on workers; the core hears the outcome.
 *
 * A data frame is the content id (40), the piece's kind u8 and index u32 big-endian, and the bytes;
 * docs/protocol.md. */
#include "node_internal.h"

#include "replica/contents_files.h"
#include "replica/entry.h"
#include "replica/error.h"
#include "replica/merkle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATA_HEADER_SIZE (REPLICA_CONTENT_ID_SIZE + 1 + 4)
/* Half as much again as the credit that the swarm grants; who sends more is not answered. */
#define ARRIVING_BYTES_MAX ((size_t)96 << 20)
#define UPLOADS_MAX        64 /* pieces read ahead for peers: six times the swarm's slots */
_Static_assert(DATA_HEADER_SIZE + REPLICA_CHUNK_SIZE <= NODE_DATA_MESSAGE_MAX,
               "a chunk and its header fit in one message");

/* Arrivals */

struct arrival {
    struct node_job job;
    struct node *node;
    struct replica_id source;
    struct replica_content_id content;
    struct replica_piece piece;
    int code;
    size_t size;
    uint8_t bytes[];
};

static void write_arrival(struct node_job *job)
{
    struct arrival *arrival = (struct arrival *)job;
    arrival->code = replica_contents_write(arrival->node->store->contents, &arrival->content, arrival->piece,
                                           arrival->bytes, arrival->size);
}

static void arrived(struct node_job *job)
{
    struct arrival *arrival = (struct arrival *)job;
    struct node *node = arrival->node;
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_PIECE,
                                      .source = arrival->source,
                                      .content = arrival->content,
                                      .piece = arrival->piece,
                                      .bytes = arrival->size,
                                      .code = arrival->code};
    if (arrival->code == 0)
        node->contents_dirty = true;
    atomic_fetch_sub(&node->arriving_bytes, arrival->size);
    node_step(node, &event);
    free(arrival);
}

/* From the transport's thread, as bytes that anybody may have made up. */
void node_arrive(struct node *node, const struct gossip_principal *from, const uint8_t *bytes, size_t n)
{
    struct arrival *arrival;
    size_t size = n - DATA_HEADER_SIZE;
    if (n < DATA_HEADER_SIZE || n > NODE_DATA_MESSAGE_MAX ||
        bytes[REPLICA_CONTENT_ID_SIZE] > REPLICA_PIECE_CHUNK)
        return;
    if (atomic_fetch_add(&node->arriving_bytes, size) + size > ARRIVING_BYTES_MAX ||
        (arrival = malloc(sizeof *arrival + size)) == NULL) {
        atomic_fetch_sub(&node->arriving_bytes, size);
        atomic_fetch_add(&node->arrivals_dropped, 1);
        return;
    }
    memset(arrival, 0, sizeof *arrival);
    arrival->job = (struct node_job){.run = write_arrival, .done = arrived};
    arrival->node = node;
    arrival->source = from->store;
    replica_content_id_decode(bytes, &arrival->content);
    bytes += REPLICA_CONTENT_ID_SIZE;
    arrival->piece.kind = (enum replica_piece_kind)bytes[0];
    arrival->piece.index =
        (uint32_t)bytes[1] << 24 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 8 | bytes[4];
    arrival->size = size;
    memcpy(arrival->bytes, bytes + 5, size);
    node_workers_submit(node->movers, &arrival->job);
}

/* Uploads */

struct upload {
    struct node_job job;
    struct node *node;
    struct gossip_upload order;
    uint8_t *frame; /* read, not sent yet */
    uint64_t size;
    int code;
};

static void frame_header(const struct upload *upload, uint8_t *frame)
{
    replica_content_id_encode(&upload->order.content, frame);
    frame += REPLICA_CONTENT_ID_SIZE;
    frame[0] = (uint8_t)upload->order.piece.kind;
    for (int i = 0; i < 4; i++)
        frame[1 + i] = (uint8_t)(upload->order.piece.index >> (24 - 8 * i));
}

static void read_upload(struct node_job *job)
{
    struct upload *upload = (struct upload *)job;
    struct replica_buffer bytes;
    replica_buffer_init(&bytes);
    upload->code = replica_contents_read_piece(upload->node->store->contents, &upload->order.content,
                                               upload->order.piece, &bytes);
    if (upload->code == 0) {
        upload->size = bytes.size;
        upload->frame = malloc(DATA_HEADER_SIZE + bytes.size);
        if (upload->frame == NULL)
            upload->code = REPLICA_E_NOMEM;
    }
    if (upload->code == 0) {
        frame_header(upload, upload->frame);
        if (bytes.size > 0)
            memcpy(upload->frame + DATA_HEADER_SIZE, bytes.data, bytes.size);
    }
    replica_buffer_close(&bytes);
}

/* On the loop, so that the transport may end before the workers do. */
static int hand_over(struct upload *upload)
{
    struct node *node = upload->node;
    const char *endpoint = node_endpoint_of(node, &upload->order.to);
    uint8_t *frame = upload->frame;
    if (endpoint == NULL)
        return REPLICA_E_NOTFOUND;
    upload->frame = NULL;
    return node_transport_send(node->transport, NODE_CHANNEL_DATA, &upload->order.to, endpoint, frame,
                               DATA_HEADER_SIZE + (size_t)upload->size);
}

static void uploaded(struct node_job *job)
{
    struct upload *upload = (struct upload *)job;
    struct node *node = upload->node;
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_UPLOADED,
                                      .source = upload->order.to,
                                      .content = upload->order.content,
                                      .piece = upload->order.piece,
                                      .bytes = upload->size};
    if (upload->code == 0 && !node->ending)
        upload->code = hand_over(upload);
    event.code = upload->code;
    if (upload->code == REPLICA_E_IO) /* what is damaged is said by whom it is set aside */
        node_log(NODE_LOG_ERROR, "read_failed",
                 "length=%llu error=%s text=\"a content in %s/contents cannot be read\"",
                 (unsigned long long)upload->order.content.length, replica_error_symbol(upload->code),
                 node->config->data);
    node->uploading--;
    node_step(node, &event);
    free(upload->frame);
    free(upload);
}

static void refuse_upload(void *context)
{
    struct upload *upload = context;
    uploaded(&upload->job);
}

void node_upload(struct node *node, const struct gossip_upload *order)
{
    struct upload *upload = calloc(1, sizeof *upload);
    if (upload ==
        NULL) { /* its slot, and its receiver's patience, hang on a word that there is no room to say */
        node_stop_fatally(node, REPLICA_E_NOMEM);
        return;
    }
    *upload = (struct upload){.job = {.run = read_upload, .done = uploaded}, .node = node, .order = *order};
    if (node->uploading++ < UPLOADS_MAX) {
        node_workers_submit(node->movers, &upload->job);
        return;
    }
    upload->code = REPLICA_E_BUSY;
    upload->job.post = (struct node_post){.call = refuse_upload, .context = upload};
    node_loop_post(node->loop, &upload->job.post);
}

/* Settles */

struct settle {
    struct node_job job;
    struct node *node;
    struct gossip_settle order;
    struct settle *next, *previous; /* of the node: those under way */
    _Atomic uint64_t read;          /* bytes so far */
    struct replica_blob blob;
    uint64_t size;
    uint8_t bytes[REPLICA_INLINE_MAX];
    int code;
};

/* 1 if the draft was small enough, 0 if not, or a code. */
static int read_inline(struct settle *settle)
{
    struct stat status;
    ssize_t got = 0;
    int fd, rv = replica_contents_files_draft_open(settle->node->store->contents, settle->order.draft, &fd);
    if (rv != 0)
        return rv;
    if (fstat(fd, &status) != 0)
        rv = REPLICA_E_IO;
    else {
        settle->size = (uint64_t)status.st_size;
        rv = settle->size <= REPLICA_INLINE_MAX ? 1 : 0;
    }
    for (size_t done = 0; rv == 1 && done < settle->size; done += (size_t)got) {
        got = pread(fd, settle->bytes + done, settle->size - done, (off_t)done);
        if (got <= 0)
            rv = REPLICA_E_IO;
    }
    close(fd);
    return rv;
}

static int count_read(void *context, uint64_t bytes)
{
    struct settle *settle = context;
    atomic_store(&settle->read, bytes);
    return 0;
}

static void run_settle(struct node_job *job)
{
    struct settle *settle = (struct settle *)job;
    int rv = read_inline(settle);
    if (rv == 1)
        settle->blob = (struct replica_blob){
            .kind = REPLICA_BLOB_INLINE, .data = settle->bytes, .size = (size_t)settle->size};
    else if (rv == 0) {
        settle->blob.kind = REPLICA_BLOB_CONTENT;
        rv = replica_contents_files_draft_adopt(settle->node->store->contents, settle->order.draft,
                                                count_read, settle, &settle->blob.content);
        settle->size = settle->blob.content.length;
    }
    settle->code = rv < 0 ? rv : 0;
}

/* The draft's file stays until the record that replaces it is durable. */
static void forget_later(struct node *node, uint64_t draft)
{
    struct node_settled_draft *settled = malloc(sizeof *settled);
    if (settled == NULL)
        return; /* the file stays; nothing names it */
    *settled = (struct node_settled_draft){.batch = node->batch, .draft = draft};
    *node->settled_last = settled;
    node->settled_last = &settled->next;
}

static void settled(struct node_job *job)
{
    struct settle *settle = (struct settle *)job;
    struct node *node = settle->node;
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_SETTLED,
                                      .view = settle->order.view,
                                      .draft = settle->order.draft,
                                      .blob = settle->blob,
                                      .size = settle->size,
                                      .code = settle->code};
    if (settle->code == 0)
        node->contents_dirty = true;
    node_step(node, &event);
    /* A step that wrote nothing did not take it: the commit or the view has gone meanwhile, and a draft may
     * still be named. */
    if (settle->code == 0 && node->fatal == 0 && node->failed == 0 && !node->ending &&
        node->update.log.count > 0)
        forget_later(node, settle->order.draft);
    if (settle->previous != NULL)
        settle->previous->next = settle->next;
    else
        node->settling = settle->next;
    if (settle->next != NULL)
        settle->next->previous = settle->previous;
    free(settle);
}

void node_settle(struct node *node, const struct gossip_settle *order)
{
    struct settle *settle = calloc(1, sizeof *settle);
    if (settle == NULL) { /* its commit would wait for ever */
        node_stop_fatally(node, REPLICA_E_NOMEM);
        return;
    }
    *settle = (struct settle){
        .job = {.run = run_settle, .done = settled}, .node = node, .order = *order, .next = node->settling};
    if (node->settling != NULL)
        node->settling->previous = settle;
    node->settling = settle;
    node_workers_submit(node->workers, &settle->job);
}

uint64_t node_settled_bytes(const struct node *node, const struct replica_id *view)
{
    uint64_t bytes = 0;
    for (const struct settle *settle = node->settling; settle != NULL; settle = settle->next)
        if (replica_id_equal(&settle->order.view, view))
            bytes += atomic_load(&settle->read);
    return bytes;
}

void node_forget_settled(struct node *node)
{
    while (node->settled != NULL && node->settled->batch <= node->synced) {
        struct node_settled_draft *gone = node->settled;
        node->settled = gone->next;
        if (node->settled == NULL)
            node->settled_last = &node->settled;
        replica_contents_files_draft_remove(node->store->contents, gone->draft);
        free(gone);
    }
}

/* Syncs of the map */

struct map_sync {
    struct node_job job;
    struct node *node;
    int code;
};

static void run_map_sync(struct node_job *job)
{
    struct map_sync *sync = (struct map_sync *)job;
    sync->code = replica_kv_sync(sync->node->store->map);
}

static void map_synced(struct node_job *job)
{
    struct map_sync *sync = (struct map_sync *)job;
    struct node *node = sync->node;
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_MAP_SYNCED};
    int code = sync->code;
    free(sync);
    node->map_syncing = false;
    if (node->ending)
        return;
    if (code != 0) {
        node_fail(node, "map_sync", code);
        return;
    }
    if (node->map_sync_again) { /* asked for again meanwhile: only the later one covers both */
        node_map_sync(node);
        return;
    }
    node_step(node, &event);
}

void node_map_sync(struct node *node)
{
    struct map_sync *sync;
    node->map_sync_again = node->map_syncing;
    if (node->map_syncing || node->failed != 0)
        return;
    sync = malloc(sizeof *sync);
    if (sync == NULL)
        return; /* the checkpoint waits; the log keeps what it needs */
    *sync = (struct map_sync){.job = {.run = run_map_sync, .done = map_synced}, .node = node};
    node->map_syncing = true;
    node_workers_submit(node->workers, &sync->job);
}
