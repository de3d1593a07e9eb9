/* The YAML tree: structure and lines, look-ups, typed reads, what is refused and how it is said,
 * limits, mutations. */
#include "runtime/yaml.h"
#include "tests/support/mutate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void open_text(struct yaml_document *document, const char *text)
{
    struct status status = {0};
    if (yaml_read_text(document, text, strlen(text), "f.yaml", &status))
        fail_msg("%s", status.message);
}

static void structure_and_lines(void **state)
{
    (void)state;
    struct yaml_document document;
    open_text(&document, "# a comment\n"
                         "model:\n"
                         "  list: [1, two, [3]]\n"
                         "  block:\n"
                         "  - a\n"
                         "  - b: c\n"
                         "    d: \"e f\"\n"
                         "data: !!python/tuple [x, y]\n"
                         "anchored: &name value\n");
    assert_int_equal(document.root->kind, YAML_MAPPING);
    assert_int_equal(document.root->count, 3);
    assert_string_equal(document.root->keys[0]->text, "model");
    const struct yaml_node *list = yaml_find(document.root, "model.list");
    assert_int_equal(list->kind, YAML_SEQUENCE);
    assert_int_equal(list->line, 3);
    assert_int_equal(list->count, 3);
    assert_string_equal(list->items[1]->text, "two");
    assert_string_equal(list->items[2]->items[0]->text, "3");
    const struct yaml_node *block = yaml_find(document.root, "model.block");
    assert_int_equal(block->count, 2);
    const struct yaml_node *quoted = yaml_find(block->items[1], "d");
    assert_string_equal(quoted->text, "e f");
    assert_true(quoted->quoted);
    assert_int_equal(quoted->line, 7);
    assert_int_equal(yaml_find(document.root, "data")->count, 2);
    assert_string_equal(yaml_find(document.root, "anchored")->text, "value");
    yaml_close(&document);
    assert_null(document.root);
}

static void absent_and_null(void **state)
{
    (void)state;
    struct yaml_document document;
    open_text(&document, "a: null\nb: ~\nc:\nd: 'null'\ne: {f: 1}\n");
    static const char *const absent[] = {"a", "b", "c", "x", "d.f", "e.x", "e.f.g", "ef"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        if (yaml_find(document.root, absent[i]))
            fail_msg("%s was found", absent[i]);
    assert_non_null(yaml_find(document.root, "d"));
    assert_non_null(yaml_find(document.root, "e.f"));
    assert_null(yaml_find(NULL, "a"));
    yaml_close(&document);
}

enum type { INTEGER, REAL, BOOLEAN };

/* Reads `key: TEXT` on line 2 as one type; limits are -5 to 1000. */
static double typed(const char *text, enum type type, struct status *status)
{
    struct yaml_document document;
    char file[256];
    int64_t integer = 0;
    double real = 0;
    bool boolean = false;
    snprintf(file, sizeof file, "a:\n  key: %s\n", text);
    open_text(&document, file);
    const struct yaml_node *node = yaml_find(document.root, "a.key");
    assert_non_null(node);
    if (type == INTEGER)
        yaml_integer(&document, node, "a.key", -5, 1000, &integer, status);
    else if (type == REAL)
        yaml_real(&document, node, "a.key", -5, 1000, &real, status);
    else
        yaml_boolean(&document, node, "a.key", &boolean, status);
    yaml_close(&document);
    return type == INTEGER ? (double)integer : type == REAL ? real : boolean;
}

static void typed_reads(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum type type;
        double expected;
    } cases[] = {{"7", INTEGER, 7},         {"-5", INTEGER, -5},     {"+1000", INTEGER, 1000},
                 {"2.0e-06", REAL, 2.0e-6}, {"1e-4", REAL, 1e-4},    {"0.0195", REAL, 0.0195},
                 {".5", REAL, 0.5},         {"-3", REAL, -3},        {"1000", REAL, 1000},
                 {"true", BOOLEAN, 1},      {"False", BOOLEAN, 0},   {"yes", BOOLEAN, 1},
                 {"NO", BOOLEAN, 0},        {"on", BOOLEAN, 1},      {"off", BOOLEAN, 0},
                 {"!!int 3", INTEGER, 3},   {"9 # nine", INTEGER, 9}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct status status = {0};
        double read = typed(cases[i].text, cases[i].type, &status);
        if (!status_ok(&status) || read != cases[i].expected)
            fail_msg("%s: %g, expected %g: %s", cases[i].text, read, cases[i].expected,
                     status.message);
    }
}

static void refused_values(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum type type;
        const char *message;
    } cases[] = {{"-6", INTEGER, "an integer from -5 to 1000, found '-6'"},
                 {"1001", INTEGER, "an integer from -5 to 1000, found '1001'"},
                 {"99999999999999999999", INTEGER, "found '99999999999999999999'"},
                 {"7.5", INTEGER, "found '7.5'"},
                 {"7x", INTEGER, "found '7x'"},
                 {"'7'", INTEGER, "found '7'"},
                 {"[7]", INTEGER, "found 'a list'"},
                 {"1001.0", REAL, "a number from -5 to 1000, found '1001.0'"},
                 {"nan", REAL, "found 'nan'"},
                 {".inf", REAL, "found '.inf'"},
                 {"1e999", REAL, "found '1e999'"},
                 {"0x10", REAL, "found '0x10'"},
                 {"1,5", REAL, "found '1,5'"},
                 {"{b: 1}", REAL, "found 'a mapping'"},
                 {"1", BOOLEAN, "true or false, found '1'"},
                 {"maybe", BOOLEAN, "found 'maybe'"},
                 {"\"two\\nlines\"", BOOLEAN, "found 'two lines'"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct status status = {0};
        typed(cases[i].text, cases[i].type, &status);
        assert_int_equal(status.code, STATUS_BAD_INPUT);
        if (strncmp(status.message, "f.yaml: a.key (line 2): expected ", 33) != 0 ||
            !strstr(status.message, cases[i].message))
            fail_msg("%s: \"%s\"", cases[i].text, status.message);
    }
}

