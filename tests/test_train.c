/* resample train and resample finetune, on a small model and pictures that the test draws. */
#include "tests/support/cli.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define GRAY   "tests/data/networks/gray/gray"
#define MODEL  "--model " GRAY ".safetensors"
#define CONFIG "--ldm_config " GRAY ".yaml"
#define SMALL  "--batch 2 --seed 3 --warmup 2 --threads 1 --sheet-every 4 --save-every 4"

/* data/a/0.npy ... data/e/1.npy: five patients of two pictures, and a file that is no picture. */
static void prepare(const char *folder)
{
    char name[64], path[1024];
    snprintf(path, sizeof path, "%s/data", folder);
    assert_int_equal(mkdir(path, 0777), 0);
    for (int patient = 0; patient < 5; patient++) {
        snprintf(path, sizeof path, "%s/data/%c", folder, 'a' + patient);
        assert_int_equal(mkdir(path, 0777), 0);
        for (int i = 0; i < 2; i++) {
            float *picture = cli_picture(1, 20, 16, (unsigned)(2 * patient + i));
            snprintf(name, sizeof name, "data/%c/%d.npy", 'a' + patient, i);
            cli_write_array(folder, name, picture, 1, 1, 20, 16);
            free(picture);
        }
    }
    cli_write(folder, "data/b/broken.png", "\x89PNG\r\n\x1a\n....", 12);
}

/* The numbers of a key in log.jsonl, in order. */
static int read_log(const char *folder, const char *name, const char *key, double *values, int most)
{
    char *text = cli_text(folder, name);
    int count = 0;
    for (char *line = text; *line;) {
        size_t length = strcspn(line, "\n");
        cJSON *json = cJSON_ParseWithLength(line, length);
        const cJSON *item = cJSON_GetObjectItem(json, key);
        if (cJSON_IsNumber(item) && count < most)
            values[count++] = item->valuedouble;
        cJSON_Delete(json);
        line += length + (line[length] == '\n');
    }
    free(text);
    return count;
}

static void a_model_is_trained_from_nothing(void **state)
{
    const char *folder = *state;
    double steps[16], psnr[16], loss[16];
    prepare(folder);
    cli_ok(folder, "train autoencoder " CONFIG " --data @/data --save_dir @/first --steps 8 " SMALL
                   " --flip --rotate 5 --zoom 1.1 --shift 0.05");
    char *printed = cli_text(folder, "stdout");
    assert_non_null(strstr(printed, "skipped"));
    assert_non_null(strstr(printed, "broken.png"));
    assert_non_null(strstr(printed, "8 pictures to learn from, 2 held out"));
    free(printed);
    assert_int_equal(read_log(folder, "first/log.jsonl", "loss", loss, 16), 8);
    assert_int_equal(read_log(folder, "first/log.jsonl", "held_out_psnr_db", psnr, 16), 2);
    assert_int_equal(read_log(folder, "first/log.jsonl", "step", steps, 16), 10);
    for (int i = 0; i < 8; i++)
        assert_true(isfinite(loss[i]) && loss[i] > 0);
    assert_true(cli_exists(folder, "first/loss.png"));
    assert_true(cli_exists(folder, "first/sheets/step_000004.png"));
    assert_true(cli_exists(folder, "first/sheets/step_000008.png"));

    /* an autoencoder alone is a model without a UNet */
    float *picture = cli_picture(1, 16, 16, 1);
    cli_write_array(folder, "picture.npy", picture, 1, 1, 16, 16);
    free(picture);
    cli_ok(folder, "encode --model @/first/model --input @/picture.npy --output @/z.npy");
    cli_ok(folder, "decode --model @/first/model --input @/z.npy --output @/again.npy");
    cli_bad(folder, "needs a UNet", "sample --model @/first/model --count 1 --save_dir @/samples");

    cli_ok(folder, "train diffusion --model @/first/model --data @/data --save_dir @/second "
                   "--steps 8 " SMALL);
    assert_true(cli_exists(folder, "second/latents.npy"));
    assert_true(cli_exists(folder, "second/sheets/step_000008.png"));
    cli_ok(folder, "sample --model @/second/model --count 1 --ddim_steps 20 --save_dir @/samples");
    cli_ok(folder, "inspect @/second/model/model.safetensors --ldm_config " GRAY ".yaml --json");
    cli_ok(folder, "convert --model @/second/model --type f16 --output @/half.safetensors");
    cli_ok(folder, "finetune autoencoder --model @/second/model --data @/data/b --held_out @/data/a "
                   "--save_dir @/third --steps 4 " SMALL " --type f16 --schedule constant");
}

