/* Every method of docs/api.md, by file. */
#ifndef NODE_API_METHODS_H
#define NODE_API_METHODS_H

#include "api/call.h"

/* cluster.c */
void api_node_info(struct api_call *call);
void api_cluster_init(struct api_call *call);
void api_cluster_members(struct api_call *call);
void api_cluster_status(struct api_call *call);

/* volume.c */
void api_volume_create(struct api_call *call);
void api_volume_list(struct api_call *call);
void api_volume_info(struct api_call *call);
void api_volume_rename(struct api_call *call);
void api_volume_delete(struct api_call *call);
void api_volume_undelete(struct api_call *call);

/* volume_history.c */
void api_volume_log(struct api_call *call);
void api_volume_history(struct api_call *call);

/* view.c */
void api_view_open(struct api_call *call);
void api_view_close(struct api_call *call);
void api_view_list(struct api_call *call);
void api_view_commit(struct api_call *call);
void api_view_reload(struct api_call *call);
void api_view_hold(struct api_call *call);

/* fs_read.c */
void api_fs_stat(struct api_call *call);
void api_fs_list(struct api_call *call);
void api_fs_read(struct api_call *call);
void api_fs_open(struct api_call *call);
void api_fs_verify(struct api_call *call);

/* fs_fetch.c */
void api_fs_fetch(struct api_call *call);

/* fs_edit.c */
void api_fs_mkdir(struct api_call *call);
void api_fs_remove(struct api_call *call);
void api_fs_rename(struct api_call *call);
void api_fs_link(struct api_call *call);
void api_fs_copy(struct api_call *call);

/* fs_write.c */
void api_fs_write(struct api_call *call);
void api_fs_set(struct api_call *call);

/* put.c */
void api_fs_put(struct api_call *call);

/* volume.c: brings this node's copy of a volume up to what a majority holds (QUORUM; LOCAL: leaves it), then calls done; code tells whether
 * that worked. The call's state is taken by this. */
void api_refresh(struct api_call *call, const struct gossip_volume *volume, enum gossip_reload_mode mode,
                 void (*done)(struct api_call *call, int code));
void api_fail_refresh(struct api_call *call, int code);              /* answers with why it did not work */
const struct replica_id *api_refreshed(const struct api_call *call); /* which volume */
void api_random_id(struct replica_id *ret_id);

#endif
