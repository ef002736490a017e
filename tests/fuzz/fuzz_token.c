/* The text of a token, as a user types it: what is understood is written the same way again. */
#include "gossip/quorum.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char again[GOSSIP_TOKEN_TEXT_MAX], *text = malloc(n + 1);
    struct gossip_token first, second;
    if (text == NULL)
        abort();
    if (n > 0)
        memcpy(text, data, n);
    text[n] = '\0';
    if (gossip_token_parse(text, &first) == 0) {
        gossip_token_format(&first, again);
        assert(gossip_token_parse(again, &second) == 0);
        assert(first.epoch == second.epoch && first.dot.seq == second.dot.seq &&
               first.dot.actor.epoch == second.dot.actor.epoch);
        assert(replica_id_equal(&first.volume, &second.volume) &&
               replica_id_equal(&first.dot.actor.store, &second.dot.actor.store));
    }
    free(text);
    return 0;
}