static void wait_for(const char *folder, const char *name)
{
    for (int i = 0; i < 6000 && !cli_exists(folder, name); i++)
        usleep(10000);
    assert_true(cli_exists(folder, name));
}

/* Ctrl-C ends with the state of the last whole step; the rest gives the same bytes. */
static void a_stopped_run_goes_on_to_the_same_bytes(void **state)
{
    const char *folder = *state;
    static const char command[] = "finetune %s " MODEL " --data @/data --save_dir @/%s --steps 120 "
                                  "--flip " SMALL " %s";
    double steps[2000];
    prepare(folder);
    int code, child = cli_start(folder, command, "diffusion", "stopped", "");
    wait_for(folder, "stopped/sheets/step_000004.png");
    kill(child, SIGINT);
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFEXITED(code));
    assert_int_equal(WEXITSTATUS(code), 130);
    int count = read_log(folder, "stopped/log.jsonl", "loss", steps, 2000);
    print_message("    stopped after %d steps\n", count);
    assert_true(count >= 4 && count < 120);
    cli_bad(folder, "--resume goes on", command, "diffusion", "stopped", "");
    cli_bad(folder, "clip", command, "diffusion", "stopped", "--resume --clip 3");
    cli_ok(folder, command, "diffusion", "stopped", "--resume");
    cli_ok(folder, command, "diffusion", "whole", "");
    assert_true(cli_same_bytes(folder, "stopped/state.safetensors", "whole/state.safetensors"));
    assert_true(
        cli_same_bytes(folder, "stopped/model/model.safetensors", "whole/model/model.safetensors"));
    assert_int_equal(read_log(folder, "stopped/log.jsonl", "loss", steps, 2000), 120);
}

static void bad_input_is_one_line(void **state)
{
    const char *folder = *state;
    prepare(folder);
    cli_bad(folder, "autoencoder or diffusion", "train " CONFIG " --data @/data --save_dir @/out");
    cli_bad(folder, "got 'unet'", "train unet " CONFIG " --data @/data --save_dir @/out");
    cli_bad(folder, "--data is missing", "train autoencoder " CONFIG " --save_dir @/out");
    cli_bad(folder, "--save_dir is missing", "train autoencoder " CONFIG " --data @/data");
    cli_bad(folder, "nowhere", "train autoencoder " CONFIG " --data @/nowhere --save_dir @/out");
    cli_bad(folder, "--low and --high",
            "train autoencoder " CONFIG " --data @/data --low 3 --save_dir @/out");
    cli_bad(folder, "no configuration", "train autoencoder --data @/data --save_dir @/out");
    cli_bad(folder, "no weights", "train diffusion " CONFIG " --data @/data --save_dir @/out");
    cli_bad(folder, "15 pixels",
            "train autoencoder " CONFIG " --size 15 --data @/data --save_dir @/out");
    cli_bad(folder, "--learning-rate",
            "train autoencoder " CONFIG " --learning-rate 2 --data @/data --save_dir @/out");
    cli_bad(folder, "there is no",
            "train autoencoder " CONFIG " --resume --data @/data --save_dir @/out");
    assert_false(cli_exists(folder, "out"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_model_is_trained_from_nothing, cli_setup, cli_teardown),
        cmocka_unit_test_setup_teardown(a_stopped_run_goes_on_to_the_same_bytes, cli_setup,
                                        cli_teardown),
        cmocka_unit_test_setup_teardown(bad_input_is_one_line, cli_setup, cli_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
