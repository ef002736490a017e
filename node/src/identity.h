/* Who a store is: its id is the hash of its CURVE public key. So nobody can speak under the id of another's store,
 * whatever his credential allows: that a message comes from a volume's voter, or from a member of the control log, is
 * as sure as the key of its connection. Any thread. */
#ifndef NODE_IDENTITY_H
#define NODE_IDENTITY_H

#include "replica/ids.h"

#define NODE_IDENTITY_KEY_SIZE 32 /* of a CURVE public key */

struct replica_id node_identity_of(const uint8_t curve_public[NODE_IDENTITY_KEY_SIZE]);

#endif
