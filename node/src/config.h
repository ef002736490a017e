/* config: what a node was told, from (in this order, later wins) built-in defaults, a file, the environment (REMORA_…), flags. */
#ifndef NODE_CONFIG_H
#define NODE_CONFIG_H

#include "gossip/member.h"

#define NODE_FREE_SPACE_DEFAULT UINT64_MAX

struct node_config {
    char *data;        /* directory of the store */
    char *socket;      /* path of the API socket */
    char *listen;      /* tcp://host:port */
    bool listen_given; /* else the default, and the next free pair if that is taken */
    char *advertise;   /* NULL: listen, as bound */
    char *key;         /* key file; NULL: none */
    char *zone;
    char *name; /* for people; the host name */
    char *config_file;
    char *allow; /* rules of policy.h; "": none */
    char *join[GOSSIP_JOIN_MAX];
    size_t join_n;
    uint64_t capacity;   /* bytes that a voter keeps; 0: what the disk has */
    uint64_t cache_size; /* bytes that another node keeps, a voter on top of capacity; 0: what the disk has */
    uint64_t free_space; /* bytes to leave free; NODE_FREE_SPACE_DEFAULT: see node_config_free_space */
    uint32_t expect;     /* 0: not given */
    uint32_t shutdown_timeout_s;
    uint32_t background_commit_s; /* of AUTO views; 5 */
    bool vote;
    bool data_plain;
    bool log_json;
    int log_level;
};

/* Defaults for this user: paths, port and sizes as in docs/operations.md. Errors: NOMEM. */
int node_config_init(struct node_config *config);
void node_config_close(struct node_config *config);

/* One setting by its flag name without dashes ("cache-size"), as text. Errors: INVALID; ret_message malloc'ed, names the setting. */
int node_config_set(struct node_config *config, const char *name, const char *value, char **ret_message);
/* REMORA_CACHE_SIZE and so on. */
int node_config_environment(struct node_config *config, char **ret_message);
/* Lines "name = value", # comments. */
int node_config_file(struct node_config *config, const char *path, char **ret_message);
/* What only the whole can tell (--expect without --join, a join without a key …). */
int node_config_check(const struct node_config *config, char **ret_message);

/* Every setting in order, for help: its flag without dashes, its variable, what it takes (NULL: nothing) and what it is. */
void node_config_each(void (*visit)(void *context, const char *name, const char *variable,
                                    const char *argument, const char *help),
                      void *context);
bool node_config_is_known(const char *name);
bool node_config_is_switch(const char *name);

/* free_space, or if it was not given 1 GiB or 5 % of the disk that data lies (or will lie) on, the smaller. */
uint64_t node_config_free_space(const struct node_config *config);

#endif
