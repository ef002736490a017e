/* json: writing JSON to a stream. Binary values become lower-case hex; bytes of a name that are not UTF-8
 * become lone surrogates U+DC80…U+DCFF, as Python's "surrogateescape" reads them, so that no name is lost. */
#ifndef CLI_JSON_H
#define CLI_JSON_H

#include "cli/format.h"
#include "replica/pack.h"

#include <stdio.h>

#define CLI_JSON_DEPTH 24

struct cli_json {
    FILE *out; /* borrowed */
    unsigned depth;
    bool some[CLI_JSON_DEPTH]; /* the level has an item already */
    bool after_key;
};

void cli_json_init(struct cli_json *json, FILE *out);
void cli_json_begin(struct cli_json *json, char bracket); /* '{' or '[' */
void cli_json_end(struct cli_json *json, char bracket);
void cli_json_key(struct cli_json *json, const char *key);
void cli_json_text(struct cli_json *json, const char *text, size_t n);
void cli_json_hex(struct cli_json *json, const uint8_t *bytes, size_t n);
void cli_json_uint(struct cli_json *json, uint64_t value);
void cli_json_int(struct cli_json *json, int64_t value);
void cli_json_bool(struct cli_json *json, bool value);
void cli_json_null(struct cli_json *json);
/* A key and its value. */
void cli_json_pair_text(struct cli_json *json, const char *key, const char *text);
void cli_json_pair_uint(struct cli_json *json, const char *key, uint64_t value);
void cli_json_pair_bool(struct cli_json *json, const char *key, bool value);
/* `files`, `directories`, `bytes`. */
void cli_json_count(struct cli_json *json, const struct cli_count *count);
/* One MessagePack item, whatever it is; what is malformed becomes null. */
void cli_json_item(struct cli_json *json, struct replica_pack_reader *reader);
void cli_json_close(struct cli_json *json); /* ends the line */

#endif
