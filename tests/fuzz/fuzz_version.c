/* Records of the map and of views as a damaged disk may give them back. */
#include "view/view.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct replica_target_name name;
    struct replica_version version;
    struct view_record record;
    char text[REPLICA_PATH_MAX + 1];
    replica_version_init(&version);
    if (map_version_decode(data, n, &version) == 0 && version.entry.kind != 0)
        assert(replica_entry_check(&version.entry) == 0);
    replica_version_close(&version);
    view_record_init(&record);
    if (view_record_decode(data, n, &record) == 0 && record.entry.kind != 0)
        assert(replica_entry_check(&record.entry) == 0);
    view_record_close(&record);
    if (map_key_parse_target(data, n, text, &name) == 0)
        assert(name.path.size <= REPLICA_PATH_MAX);
    return 0;
}
