/* Images between nodes: a newcomer that is far behind gets the volume's state instead of its whole log
 * (replica/image.h). Part of the room sync, which routes its messages here.
 *
 *   IMAGE_OFFER  volume, image            a voter's answer to a pull that its log would serve slowly or not at all
 *   IMAGE_PULL   volume, apply_seq, position
 *   IMAGE_PART   volume, apply_seq, position asked for, part
 *
 * Taken part by part, one outstanding; an unanswered one is asked for again, then the image is given up and
 * the pull begins anew elsewhere. While an image is on its way the volume takes no deltas. */
#ifndef GOSSIP_SRC_IMAGE_H
#define GOSSIP_SRC_IMAGE_H

#include "replica/image.h"
#include "sync/sync.h"

#define IMAGE_DELTAS_MIN 200 /* deltas that a newcomer lacks before an image is quicker than the log */
#define IMAGE_TRIES_MAX  5   /* for one part before the giver is given up */

enum { MESSAGE_IMAGE_OFFER = 5, MESSAGE_IMAGE_PULL = 6, MESSAGE_IMAGE_PART = 7 };

/* Whether a pull by a replica that has `have` is better answered by an offer. */
bool image_should_offer(const struct attached *attached, const struct replica_vector *have);
void image_offer(const struct attached *attached, const struct replica_id *to, struct gossip_update *update);

/* reader: at the message's items after the volume, of which there are n. */
int image_receive_offer(struct gossip_sync *sync, struct attached *attached,
                        const struct gossip_sync_event *event, struct replica_pack_reader *reader,
                        struct gossip_update *update);
int image_serve(struct attached *attached, const struct gossip_sync_event *event,
                struct replica_pack_reader *reader, struct gossip_update *update);
int image_receive_part(struct gossip_sync *sync, struct attached *attached,
                       const struct gossip_sync_event *event, struct replica_pack_reader *reader,
                       struct gossip_update *update);

/* Whether the volume waits for an image: no pulls, no deltas meanwhile. */
bool image_is_coming(const struct attached *attached);
/* Clears, asks again, gives up. */
int image_tick(struct gossip_sync *sync, struct attached *attached, const struct gossip_sync_event *event,
               struct gossip_update *update);
/* The map is durable: an image whose parts are all here is adopted. */
int image_map_synced(struct attached *attached, struct gossip_update *update);

#endif
