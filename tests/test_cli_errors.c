/* Bad input to the command line: exit status 2, one line that names the culprit, and nothing left
 * behind. */
#include "tests/support/cli.h"
#include "tests/support/mutate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define TINY  "--ldm_config tests/data/tiny/tiny.yaml --diffusion_config tests/data/tiny/tiny.ckpt"
#define SOLVE "solve " TINY " --save_dir @/out --ddim_steps 20 "

static const char blur_task[] = "measurement:\n  operator:\n    name: gaussian_blur\n"
                                "    kernel_size: 13\n    intensity: 1.0\n"
                                "  noise:\n    name: gaussian\n    sigma: 0.01\n";

struct refusal {
    const char *culprit, *arguments;
};

static void refuse_all(const char *folder, const struct refusal *refusals, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        cli_bad(folder, refusals[i].culprit, "%s", refusals[i].arguments);
        if (cli_exists(folder, "out") || cli_exists(folder, "out.npy"))
            fail_msg("resample %s left output", refusals[i].arguments);
    }
}
#define REFUSE_ALL(folder, refusals)                                                               \
    refuse_all(folder, refusals, sizeof refusals / sizeof *refusals)

static void write_picture(const char *folder, const char *name, int channels, int height, int width)
{
    char path[1024];
    struct status status = {0};
    float *picture = cli_picture(channels, height, width, 1);
    snprintf(path, sizeof path, "%s/%s.npy", folder, name);
    const int64_t shape[4] = {1, channels, height, width};
    assert_int_equal(npy_write(path, picture, 4, shape, &status), 0);
    snprintf(path, sizeof path, "%s/%s.png", folder, name);
    if (channels == 1 || channels == 3)
        assert_int_equal(png_write(path, picture, channels, height, width, NULL, &status), 0);
    free(picture);
}

static void prepare(const char *folder)
{
    cli_write_text(folder, "blur.yaml", blur_task);
    write_picture(folder, "truth", 3, 64, 64);
}

/* `from` cut to its first `keep` thousandths, with `flip` of its remaining bytes inverted from
 * `at` thousandths on. */
static void damage(const char *folder, const char *from, const char *to, int keep, int at, int flip)
{
    size_t length;
    unsigned char *bytes = mutate_load(from, &length);
    assert_non_null(bytes);
    for (int i = 0; i < flip; i++)
        bytes[length * (size_t)at / 1000 + (size_t)i] ^= 0xff;
    cli_write(folder, to, bytes, length * (size_t)keep / 1000);
    free(bytes);
}

static void damage_own(const char *folder, const char *from, const char *to, int keep, int at,
                       int flip)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, from);
    damage(folder, path, to, keep, at, flip);
}

static void usage(void **state)
{
    prepare(*state);
    static const struct refusal refusals[] = {
        {"no command", ""},
        {"slove", "slove"},
        {"--inptu", SOLVE "--task_config @/blur.yaml --inptu @/truth.npy"},
        {"--input", SOLVE "--task_config @/blur.yaml --inptu @/truth.npy"},
        {"--views", "net " TINY " --views 3"},
        {"--seed", SOLVE "--task_config @/blur.yaml --input @/truth.npy --seed"},
        {"--seed", SOLVE "--task_config @/blur.yaml --input @/truth.npy --seed -1"},
        {"--ddim_eta", SOLVE "--task_config @/blur.yaml --input @/truth.npy --ddim_eta 2"},
        {"--ddim_steps", SOLVE "--task_config @/blur.yaml --input @/truth.npy --ddim_steps 5x"},
        {"--preset", SOLVE "--task_config @/blur.yaml --input @/truth.npy --preset fastest"},
        {"--memory-limit", SOLVE "--task_config @/blur.yaml --input @/truth.npy --memory-limit 4X"},
        {"--memory-limit",
         SOLVE "--task_config @/blur.yaml --input @/truth.npy --memory-limit 100K"},
        {"CUDA", SOLVE "--task_config @/blur.yaml --input @/truth.npy --device cuda"},
        {"bf16",
         SOLVE "--task_config @/blur.yaml --input @/truth.npy --device cpu --precision bf16"},
        {"bf16", SOLVE "--task_config @/blur.yaml --input @/truth.npy --precision bf16"},
        {"--use-ema", SOLVE "--task_config @/blur.yaml --input @/truth.npy --use-ema=yes"},
        {"--task_config", SOLVE "--input @/truth.npy"},
        {"--save_dir", "solve " TINY " --task_config @/blur.yaml --input @/truth.npy"},
        {"model", "solve --save_dir @/out --task_config @/blur.yaml --input @/truth.npy"},
        {"two models", SOLVE "--task_config @/blur.yaml --input @/truth.npy --model models/ct-128"},
        {"nothing to solve", SOLVE "--task_config @/blur.yaml"},
        {"--part", "net " TINY " --input tests/data/tiny/x.npy --output @/out.npy"},
        {"--t", "net " TINY " --part unet --input tests/data/tiny/x.npy --output @/out.npy"},
        {"--t", "net " TINY " --part unet --t 1000 --input tests/data/tiny/x.npy "
                "--output @/out.npy"},
        {"--gradient", "net " TINY " --part decoder --input tests/data/tiny/z.npy --output "
                       "@/out.npy --cotangent tests/data/tiny/cot_img.npy"},
        {"--shape", "adjoint --task_config @/blur.yaml --input @/truth.npy --output @/out.npy"},
        {"--shape", "adjoint --task_config @/blur.yaml --input @/truth.npy --output @/out.npy "
                    "--shape 3,64"},
        {"surplus", "measure surplus --task_config @/blur.yaml --input @/truth.npy --output "
                    "@/out.npy"},
        {"FILE", "inspect"},
    };
    REFUSE_ALL(*state, refusals);
    setenv("RESAMPLE_ISA", "mmx", 1);
    cli_bad(*state, "RESAMPLE_ISA", SOLVE "--task_config @/blur.yaml --input @/truth.npy");
    unsetenv("RESAMPLE_ISA");
}

