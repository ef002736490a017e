/* What the command line shows: sizes, times, modes, bars, JSON. */
#include "cli/format.h"
#include "cli/json.h"
#include "cli/progress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void expect_size(uint64_t bytes, const char *expected)
{
    char text[CLI_SIZE_TEXT];
    cli_format_size(bytes, text);
    assert_string_equal(text, expected);
}

static void sizes_have_sensible_units(void **state)
{
    (void)state;
    expect_size(0, "0 B");
    expect_size(1023, "1023 B");
    expect_size(1024, "1.0 KiB");
    expect_size(1536, "1.5 KiB");
    expect_size(1024 * 1024 - 1, "1.0 MiB"); /* never "1024.0 KiB" */
    expect_size((uint64_t)3 << 30, "3.0 GiB");
    expect_size(UINT64_MAX, "16.0 EiB");
}

static void expect_duration(uint64_t seconds, const char *expected)
{
    char text[CLI_DURATION_TEXT];
    cli_format_duration(seconds, text);
    assert_string_equal(text, expected);
}

static void durations(void **state)
{
    (void)state;
    expect_duration(0, "0:00");
    expect_duration(59, "0:59");
    expect_duration(60, "1:00");
    expect_duration(3599, "59:59");
    expect_duration(3600, "1:00:00");
    expect_duration(UINT64_MAX, "> 99 days");
}

static void modes(void **state)
{
    char text[CLI_MODE_TEXT];
    (void)state;
    cli_format_mode('d', 0755, text);
    assert_string_equal(text, "drwxr-xr-x");
    cli_format_mode('-', 06644, text);
    assert_string_equal(text, "-rwSr-Sr--");
    cli_format_mode('d', 01777, text);
    assert_string_equal(text, "drwxrwxrwt");
    cli_format_mode('-', 04711, text);
    assert_string_equal(text, "-rws--x--x");
}

static void times_of_any_year(void **state)
{
    char text[CLI_TIME_TEXT];
    (void)state;
    setenv("TZ", "UTC", 1);
    tzset();
    cli_format_time(0, text);
    assert_string_equal(text, "1970-01-01 00:00:00");
    cli_format_time(-1, text);
    assert_string_equal(text, "1969-12-31 23:59:59");
    cli_format_time(INT64_MAX, text);
    assert_true(text[0] != '\0');
}

/* A file may say any time; what 64 bits of nanoseconds do not reach becomes the nearest that they do, never another era. */
static void times_do_not_wrap(void **state)
{
    static const struct {
        struct timespec time;
        int64_t ns;
    } TIMES[] = {
        {{0, 0}, 0},
        {{-1, 999999999}, -1},
        {{9223372036, 854775807}, INT64_MAX},
        {{9223372036, 854775806}, INT64_MAX - 1},
        {{9223372036, 854775808}, INT64_MAX},
        {{9223372037, 0}, INT64_MAX},
        {{13569465600, 0}, INT64_MAX}, /* 2400-01-01 */
        {{INT64_MAX, 999999999}, INT64_MAX},
        {{-9223372036, 0}, -9223372036000000000},
        {{-9223372038, 0}, INT64_MIN},
        {{INT64_MIN, 0}, INT64_MIN},
    };
    (void)state;
    for (size_t i = 0; i < sizeof TIMES / sizeof TIMES[0]; i++)
        assert_true(cli_nanoseconds(&TIMES[i].time) == TIMES[i].ns);
}

static void control_bytes_do_not_reach_a_terminal(void **state)
{
    char text[] = "a\x1b[2Jb\nc\x7f"
                  "d";
    (void)state;
    cli_format_tame(text);
    assert_string_equal(text, "a?[2Jb?c?d");
}

static void a_bar_fits_every_width(void **state)
{
    char line[CLI_PROGRESS_WIDTH_MAX];
    (void)state;
    for (size_t width = 1; width < 200; width++) {
        cli_progress_line(line, width, "a/very/long/name/of/some/file.safetensors", 1ull << 30, 4ull << 30,
                          2000);
        assert_true(strlen(line) <= width);
    }
    cli_progress_line(line, 100, "put", 1ull << 30, 4ull << 30, 2000);
    assert_non_null(strstr(line, " 25 %"));
    assert_non_null(strstr(line, "1.0 GiB of 4.0 GiB"));
    assert_non_null(strstr(line, "512.0 MiB/s"));
    assert_non_null(strstr(line, "0:06"));
    assert_non_null(strstr(line, "[##########                "));
}

/* Nothing is known yet, or more came than was announced. */
static void a_bar_survives_odd_figures(void **state)
{
    char line[CLI_PROGRESS_WIDTH_MAX];
    (void)state;
    cli_progress_line(line, 100, "x", 0, 0, 0);
    assert_non_null(strstr(line, "  0 %"));
    cli_progress_line(line, 100, "x", 10, 5, 1000);
    assert_non_null(strstr(line, "100 %"));
    cli_progress_line(line, 100, "x", UINT64_MAX, UINT64_MAX, UINT64_MAX);
    assert_non_null(strstr(line, "100 %"));
}

