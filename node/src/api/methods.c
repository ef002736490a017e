#include "api/methods.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const struct api_method METHODS[] = {
    {"node.info", api_node_info, false},
    {"cluster.init", api_cluster_init, false},
    {"cluster.members", api_cluster_members, false},
    {"cluster.status", api_cluster_status, false},
    {"volume.create", api_volume_create, false},
    {"volume.list", api_volume_list, false},
    {"volume.info", api_volume_info, false},
    {"volume.rename", api_volume_rename, false},
    {"volume.delete", api_volume_delete, false},
    {"volume.undelete", api_volume_undelete, false},
    {"volume.log", api_volume_log, false},
    {"volume.history", api_volume_history, false},
    {"view.open", api_view_open, false},
    {"view.close", api_view_close, false},
    {"view.list", api_view_list, false},
    {"view.commit", api_view_commit, false},
    {"view.reload", api_view_reload, false},
    {"view.hold", api_view_hold, false},
    {"fs.stat", api_fs_stat, false},
    {"fs.list", api_fs_list, false},
    {"fs.put", api_fs_put, true},
    {"fs.mkdir", api_fs_mkdir, false},
    {"fs.remove", api_fs_remove, false},
    {"fs.rename", api_fs_rename, false},
    {"fs.link", api_fs_link, false},
    {"fs.copy", api_fs_copy, false},
    {"fs.set", api_fs_set, false},
    {"fs.read", api_fs_read, false},
    {"fs.write", api_fs_write, false},
    {"fs.open", api_fs_open, false},
    {"fs.fetch", api_fs_fetch, false},
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