static void missing_and_unwritable_files(void **state)
{
    prepare(*state);
    static const struct refusal refusals[] = {
        {"no.yaml", SOLVE "--task_config @/no.yaml --input @/truth.npy"},
        {"no.npy", SOLVE "--task_config @/blur.yaml --input @/no.npy"},
        {"no.npy", SOLVE "--task_config @/blur.yaml --measurement @/no.npy"},
        {"no.npy", SOLVE "--task_config @/blur.yaml --input @/truth.npy --noise @/no.npy"},
        {"no.ckpt", "inspect @/no.ckpt"},
        {"no-model", "solve --model @/no-model --task_config @/blur.yaml --input @/truth.npy "
                     "--save_dir @/out"},
        {"blur.yaml", "solve " TINY " --task_config @/blur.yaml --input @/truth.npy --save_dir "
                      "@/blur.yaml"},
        {"blur.yaml/x", "solve " TINY " --task_config @/blur.yaml --input @/truth.npy --save_dir "
                        "@/blur.yaml/x"},
        {"/proc/x", "solve " TINY " --task_config @/blur.yaml --input @/truth.npy --save_dir "
                    "/proc/x"},
        {"no/y.npy", "measure --task_config @/blur.yaml --input @/truth.npy --output @/no/y.npy"},
        {"folder", "measure --task_config @/blur.yaml --input @/truth.npy --output @"},
        {"no/z.npy", "encode " TINY " --input @/truth.npy --output @/no/z.npy"},
        {"no/m", "convert " TINY " --output @/no/m.safetensors"},
    };
    REFUSE_ALL(*state, refusals);
}

static void damaged_checkpoints(void **state)
{
    prepare(*state);
    const char *ckpt = "tests/data/tiny/tiny.ckpt";
    cli_ok(*state, "convert " TINY " --output @/whole.safetensors");
    damage(*state, ckpt, "cut.ckpt", 500, 0, 0);
    damage(*state, ckpt, "nearly.ckpt", 999, 0, 0);
    damage(*state, ckpt, "flipped.ckpt", 1000, 500, 4);
    damage(*state, ckpt, "start.ckpt", 1000, 0, 4);
    damage_own(*state, "whole.safetensors", "cut.safetensors", 500, 0, 0);
    damage_own(*state, "whole.safetensors", "length.safetensors", 1000, 0, 8);
    damage_own(*state, "whole.safetensors", "header.safetensors", 1000, 1, 64);
    cli_write_text(*state, "text.ckpt", "no checkpoint at all\n");
    cli_write_text(*state, "empty.ckpt", "");
    static const char *const names[] = {"cut.ckpt",   "nearly.ckpt", "flipped.ckpt",
                                        "start.ckpt", "text.ckpt",   "empty.ckpt"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        cli_bad(*state, names[i],
                "solve --ldm_config tests/data/tiny/tiny.yaml --diffusion_config @/%s "
                "--task_config @/blur.yaml --input @/truth.npy --save_dir @/out",
                names[i]);
        cli_bad(*state, names[i], "inspect @/%s", names[i]);
        cli_bad(*state, names[i],
                "convert --ldm_config tests/data/tiny/tiny.yaml --diffusion_config @/%s --output "
                "@/out.npy",
                names[i]);
    }
    static const char *const ours[] = {"cut.safetensors", "length.safetensors",
                                       "header.safetensors"};
    for (unsigned i = 0; i < sizeof ours / sizeof *ours; i++)
        cli_bad(*state, ours[i],
                "decode --model @/%s --input tests/data/tiny/z.npy --output "
                "@/out.npy",
                ours[i]);
    assert_false(cli_exists(*state, "out"));
    assert_false(cli_exists(*state, "out.npy"));
}