/* JSON */

struct capture {
    FILE *out;
    char *text;
    size_t n;
};

static void open_capture(struct capture *capture)
{
    capture->text = NULL;
    capture->out = open_memstream(&capture->text, &capture->n);
    assert_non_null(capture->out);
}

static void expect_json(struct capture *capture, const char *expected)
{
    fclose(capture->out);
    assert_string_equal(capture->text, expected);
    free(capture->text);
}

static void json_text_is_valid_whatever_the_name(void **state)
{
    struct capture capture;
    struct cli_json json;
    (void)state;
    open_capture(&capture);
    cli_json_init(&json, capture.out);
    cli_json_begin(&json, '[');
    cli_json_text(&json, "a\"\\\n\0b", 6);
    cli_json_text(&json, "\xc3\xbc\xe5\x90\x8d\xf0\x9f\x90\x9f", 9);
    cli_json_text(&json, "\xff\xc3", 2);         /* not UTF-8 */
    cli_json_text(&json, "\xc0\xaf", 2);         /* overlong */
    cli_json_text(&json, "\xed\xa0\x80", 3);     /* a surrogate */
    cli_json_text(&json, "\xf4\x90\x80\x80", 4); /* beyond U+10FFFF */
    cli_json_end(&json, ']');
    expect_json(
        &capture,
        "[\"a\\\"\\\\\\u000a\\u0000b\", \"\xc3\xbc\xe5\x90\x8d\xf0\x9f\x90\x9f\", \"\\udcff\\udcc3\", "
        "\"\\udcc0\\udcaf\", \"\\udced\\udca0\\udc80\", \"\\udcf4\\udc90\\udc80\\udc80\"]");
}

static void json_follows_any_answer(void **state)
{
    struct replica_pack_reader reader;
    struct replica_buffer buffer;
    struct capture capture;
    struct cli_json json;
    (void)state;
    replica_buffer_init(&buffer);
    replica_pack_map(&buffer, 5);
    replica_pack_cstr(&buffer, "n");
    replica_pack_uint(&buffer, UINT64_MAX);
    replica_pack_cstr(&buffer, "minus");
    replica_pack_int(&buffer, INT64_MIN);
    replica_pack_cstr(&buffer, "id");
    replica_pack_bin(&buffer, "\x00\xff", 2);
    replica_pack_cstr(&buffer, "none");
    replica_pack_nil(&buffer);
    replica_pack_cstr(&buffer, "list");
    replica_pack_array(&buffer, 2);
    replica_pack_bool(&buffer, true);
    replica_pack_map(&buffer, 0);
    replica_pack_reader_init(&reader, buffer.data, buffer.size);
    open_capture(&capture);
    cli_json_init(&json, capture.out);
    cli_json_item(&json, &reader);
    expect_json(
        &capture,
        "{\"n\": 18446744073709551615, \"minus\": -9223372036854775808, \"id\": \"00ff\", \"none\": null, "
        "\"list\": [true, {}]}");
    replica_buffer_close(&buffer);
}

/* Cut off anywhere, an answer still ends: no loop, no read beyond. */
static void json_survives_a_cut_answer(void **state)
{
    struct replica_pack_reader reader;
    struct replica_buffer buffer;
    (void)state;
    replica_buffer_init(&buffer);
    replica_pack_map(&buffer, 2);
    replica_pack_cstr(&buffer, "list");
    replica_pack_array(&buffer, 3);
    for (int i = 0; i < 3; i++)
        replica_pack_cstr(&buffer, "item");
    replica_pack_cstr(&buffer, "n");
    replica_pack_uint(&buffer, 7);
    for (size_t n = 0; n < buffer.size; n++) {
        struct capture capture;
        struct cli_json json;
        open_capture(&capture);
        cli_json_init(&json, capture.out);
        replica_pack_reader_init(&reader, buffer.data, n);
        cli_json_item(&json, &reader);
        fclose(capture.out);
        assert_true(capture.n < 100);
        free(capture.text);
    }
    replica_buffer_close(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_have_sensible_units),
        cmocka_unit_test(durations),
        cmocka_unit_test(modes),
        cmocka_unit_test(times_of_any_year),
        cmocka_unit_test(times_do_not_wrap),
        cmocka_unit_test(control_bytes_do_not_reach_a_terminal),
        cmocka_unit_test(a_bar_fits_every_width),
        cmocka_unit_test(a_bar_survives_odd_figures),
        cmocka_unit_test(json_text_is_valid_whatever_the_name),
        cmocka_unit_test(json_follows_any_answer),
        cmocka_unit_test(json_survives_a_cut_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
