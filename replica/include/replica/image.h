/* image: a volume's whole state at one applied vector, cut into parts, for a replica that is too far behind
 * for the log.
 *
 * The giver reads parts from its versioned map as of one apply_seq, statelessly: any part can be asked for
 * again, also after a restart. The taker is an empty replica; it writes the parts into its map at apply_seq
 * 1, and adopts the whole once the map is durable: only then does it show anything. What an image carries is
 * the winners, tombstones included, and the known commit ids; history stays behind. A mark in the log says
 * that an image has begun; while it stands nothing but parts may be written to the map, because what they left
 * there would be shown with it. A taker that crashed or gave up on the way clears the map first, whatever it
 * does next.
 *
 * Encoding: docs/protocol.md, "Images". Pure. */
#ifndef REPLICA_IMAGE_H
#define REPLICA_IMAGE_H

#include "replica/volume.h"

/* Of one part: keeps the step that gives or takes it near a millisecond or two. */
#define REPLICA_IMAGE_PART_ITEMS 400
/* Bytes after which a part ends; one record more still fits in a message. */
#define REPLICA_IMAGE_PART_SIZE    (192 * 1024)
#define REPLICA_IMAGE_POSITION_MAX (REPLICA_PATH_MAX + 64)

/* What the taker adopts in the end, as the giver's counters stood at apply_seq. */
struct replica_image {
    uint64_t apply_seq; /* the giver's */
    struct replica_vector applied;
    struct replica_totals totals;
    uint64_t hlc_high;
    uint64_t last_commit_ms;
};
void replica_image_describe(const struct replica_volume *volume, struct replica_image *ret_image);
void replica_image_pack(struct replica_buffer *out, const struct replica_image *image);
int replica_image_read(struct replica_pack_reader *reader,
                       struct replica_image *ret_image); /* Errors: MALFORMED */

/* Appends one part to out as one item: array [position of the next part (bin; empty: this was the last),
 * items]. position: from the part before, n 0 for the first; untrusted. *reads grows. Errors: MALFORMED (a
 * position that cannot be), CORRUPT, IO. */
int replica_image_part(const struct replica_volume *volume, uint64_t apply_seq, const uint8_t *position,
                       size_t n, struct replica_buffer *out, size_t *reads);

/* Taking. The volume must be empty (nothing stored, ordered or applied). */
bool replica_image_is_wanted(const struct replica_volume *volume);
/* Before the first part, which may be written once this is durable. */
void replica_image_begin(struct replica_volume *volume, struct replica_kv_batch *log);
/* One has begun, and was neither adopted nor dropped. */
bool replica_image_is_unfinished(const struct replica_volume *volume);
/* Removes what an unfinished image left in the map, a bounded number of records per call: AGAIN until 0. */
int replica_image_clear(struct replica_volume *volume, size_t *reads, struct replica_kv_batch *map);
/* The cleared map is durable: as if no image had begun. */
void replica_image_drop(struct replica_volume *volume, struct replica_kv_batch *log);
/* What the parts taken so far add up to; zero at first. */
struct replica_image_progress {
    struct replica_totals totals;
    struct replica_map_run run;
    uint8_t last[REPLICA_IMAGE_POSITION_MAX]; /* target-key: items come in their order, none twice */
    size_t last_n;
};
/* Writes one part (borrowed, untrusted). *ret_next:
 * where the next part begins, in part; *ret_n 0: it was the last. Errors: MALFORMED, IO, NOMEM. */
int replica_image_take(struct replica_volume *volume, const uint8_t *part, size_t n,
                       struct replica_kv_batch *log, struct replica_kv_batch *map,
                       struct replica_image_progress *progress, size_t *reads, const uint8_t **ret_next,
                       size_t *ret_n);
/* All parts are durable in the map: the volume stands at image->applied from now on, and its log begins
 * there. Errors: MISMATCH (totals are not what the image promised: a part was lost or wrong), TOOBIG. */
int replica_image_adopt(struct replica_volume *volume, const struct replica_image *image,
                        const struct replica_image_progress *progress, struct replica_kv_batch *log);

#endif