static void checkpoints_of_another_model(void **state)
{
    prepare(*state);
    char *yaml = cli_text(".", "tests/data/tiny/tiny.yaml"), changed[8192];
    char *place = strstr(yaml, "model_channels: 32");
    assert_non_null(place);
    snprintf(changed, sizeof changed, "%.*smodel_channels: 64%s", (int)(place - yaml), yaml,
             place + strlen("model_channels: 32"));
    cli_write_text(*state, "wider.yaml", changed);
    cli_write_text(*state, "cut.yaml", "model:\n  params: {unet_config: [\n");
    snprintf(changed, sizeof changed, "%.*sn_embed: many\n", (int)(place - yaml), yaml);
    free(yaml);
    static const struct refusal refusals[] = {
        {"time_embed.0.weight",
         "solve --ldm_config @/wider.yaml --diffusion_config tests/data/tiny/tiny.ckpt "
         "--task_config @/blur.yaml --input @/truth.npy --save_dir @/out"},
        {"cut.yaml", "solve --ldm_config @/cut.yaml --diffusion_config tests/data/tiny/tiny.ckpt "
                     "--task_config @/blur.yaml --input @/truth.npy --save_dir @/out"},
        {"cut.yaml", "memory --ldm_config @/cut.yaml --task_config @/blur.yaml"},
        {"EMA", SOLVE "--task_config @/blur.yaml --input @/truth.npy --use-ema"},
    };
    REFUSE_ALL(*state, refusals);
}

static void bad_task_files(void **state)
{
    static const char *const tasks[][2] = {
        {"name: swirl", "measurement:\n  operator:\n    name: swirl\n"},
        {"kernel_sise", "measurement:\n  operator:\n    name: gaussian_blur\n"
                        "    kernel_sise: 3\n"},
        {"kernel_size", "measurement:\n  operator:\n    name: gaussian_blur\n"
                        "    kernel_size: big\n"},
        {"scale_factor", "measurement:\n  operator:\n    name: super_resolution\n"
                         "    scale_factor: 0\n"},
        {"no_mask.png", "measurement:\n  operator:\n    name: inpainting\n"
                        "    mask: no_mask.png\n"},
        {"salt", "measurement:\n  operator:\n    name: denoise\n  noise:\n    name: salt\n"},
        {"sigma", "measurement:\n  operator:\n    name: denoise\n  noise:\n    name: gaussian\n"
                  "    sigma: -1\n"},
        {"measurement", "data:\n  name: ffhq\n"},
        {"task.yaml", "measurement: [1, 2\n"},
        {"task.yaml", "\x01\x02\x03"},
        {"task.yaml", ""},
    };
    prepare(*state);
    for (unsigned i = 0; i < sizeof tasks / sizeof *tasks; i++) {
        cli_write_text(*state, "task.yaml", tasks[i][1]);
        const char *culprit = i == 0 ? "swirl" : tasks[i][0];
        cli_bad(*state, culprit, SOLVE "--task_config @/task.yaml --input @/truth.npy");
        cli_bad(*state, culprit,
                "measure --task_config @/task.yaml --input @/truth.npy --output "
                "@/out.npy");
    }
    cli_write_text(*state, "task.yaml", "measurement:\n  operator:\n    name: denoise\n");
    cli_bad(*state, "noise level",
            SOLVE "--task_config @/task.yaml --measurement @/truth.npy --preset paper");
    cli_bad(*state, "sigma", SOLVE "--task_config @/task.yaml --input @/truth.npy");
    cli_bad(*state, "sigma",
            "measure --task_config @/task.yaml --input @/truth.npy --output "
            "@/out.npy");
    assert_false(cli_exists(*state, "out"));
    assert_false(cli_exists(*state, "out.npy"));
}

