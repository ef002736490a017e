/* policy: which users of this machine may do what through the API socket, by the kernel's word for who they are (SO_PEERCRED).
 *
 * Without a rule, the node's own user, root, and members of the node's group may do everything, and nobody else anything. Rules let
 * others in, each to some volumes:
 *
 *     uid:1000=weights:ro,logs gid:100=*:ro      user 1000 reads weights, reads and writes logs; group 100 reads every volume
 *
 * Rules add up. Whoever has one that may write a volume may create it; renaming, deleting and `cluster init` stay with the node's own. */
#ifndef NODE_POLICY_H
#define NODE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NODE_RULES_MAX        64 /* a bit each of node_caller; more people belong into a group */
#define NODE_RULE_VOLUMES_MAX 16 /* as many as a credential names */

enum node_right { NODE_RIGHT_NONE, NODE_RIGHT_READ, NODE_RIGHT_WRITE, NODE_RIGHT_ALL };

struct node_policy;

/* Who is at the other end, as worked out once for a connection. */
struct node_caller {
    bool own;       /* everything, whatever the rules say */
    uint64_t rules; /* those that fit */
};

/* text "": no rules. Errors: INVALID (ret_message malloc'ed, names the rule), NOMEM (ret_message NULL). */
int node_policy_parse(const char *text, struct node_policy **ret_policy, char **ret_message);
void node_policy_destroy(struct node_policy **policy);
/* Others than the node's own can be let in: the socket is for everybody to connect to. */
bool node_policy_has_rules(const struct node_policy *policy);

/* groups: primary and supplementary ones. */
struct node_caller node_policy_match(const struct node_policy *policy, uid_t uid, const gid_t *groups,
                                     size_t groups_n);
bool node_caller_is_welcome(const struct node_caller *caller);
/* What the caller may do with the volume of this name, which need not exist. */
enum node_right node_policy_right(const struct node_policy *policy, const struct node_caller *caller,
                                  const char *volume);

#endif
