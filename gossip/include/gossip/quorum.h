/* quorum: commit and reload. design.md §3 and §5 are the specification; docs/protocol.md has the messages. */
#ifndef GOSSIP_QUORUM_H
#define GOSSIP_QUORUM_H

#include "gossip/control.h"
#include "replica/view.h"
#include "replica/volume.h"

/* What a commit returns and a reload can wait for. As text: 32 hex "." epoch "." 32 hex "." epoch "." seq. */
struct gossip_token {
    struct replica_id volume;
    uint64_t epoch;         /* of the configuration */
    struct replica_dot dot; /* seq 0: nothing was to be committed */
};
#define GOSSIP_TOKEN_TEXT_MAX 160
void gossip_token_format(const struct gossip_token *token, char ret_text[GOSSIP_TOKEN_TEXT_MAX]);
int gossip_token_parse(const char *text, struct gossip_token *ret_token);

enum gossip_reload_mode { GOSSIP_RELOAD_QUORUM, GOSSIP_RELOAD_AT_LEAST, GOSSIP_RELOAD_LOCAL };

struct gossip_quorum_options {
    uint32_t
        retry_ms; /* before an unanswered request is repeated, elsewhere if need be; 500, growing to 4000 */
    uint32_t deadline_ms; /* without progress: UNAVAILABLE or INDETERMINATE; 30000 */
};
void gossip_quorum_options_default(struct gossip_quorum_options *options);

/* Answer of a COMMIT: array [token text, commit id, ops, bytes, lost paths array]; nothing dirty: ops = 0. On failure: a code, and the
 * reason as [text]. Codes: UNAVAILABLE, NOSPACE, REFUSED, DELETED, DENIED, BUSY (nothing happened, drafts kept); INDETERMINATE.
 * Answer of a RELOAD: array [apply_seq before, apply_seq after, token text of the configuration and mode]. Codes: UNAVAILABLE (the old
 * snapshot stays), DELETED. Both: progress answers while it goes on. */

#endif