static void refuse(const char *text, size_t length, const char *message)
{
    struct status status = {0};
    struct yaml_document document;
    yaml_read_text(&document, text, length, "f.yaml", &status);
    assert_int_equal(status.code, STATUS_BAD_INPUT);
    if (strncmp(status.message, "f.yaml: ", 8) != 0 || !strstr(status.message, message))
        fail_msg("\"%s\", expected \"%s\"", status.message, message);
    assert_null(document.root);
    yaml_close(&document);
}

static void refused_documents(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "the file is empty"},
        {"# nothing\n", "the file is empty"},
        {"a: &x 1\nb: *x\n", "line 2: aliases are not supported"},
        {"a: &x [*x]\n", "line 1: aliases are not supported"},
        {"a: 1\nb: 2\na: 3\n", "line 3: the key a is there twice"},
        {"a: 1\n---\nb: 2\n", "line 2: a second document"},
        {"? [a, b]\n: c\n", "line 1: a key must be a plain word"},
        {"a: [1, 2\n", "not valid YAML"},
        {"a: 1\n  b: 2\n", "line 2: not valid YAML"},
        {"a: \"b\n", "not valid YAML"},
        {"a: \x01\n", "not valid YAML"},
        {"a: \xff\xfe\n", "not valid YAML"},
        {"\ta: 1\n", "line 1: not valid YAML"},
        {"a: \"b\\0c\"\n", "line 1: a zero byte in a text"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(cases[i][0], strlen(cases[i][0]), cases[i][1]);
    refuse("a: 1\0b", 6, "not valid YAML");
}

/* `count` copies of a text between a start and an end. */
static void refuse_repeated(const char *start, const char *part, size_t count, const char *end,
                            const char *message)
{
    size_t length = strlen(start), part_length = strlen(part), end_length = strlen(end);
    char *text = malloc(length + count * part_length + end_length + 1);
    assert_non_null(text);
    memcpy(text, start, length);
    for (size_t i = 0; i < count; i++, length += part_length)
        memcpy(text + length, part, part_length);
    memcpy(text + length, end, end_length + 1);
    refuse(text, length + end_length, message);
    free(text);
}

static void limits(void **state)
{
    (void)state;
    refuse_repeated("a: ", "[", 64, "1", "nested more than 64 deep");
    refuse_repeated("", "- ", 100000, "1", "nested more than 64 deep");
    refuse_repeated("", "{a: ", 5000, "1", "nested more than 64 deep");
    refuse_repeated("[", "1,", 20000, "1]", "more than 20000 nodes");
    refuse_repeated("#", "0123456789", 200000, "\na: 1", "expected at most 1048576");
    struct yaml_document document;
    char text[256] = "a: ";
    memset(text + 3, '[', 63);
    text[66] = '1';
    memset(text + 67, ']', 63);
    open_text(&document, text);
    yaml_close(&document);
}

static void files(void **state)
{
    (void)state;
    struct status status = {0};
    struct yaml_document document;
    yaml_read_file(&document, "tests/data/no_such.yaml", &status);
    assert_string_equal(status.message, "tests/data/no_such.yaml: No such file or directory");
    assert_int_equal(status.code, STATUS_BAD_INPUT);
    status = (struct status){0};
    yaml_read_file(&document, "tests/data", &status);
    assert_string_equal(status.message, "tests/data: not a regular file");
    status = (struct status){0};
    assert_int_equal(yaml_read_file(&document, "tests/data/tiny/tiny.yaml", &status), STATUS_OK);
    assert_string_equal(document.origin, "tests/data/tiny/tiny.yaml");
    yaml_close(&document);
}

static int read_behaves(const struct mutation *mutation, void *context)
{
    (void)context;
    struct status status = {0};
    struct yaml_document document;
    int code = yaml_read_text(&document, (const char *)mutation->bytes, mutation->length, "m.yaml",
                              &status);
    int misbehaved = code == STATUS_OK ? !document.root : !status.message[0] || document.root;
    yaml_close(&document);
    return misbehaved;
}

static void mutations(void **state)
{
    (void)state;
    static const char *const names[] = {"tests/data/tasks/inpainting_box.yaml",
                                        "tests/data/tiny/tiny.yaml"};
    for (int i = 0; i < 2; i++) {
        size_t length;
        unsigned char *bytes = mutate_load(names[i], &length);
        assert_non_null(bytes);
        assert_int_equal(mutate_run(names[i], bytes, length, 1000000 * (uint64_t)(i + 1), 5000,
                                    read_behaves, NULL),
                         0);
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(structure_and_lines),
        cmocka_unit_test(absent_and_null),
        cmocka_unit_test(typed_reads),
        cmocka_unit_test(refused_values),
        cmocka_unit_test(refused_documents),
        cmocka_unit_test(limits),
        cmocka_unit_test(files),
        cmocka_unit_test(mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
