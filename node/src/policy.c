#include "policy.h"

#include "gossip/control.h"
#include "replica/error.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLANKS " \t"
#define ID_MAX (UINT32_MAX - 1) /* the last one means "no id" to the kernel */

struct grant {
    char volume[GOSSIP_VOLUME_NAME_MAX + 1]; /* "*": each */
    enum node_right right;
};

struct rule {
    bool is_group;
    uint32_t id;
    size_t grants_n;
    struct grant grants[NODE_RULE_VOLUMES_MAX];
};

struct node_policy {
    size_t rules_n;
    struct rule rules[NODE_RULES_MAX];
};

static int complain(char **ret_message, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int complain(char **ret_message, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(ret_message, format, arguments) < 0)
        *ret_message = NULL;
    va_end(arguments);
    return REPLICA_E_INVALID;
}

static bool parse_who(const char *text, struct rule *rule)
{
    unsigned long long id;
    char *end;
    rule->is_group = strncmp(text, "gid:", 4) == 0;
    if (!rule->is_group && strncmp(text, "uid:", 4) != 0)
        return false;
    errno = 0;
    id = strtoull(text + 4, &end, 10);
    rule->id = (uint32_t)id;
    return isdigit((unsigned char)text[4]) && *end == '\0' && errno == 0 && id <= ID_MAX;
}

static bool is_volume_name(const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)text[i]) && strchr("-_.", text[i]) == NULL)
            return false;
    return n >= 1 && n <= GOSSIP_VOLUME_NAME_MAX;
}

static bool parse_grant(char *text, struct grant *grant)
{
    char *option = strchr(text, ':');
    grant->right = NODE_RIGHT_WRITE;
    if (option != NULL) {
        *option++ = '\0';
        if (strcmp(option, "ro") != 0)
            return false;
        grant->right = NODE_RIGHT_READ;
    }
    if (strcmp(text, "*") != 0 && !is_volume_name(text))
        return false;
    strcpy(grant->volume, text);
    return true;
}

static int parse_rule(char *text, struct rule *rule, char **ret_message)
{
    char *list = strchr(text, '='), *volume;
    if (list != NULL)
        *list++ = '\0';
    if (!parse_who(text, rule))
        return complain(ret_message,
                        "\"%s\" says of nobody what they may; write uid:NUMBER=VOLUME or gid:NUMBER=VOLUME",
                        text);
    if (list == NULL || *list == '\0')
        return complain(ret_message, "\"%s\" names no volume; write %s=VOLUME[:ro][,…], or * for each", text,
                        text);
    while ((volume = strsep(&list, ",")) != NULL) {
        if (rule->grants_n == NODE_RULE_VOLUMES_MAX)
            return complain(ret_message, "\"%s\" names more than %d volumes; write another rule for the rest",
                            text, NODE_RULE_VOLUMES_MAX);
        if (!parse_grant(volume, &rule->grants[rule->grants_n++]))
            return complain(ret_message, "\"%s\" has no volume's name, or something other than :ro behind it",
                            text);
    }
    return 0;
}

int node_policy_parse(const char *text, struct node_policy **ret_policy, char **ret_message)
{
    struct node_policy *policy = calloc(1, sizeof *policy);
    char *copy = strdup(text), *rest = copy, *one;
    int code = policy == NULL || copy == NULL ? REPLICA_E_NOMEM : 0;
    *ret_message = NULL;
    while (code == 0 && (one = strsep(&rest, BLANKS)) != NULL) {
        if (*one == '\0')
            continue;
        if (policy->rules_n == NODE_RULES_MAX)
            code = complain(ret_message, "more than %d rules; give one to a group instead", NODE_RULES_MAX);
        else
            code = parse_rule(one, &policy->rules[policy->rules_n++], ret_message);
    }
    free(copy);
    if (code != 0)
        free(policy);
    else
        *ret_policy = policy;
    return code;
}

void node_policy_destroy(struct node_policy **policy)
{
    free(*policy);
    *policy = NULL;
}

bool node_policy_has_rules(const struct node_policy *policy)
{
    return policy->rules_n > 0;
}

static bool is_in(gid_t group, const gid_t *groups, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (groups[i] == group)
            return true;
    return false;
}

struct node_caller node_policy_match(const struct node_policy *policy, uid_t uid, const gid_t *groups,
                                     size_t groups_n)
{
    struct node_caller caller = {.own = uid == 0 || uid == geteuid() || is_in(getegid(), groups, groups_n)};
    for (size_t i = 0; i < policy->rules_n; i++) {
        const struct rule *rule = &policy->rules[i];
        if (rule->is_group ? is_in(rule->id, groups, groups_n) : rule->id == uid)
            caller.rules |= UINT64_C(1) << i;
    }
    return caller;
}

bool node_caller_is_welcome(const struct node_caller *caller)
{
    return caller->own || caller->rules != 0;
}

enum node_right node_policy_right(const struct node_policy *policy, const struct node_caller *caller,
                                  const char *volume)
{
    enum node_right best = NODE_RIGHT_NONE;
    if (caller->own)
        return NODE_RIGHT_ALL;
    for (size_t i = 0; i < policy->rules_n; i++) {
        const struct rule *rule = &policy->rules[i];
        if (!(caller->rules >> i & 1))
            continue;
        for (size_t g = 0; g < rule->grants_n; g++)
            if (rule->grants[g].right > best &&
                (strcmp(rule->grants[g].volume, "*") == 0 || strcmp(rule->grants[g].volume, volume) == 0))
                best = rule->grants[g].right;
    }
    return best;
}
