#include "gossip/quorum.h"
#include "replica/error.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gossip_token_format(const struct gossip_token *token, char ret_text[GOSSIP_TOKEN_TEXT_MAX])
{
    char volume[33], store[33];
    replica_id_format(&token->volume, volume);
    replica_id_format(&token->dot.actor.store, store);
    snprintf(ret_text, GOSSIP_TOKEN_TEXT_MAX, "%s.%" PRIu64 ".%s.%" PRIu64 ".%" PRIu64, volume, token->epoch,
             store, token->dot.actor.epoch, token->dot.seq);
}

static int parse_id(const char **text, struct replica_id *ret_id)
{
    char hex[33];
    if (strnlen(*text, 33) < 33 || (*text)[32] != '.')
        return REPLICA_E_INVALID;
    memcpy(hex, *text, 32);
    hex[32] = '\0';
    *text += 33;
    return replica_id_parse(hex, ret_id);
}

static int parse_number(const char **text, char end, uint64_t *ret_value)
{
    uint64_t value = 0;
    size_t digits = 0;
    for (; **text >= '0' && **text <= '9'; (*text)++, digits++) {
        if (value > (UINT64_MAX - 9) / 10)
            return REPLICA_E_INVALID;
        value = value * 10 + (uint64_t)(**text - '0');
    }
    if (digits == 0 || **text != end)
        return REPLICA_E_INVALID;
    if (end != '\0')
        (*text)++;
    *ret_value = value;
    return 0;
}

int gossip_token_parse(const char *text, struct gossip_token *ret_token)
{
    struct gossip_token token;
    memset(&token, 0, sizeof token);
    if (parse_id(&text, &token.volume) != 0 || parse_number(&text, '.', &token.epoch) != 0 ||
        parse_id(&text, &token.dot.actor.store) != 0 ||
        parse_number(&text, '.', &token.dot.actor.epoch) != 0 ||
        parse_number(&text, '\0', &token.dot.seq) != 0)
        return REPLICA_E_INVALID;
    *ret_token = token;
    return 0;
}
