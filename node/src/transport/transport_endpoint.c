#include "transport_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCHEME   "tcp://"
#define PORT_MAX 65534 /* data is on port + 1 */

static bool host_is_sane(const char *host, size_t n)
{
    if (n == 1 && host[0] == '*')
        return true;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)host[i]) && strchr(".-_:[]%", host[i]) == NULL)
            return false;
    return n > 0 && (memchr(host, ':', n) == NULL || (host[0] == '[' && host[n - 1] == ']'));
}

int node_endpoint_parse(const char *text, struct node_endpoint *ret_endpoint)
{
    const char *host = text + strlen(SCHEME), *colon;
    unsigned long port;
    char *end;
    if (strncmp(text, SCHEME, strlen(SCHEME)) != 0 || strlen(text) > GOSSIP_ENDPOINT_MAX)
        return REPLICA_E_INVALID;
    colon = strrchr(host, ':');
    if (colon == NULL || !isdigit((unsigned char)colon[1]) || !host_is_sane(host, (size_t)(colon - host)))
        return REPLICA_E_INVALID;
    port = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || port > PORT_MAX)
        return REPLICA_E_INVALID;
    memset(ret_endpoint, 0, sizeof *ret_endpoint);
    memcpy(ret_endpoint->host, host, (size_t)(colon - host));
    ret_endpoint->port = (uint32_t)port;
    return 0;
}

bool node_endpoint_is_loopback(const struct node_endpoint *endpoint)
{
    return strncmp(endpoint->host, "127.", 4) == 0 || strcmp(endpoint->host, "[::1]") == 0 ||
           strcmp(endpoint->host, "localhost") == 0;
}

void node_endpoint_format(const struct node_endpoint *endpoint, uint32_t port,
                          char ret_text[GOSSIP_ENDPOINT_MAX + 1])
{
    snprintf(ret_text, GOSSIP_ENDPOINT_MAX + 1, SCHEME "%.*s:%u",
             (int)(GOSSIP_ENDPOINT_MAX - sizeof SCHEME - 6), endpoint->host, (unsigned)port);
}
