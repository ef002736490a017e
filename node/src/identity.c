#include "identity.h"

#include <sodium.h>
#include <string.h>

#define PURPOSE "remora store 1" /* hashed with its NUL, before the key */

struct replica_id node_identity_of(const uint8_t curve_public[NODE_IDENTITY_KEY_SIZE])
{
    uint8_t bytes[sizeof PURPOSE + NODE_IDENTITY_KEY_SIZE];
    struct replica_id id;
    memcpy(bytes, PURPOSE, sizeof PURPOSE);
    memcpy(bytes + sizeof PURPOSE, curve_public, NODE_IDENTITY_KEY_SIZE);
    crypto_generichash(id.bytes, sizeof id.bytes, bytes, sizeof bytes, NULL, 0);
    return id;
}
