#include "cli/json.h"

#include <inttypes.h>
#include <string.h>

#define ITEM_MAX (16u << 20) /* more than a message holds */

void cli_json_init(struct cli_json *json, FILE *out)
{
    *json = (struct cli_json){.out = out};
}

static void separate(struct cli_json *json)
{
    if (json->after_key)
        json->after_key = false;
    else if (json->some[json->depth])
        fputs(", ", json->out);
    json->some[json->depth] = true;
}

void cli_json_begin(struct cli_json *json, char bracket)
{
    separate(json);
    fputc(bracket, json->out);
    if (json->depth + 1 < CLI_JSON_DEPTH)
        json->depth++;
    json->some[json->depth] = false;
}

void cli_json_end(struct cli_json *json, char bracket)
{
    if (json->depth > 0)
        json->depth--;
    fputc(bracket, json->out);
}

/* The length of the UTF-8 sequence at text (no overlong forms, no surrogates), or 0. */
static size_t utf8_length(const uint8_t *text, size_t n)
{
    static const uint32_t LEAST[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = text[0] < 0x80             ? 1
                    : (text[0] & 0xe0) == 0xc0 ? 2
                    : (text[0] & 0xf0) == 0xe0 ? 3
                    : (text[0] & 0xf8) == 0xf0 ? 4
                                               : 0;
    uint32_t point;
    if (length == 0 || length > n)
        return 0;
    point = length == 1 ? text[0] : text[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (text[i] & 0x3f);
    }
    if (point < LEAST[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
        return 0;
    return length;
}

static void write_character(FILE *out, const uint8_t *text, size_t length)
{
    if (length == 0)
        fprintf(out, "\\udc%02x", text[0]);
    else if (text[0] == '"' || text[0] == '\\')
        fprintf(out, "\\%c", text[0]);
    else if (text[0] < 0x20 || text[0] == 0x7f)
        fprintf(out, "\\u%04x", text[0]);
    else
        fwrite(text, 1, length, out);
}

static void write_text(FILE *out, const char *text, size_t n)
{
    fputc('"', out);
    for (size_t i = 0; i < n;) {
        const uint8_t *at = (const uint8_t *)text + i;
        size_t length = utf8_length(at, n - i);
        write_character(out, at, length);
        i += length > 0 ? length : 1;
    }
    fputc('"', out);
}

void cli_json_text(struct cli_json *json, const char *text, size_t n)
{
    separate(json);
    write_text(json->out, text, n);
}

void cli_json_key(struct cli_json *json, const char *key)
{
    cli_json_text(json, key, strlen(key));
    fputs(": ", json->out);
    json->after_key = true;
}

void cli_json_hex(struct cli_json *json, const uint8_t *bytes, size_t n)
{
    separate(json);
    fputc('"', json->out);
    for (size_t i = 0; i < n; i++)
        fprintf(json->out, "%02x", bytes[i]);
    fputc('"', json->out);
}

void cli_json_uint(struct cli_json *json, uint64_t value)
{
    separate(json);
    fprintf(json->out, "%" PRIu64, value);
}

void cli_json_int(struct cli_json *json, int64_t value)
{
    separate(json);
    fprintf(json->out, "%" PRId64, value);
}

void cli_json_bool(struct cli_json *json, bool value)
{
    separate(json);
    fputs(value ? "true" : "false", json->out);
}

void cli_json_null(struct cli_json *json)
{
    separate(json);
    fputs("null", json->out);
}

static void write_number(struct cli_json *json, struct replica_pack_reader *reader)
{
    struct replica_pack_reader attempt = *reader;
    uint64_t value;
    int64_t negative;
    if (replica_pack_read_uint(&attempt, UINT64_MAX, &value) == 0) {
        cli_json_uint(json, value);
        *reader = attempt;
    } else if (replica_pack_read_int(reader, &negative) == 0) {
        cli_json_int(json, negative);
    } else {
        cli_json_null(json);
    }
}

static void write_map(struct cli_json *json, struct replica_pack_reader *reader)
{
    size_t n, key_n;
    const char *key;
    cli_json_begin(json, '{');
    replica_pack_read_map(reader, ITEM_MAX, &n);
    for (size_t i = 0; i < n && !reader->failed; i++) {
        if (replica_pack_read_str(reader, ITEM_MAX, &key, &key_n) != 0)
            break;
        cli_json_text(json, key, key_n);
        fputs(": ", json->out);
        json->after_key = true;
        cli_json_item(json, reader);
    }
    cli_json_end(json, '}');
}

static void write_array(struct cli_json *json, struct replica_pack_reader *reader)
{
    size_t n;
    cli_json_begin(json, '[');
    replica_pack_read_array(reader, ITEM_MAX, &n);
    for (size_t i = 0; i < n && !reader->failed; i++)
        cli_json_item(json, reader);
    cli_json_end(json, ']');
}

void cli_json_item(struct cli_json *json, struct replica_pack_reader *reader)
{
    const uint8_t *bytes;
    const char *text;
    size_t n;
    bool truth;
    switch (json->depth + 1 < CLI_JSON_DEPTH ? replica_pack_peek(reader) : REPLICA_PACK_EXT) {
    case REPLICA_PACK_BOOL:
        replica_pack_read_bool(reader, &truth);
        cli_json_bool(json, truth);
        break;
    case REPLICA_PACK_INT:
        write_number(json, reader);
        break;
    case REPLICA_PACK_STR:
        replica_pack_read_str(reader, ITEM_MAX, &text, &n);
        cli_json_text(json, text, n);
        break;
    case REPLICA_PACK_BIN:
        replica_pack_read_bin(reader, ITEM_MAX, &bytes, &n);
        cli_json_hex(json, bytes, n);
        break;
    case REPLICA_PACK_ARRAY:
        write_array(json, reader);
        break;
    case REPLICA_PACK_MAP:
        write_map(json, reader);
        break;
    default:
        replica_pack_skip(reader);
        cli_json_null(json);
    }
}

void cli_json_pair_text(struct cli_json *json, const char *key, const char *text)
{
    cli_json_key(json, key);
    cli_json_text(json, text, strlen(text));
}

void cli_json_pair_uint(struct cli_json *json, const char *key, uint64_t value)
{
    cli_json_key(json, key);
    cli_json_uint(json, value);
}

void cli_json_pair_bool(struct cli_json *json, const char *key, bool value)
{
    cli_json_key(json, key);
    cli_json_bool(json, value);
}

void cli_json_count(struct cli_json *json, const struct cli_count *count)
{
    cli_json_pair_uint(json, "files", count->files);
    cli_json_pair_uint(json, "directories", count->directories);
    cli_json_pair_uint(json, "bytes", count->bytes);
}

void cli_json_close(struct cli_json *json)
{
    fputc('\n', json->out);
}
