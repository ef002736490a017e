/* Keys and records of the map, shared by the map_*.c files and by views, whose overlay has the same order. Prefixes in the map kv:
 *   e volume target-key 00 inverted-seq   a version that won when it was applied
 *   f volume target-key 00 stamp          a version that lost when it was applied
 *   x volume target-key                   this target has versions that did not build on each other
 *   j volume commit target-key            … found while this commit was applied
 *   r content volume target-key 00 stamp  a version refers to that content
 *   n volume object name-key 00 inverted-seq  from then on the name is (01) or is not (00) a link of the object
 *   d volume directory 00 inverted-seq    how many live names it has from then on (8 bytes)
 * target-key: 00 object, or 01 parent 00 name. */
#ifndef REPLICA_SRC_MAP_H
#define REPLICA_SRC_MAP_H

#include "replica/map.h"

#define MAP_TARGET_MAX (1 + REPLICA_PATH_MAX + 1 + REPLICA_NAME_MAX + 1)

struct map_key {
    uint8_t bytes[1 + REPLICA_CONTENT_ID_SIZE + REPLICA_ID_SIZE + MAP_TARGET_MAX + 1 + REPLICA_STAMP_SIZE];
    size_t size;
};

void map_key_start(struct map_key *key, char prefix, const struct replica_id *volume);
void map_key_append(struct map_key *key, const void *data, size_t n);
void map_key_append_inverted(struct map_key *key, uint64_t seq); /* 00, then ~seq big-endian */
void map_key_append_target(struct map_key *key, const struct replica_target_name *name);
void map_key_append_path(struct map_key *key, struct replica_path parent, struct replica_path name);
/* The target in `n` bytes of a target-key; the path is put together in ret_text. Errors: CORRUPT. */
int map_key_parse_target(const uint8_t *bytes, size_t n, char ret_text[REPLICA_PATH_MAX + 1],
                         struct replica_target_name *ret_name);

/* A version's record. */
void map_version_pack(struct replica_buffer *out, const struct replica_apply *apply,
                      const struct replica_op *op);
/* Copies the record into version->bytes and decodes. Errors: CORRUPT, NOMEM. */
int map_version_decode(const uint8_t *data, size_t n, struct replica_version *version);

/* The newest version at or before seq through an open cursor. Errors: NOTFOUND. */
int map_get_at(const struct replica_map *map, struct replica_kv_cursor *cursor,
               const struct replica_target_name *name, uint64_t seq, struct replica_version *ret_version);

/* Adds one change of path's parent directory to the run; the run of another directory is ended first. end is called with what a run
 * changed, unless that is nothing; its result is returned, and while it fails the run stays as it was. */
typedef int (*map_run_fn)(void *context, struct replica_path dir, int64_t change);
int map_run_add(struct replica_map_run *run, struct replica_path path, int change, map_run_fn end,
                void *context);
int map_run_end(struct replica_map_run *run, map_run_fn end, void *context);

/* Whether anything below path is live at seq; a name of an object that is gone does not count: it is not
 * shown. */
int map_has_below(const struct replica_map *map, struct replica_kv_cursor *cursor, struct replica_path path,
                  uint64_t seq, bool *ret_has);

/* Visits what is live below path at seq, as map_has_below counts it; non-zero stops and is returned. */
typedef int (*map_live_fn)(void *context, const struct replica_target_name *name);
int map_each_below(const struct replica_map *map, struct replica_kv_cursor *cursor, struct replica_path path,
                   uint64_t seq, map_live_fn visit, void *context);

/* Visits the names that are links of the object at seq; non-zero stops and is returned. */
int map_each_link(const struct replica_map *map, const struct replica_id *object, uint64_t seq,
                  int (*visit)(void *context, const struct replica_target_name *name), void *context);
#define MAP_LINKS_MAX 65000 /* counted at most: as ext4 allows */

/* Shown by rule only. */
void map_default_directory(struct replica_version *version);

/* The name in dir that is shown under the alias `alias` at seq, into ret_base. Errors: NOTFOUND: it is not an
 * alias. */
int map_alias_base(const struct replica_map *map, struct replica_path dir, struct replica_path alias,
                   uint64_t seq, char ret_base[REPLICA_NAME_MAX + 1], size_t *ret_n);

/* Where a listing has come to: behind a name, shown or not; passed: behind its alias, too. */
struct map_place {
    char name[REPLICA_NAME_MAX + 1];
    size_t n; /* 0: at the beginning */
    bool passed;
};

/* As replica_map_list; key: the name that the shown one sorts by, which differs from it for an alias. Looks at no more than `looks` names,
 * shown or not. place is moved behind the last one dealt with; its name may be an alias at first. */
typedef int (*map_list_fn)(void *context, struct replica_path key, struct replica_path name,
                           const struct replica_version *version);
int map_list_keyed(const struct replica_map *map, struct replica_path dir, struct map_place *place,
                   uint64_t apply_seq, size_t max, size_t looks, size_t *reads, bool *ret_more,
                   map_list_fn visit, void *context);

/* A directory's count of live names, through an open cursor. */
int map_children_at(const struct replica_map *map, struct replica_kv_cursor *cursor, struct replica_path dir,
                    uint64_t seq, uint64_t *ret_n);

#endif
