#include "api/methods.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const struct api_method METHODS[] = {
    {"node.info", api_node_info, NODE_RIGHT_NONE, false},
    {"cluster.init", api_cluster_init, NODE_RIGHT_ALL, false},
    {"cluster.members", api_cluster_members, NODE_RIGHT_NONE, false},
    {"cluster.status", api_cluster_status, NODE_RIGHT_NONE, false},
    {"volume.create", api_volume_create, NODE_RIGHT_NONE, false},
    {"volume.list", api_volume_list, NODE_RIGHT_NONE, false},
    {"volume.info", api_volume_info, NODE_RIGHT_READ, false},
    {"volume.rename", api_volume_rename, NODE_RIGHT_ALL, false},
    {"volume.delete", api_volume_delete, NODE_RIGHT_ALL, false},
    {"volume.undelete", api_volume_undelete, NODE_RIGHT_ALL, false},
    {"volume.log", api_volume_log, NODE_RIGHT_READ, false},
    {"volume.history", api_volume_history, NODE_RIGHT_READ, false},
    {"view.open", api_view_open, NODE_RIGHT_READ, false},
    {"view.close", api_view_close, NODE_RIGHT_READ, false},
    {"view.list", api_view_list, NODE_RIGHT_READ, false},
    {"view.commit", api_view_commit, NODE_RIGHT_WRITE, false},
    {"view.reload", api_view_reload, NODE_RIGHT_READ, false},
    {"view.hold", api_view_hold, NODE_RIGHT_READ, false},
    {"fs.stat", api_fs_stat, NODE_RIGHT_READ, false},
    {"fs.list", api_fs_list, NODE_RIGHT_READ, false},
    {"fs.put", api_fs_put, NODE_RIGHT_WRITE, true},
    {"fs.mkdir", api_fs_mkdir, NODE_RIGHT_WRITE, false},
    {"fs.remove", api_fs_remove, NODE_RIGHT_WRITE, false},
    {"fs.rename", api_fs_rename, NODE_RIGHT_WRITE, false},
    {"fs.link", api_fs_link, NODE_RIGHT_WRITE, false},
    {"fs.copy", api_fs_copy, NODE_RIGHT_WRITE, false},
    {"fs.set", api_fs_set, NODE_RIGHT_WRITE, false},
    {"fs.read", api_fs_read, NODE_RIGHT_READ, false},
    {"fs.write", api_fs_write, NODE_RIGHT_WRITE, false},
    {"fs.open", api_fs_open, NODE_RIGHT_READ, false},
    {"fs.fetch", api_fs_fetch, NODE_RIGHT_READ, false},
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