static void damaged_pictures_and_arrays(void **state)
{
    static const unsigned char jpeg[] = {0xff, 0xd8, 0xff, 0xe0, 0x00, 0x10, 'J', 'F', 'I', 'F', 0};
    prepare(*state);
    damage_own(*state, "truth.png", "cut.png", 500, 0, 0);
    damage_own(*state, "truth.png", "flipped.png", 1000, 500, 2);
    damage_own(*state, "truth.npy", "cut.npy", 900, 0, 0);
    damage_own(*state, "truth.npy", "flipped.npy", 1000, 1, 16);
    cli_write(*state, "cut.jpg", jpeg, sizeof jpeg);
    cli_write_text(*state, "text.png", "not a picture\n");
    float *picture = cli_picture(3, 64, 64, 1);
    picture[777] = NAN;
    cli_write_array(*state, "nan.npy", picture, 1, 3, 64, 64);
    picture[777] = INFINITY;
    cli_write_array(*state, "inf.npy", picture, 1, 3, 64, 64);
    free(picture);
    static const char *const names[] = {"cut.png", "flipped.png", "cut.npy", "flipped.npy",
                                        "cut.jpg", "text.png",    "nan.npy", "inf.npy"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        cli_bad(*state, names[i], SOLVE "--task_config @/blur.yaml --input @/%s", names[i]);
        cli_bad(*state, names[i], SOLVE "--task_config @/blur.yaml --measurement @/%s", names[i]);
        cli_bad(*state, names[i],
                "measure --task_config @/blur.yaml --input @/%s --output @/out.npy", names[i]);
        cli_bad(*state, names[i], "encode " TINY " --input @/%s --output @/out.npy", names[i]);
    }
    assert_false(cli_exists(*state, "out"));
    assert_false(cli_exists(*state, "out.npy"));
}

static void wrong_shapes_and_sizes(void **state)
{
    prepare(*state);
    write_picture(*state, "odd", 3, 60, 65);
    write_picture(*state, "two", 2, 64, 64);
    write_picture(*state, "small", 3, 32, 32);
    cli_write_text(*state, "ct.yaml",
                   "measurement:\n  operator:\n    name: ct_radon\n"
                   "    views: 7\n  noise:\n    name: gaussian\n"
                   "    sigma: 0.01\n");
    static const struct refusal refusals[] = {
        {"64x64", SOLVE "--task_config @/blur.yaml --input @/odd.png"},
        {"64x64", SOLVE "--task_config @/blur.yaml --measurement @/odd.npy"},
        {"two.npy", SOLVE "--task_config @/blur.yaml --input @/two.npy"},
        {"small.npy", SOLVE "--task_config @/blur.yaml --input @/truth.npy --measurement "
                            "@/small.npy"},
        {"truth.npy", SOLVE "--task_config @/ct.yaml --measurement @/truth.npy"},
        {"72x72", "memory " TINY " --task_config @/blur.yaml --size 70"},
        {"24x24", "sample " TINY " --save_dir @/out --size 20"},
        {"small.npy", "adjoint --task_config @/blur.yaml --input @/small.npy --shape 3,64,64 "
                      "--output @/out.npy"},
        {"odd.png", "encode " TINY " --input @/odd.png --output @/out.npy"},
        {"two.npy", "decode " TINY " --input @/two.npy --output @/out.npy"},
        {"--cotangent", "net " TINY " --part decoder --input tests/data/tiny/z.npy --output "
                        "@/out.npy --cotangent tests/data/tiny/z.npy --gradient @/g.npy"},
    };
    REFUSE_ALL(*state, refusals);
}

static void folders_are_checked_before_the_first_solve(void **state)
{
    char path[1024];
    prepare(*state);
    snprintf(path, sizeof path, "%s/pictures", (char *)*state);
    assert_int_equal(mkdir(path, 0777), 0);
    static const struct refusal empty[] = {
        {"pictures", SOLVE "--task_config @/blur.yaml --input @/pictures"}};
    REFUSE_ALL(*state, empty);
    write_picture(path, "a", 3, 64, 64);
    write_picture(path, "z", 3, 60, 64);
    static const struct refusal refusals[] = {
        {"z.png", SOLVE "--task_config @/blur.yaml --input @/pictures"},
        {"--measurement",
         SOLVE "--task_config @/blur.yaml --input @/pictures --measurement @/truth.npy"},
    };
    REFUSE_ALL(*state, refusals);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, cli_setup, cli_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(usage),
        IN_FOLDER(missing_and_unwritable_files),
        IN_FOLDER(damaged_checkpoints),
        IN_FOLDER(checkpoints_of_another_model),
        IN_FOLDER(bad_task_files),
        IN_FOLDER(damaged_pictures_and_arrays),
        IN_FOLDER(wrong_shapes_and_sizes),
        IN_FOLDER(folders_are_checked_before_the_first_solve),
    };
    return cmocka_run_group_tests_name("cli errors", tests, NULL, NULL);
}
