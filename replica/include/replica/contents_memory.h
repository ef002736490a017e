/* The memory back end of contents, with a crash model: what was not synced is lost at a crash. Pure. */
#ifndef REPLICA_CONTENTS_MEMORY_H
#define REPLICA_CONTENTS_MEMORY_H

#include "replica/contents.h"

/* Errors: NOMEM. */
int replica_contents_memory_new(struct replica_contents **ret_contents);

/* Power is lost: every content that is not COMPLETE vanishes (torn bytes are discarded at start, as the file back end
 * does). Also clears a failure. */
void replica_contents_memory_crash(struct replica_contents *contents);

/* From now on write, ingest and begin fail with `code`; 0 ends it. */
void replica_contents_memory_fail(struct replica_contents *contents, int code);

/* Flips one bit of a stored content, silently, for tests of verification. Errors: ABSENT. */
int replica_contents_memory_damage(struct replica_contents *contents, const struct replica_content_id *id,
                                   uint64_t offset);

#endif
