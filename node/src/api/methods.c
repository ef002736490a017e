#include "api/methods.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const struct api_method METHODS[] = {
    {"node.info", api_node_info, NODE_RIGHT_NONE, false, API_READS},
    {"cluster.init", api_cluster_init, NODE_RIGHT_ALL, false, API_CHANGES},
    {"cluster.members", api_cluster_members, NODE_RIGHT_NONE, false, API_READS},
    {"cluster.status", api_cluster_status, NODE_RIGHT_NONE, false, API_READS},
    {"volume.create", api_volume_create, NODE_RIGHT_NONE, false, API_GROWS},
    {"volume.list", api_volume_list, NODE_RIGHT_NONE, false, API_READS},
    {"volume.info", api_volume_info, NODE_RIGHT_READ, false, API_READS},
    {"volume.rename", api_volume_rename, NODE_RIGHT_ALL, false, API_CHANGES},
    {"volume.delete", api_volume_delete, NODE_RIGHT_ALL, false, API_CHANGES},
    {"volume.undelete", api_volume_undelete, NODE_RIGHT_ALL, false, API_CHANGES},
    {"volume.log", api_volume_log, NODE_RIGHT_READ, false, API_READS},
    {"volume.history", api_volume_history, NODE_RIGHT_READ, false, API_READS},
    {"view.open", api_view_open, NODE_RIGHT_READ, false, API_READS},
    {"view.close", api_view_close, NODE_RIGHT_READ, false, API_READS},
    {"view.list", api_view_list, NODE_RIGHT_READ, false, API_READS},
    {"view.commit", api_view_commit, NODE_RIGHT_WRITE, false, API_CHANGES},
    {"view.reload", api_view_reload, NODE_RIGHT_READ, false, API_READS},
    {"view.hold", api_view_hold, NODE_RIGHT_READ, false, API_READS},
    {"fs.stat", api_fs_stat, NODE_RIGHT_READ, false, API_READS},
    {"fs.list", api_fs_list, NODE_RIGHT_READ, false, API_READS},
    {"fs.put", api_fs_put, NODE_RIGHT_WRITE, true, API_GROWS},
    {"fs.mkdir", api_fs_mkdir, NODE_RIGHT_WRITE, false, API_GROWS},
    {"fs.remove", api_fs_remove, NODE_RIGHT_WRITE, false, API_CHANGES},
    {"fs.rename", api_fs_rename, NODE_RIGHT_WRITE, false, API_CHANGES},
    {"fs.link", api_fs_link, NODE_RIGHT_WRITE, false, API_GROWS},
    {"fs.copy", api_fs_copy, NODE_RIGHT_WRITE, false, API_GROWS},
    {"fs.set", api_fs_set, NODE_RIGHT_WRITE, false, API_CHANGES},
    {"fs.read", api_fs_read, NODE_RIGHT_READ, false, API_READS},
    {"fs.write", api_fs_write, NODE_RIGHT_WRITE, false, API_GROWS},
    {"fs.open", api_fs_open, NODE_RIGHT_READ, false, API_READS},
    {"fs.verify", api_fs_verify, NODE_RIGHT_READ, false, API_READS},
    {"fs.fetch", api_fs_fetch, NODE_RIGHT_READ, false, API_READS},
};

const struct api_method *api_method_find(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof METHODS / sizeof METHODS[0]; i++)
        if (strlen(METHODS[i].name) == n && memcmp(METHODS[i].name, name, n) == 0)
            return &METHODS[i];
    return NULL;
}

void api_random_id(struct replica_id *ret_id)
{
    if (getrandom(ret_id->bytes, sizeof ret_id->bytes, 0) != (ssize_t)sizeof ret_id->bytes)
        abort(); /* never short for so few bytes, and an id that is not random must not exist */
}
