/* The command line, every form of it, on the tiny model. */
#include "tests/support/cli.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define TINY "--ldm_config tests/data/tiny/tiny.yaml --diffusion_config tests/data/tiny/tiny.ckpt"
/* few iterations: these tests are about files and flags */
#define SHORT "--ddim_steps 20 --pixel-iterations 3 --latent-iterations 3 --threads 1"

static const char blur_task[] =
    "conditioning:\n  method: ps\n  main_sampler: resample\n  params:\n    scale: 0.5\n"
    "data:\n  name: ffhq\n  root: %s\n"
    "measurement:\n  operator:\n    name: gaussian_blur\n    kernel_size: 13\n    intensity: 1.0\n"
    "  noise:\n    name: gaussian\n    sigma: 0.01\n";
static const char super_resolution_task[] =
    "measurement:\n  operator:\n    name: super_resolution\n"
    "    in_shape: !!python/tuple [1, 3, 256, 256]\n    scale_factor: 4\n"
    "  noise:\n    name: gaussian\n    sigma: 0.01\n";
static const char ct_task[] = "measurement:\n  operator:\n    name: ct_radon\n    views: 7\n"
                              "  noise:\n    name: gaussian\n    sigma: 0.01\n";

/* The task files, and truth.npy / truth.png: 3x64x64. */
static void prepare(const char *folder)
{
    char text[2048], path[1024];
    snprintf(text, sizeof text, blur_task, folder);
    cli_write_text(folder, "blur.yaml", text);
    cli_write_text(folder, "sr.yaml", super_resolution_task);
    cli_write_text(folder, "ct.yaml", ct_task);
    float *picture = cli_picture(3, 64, 64, 1);
    struct status status = {0};
    cli_write_array(folder, "truth.npy", picture, 1, 3, 64, 64);
    snprintf(path, sizeof path, "%s/truth.png", folder);
    assert_int_equal(png_write(path, picture, 3, 64, 64, NULL, &status), 0);
    free(picture);
}

static double distance(const char *folder, const char *name, const char *golden_path)
{
    struct array a = cli_array(folder, name), b = cli_array(".", golden_path);
    assert_int_equal(array_elements(&a), array_elements(&b));
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < array_elements(&a); i++) {
        double d = (double)a.values[i] - (double)b.values[i];
        difference += d * d;
        norm += (double)b.values[i] * (double)b.values[i];
    }
    array_free(&a);
    array_free(&b);
    return sqrt(difference / norm);
}

static double number(const cJSON *json, const char *key)
{
    const cJSON *item = cJSON_GetObjectItem(json, key);
    if (!cJSON_IsNumber(item))
        fail_msg("no number %s", key);
    return item->valuedouble;
}

/* ---- help ---- */

static void help_has_an_example_for_every_command(void **state)
{
    static const char *const commands[] = {"solve",   "measure", "adjoint", "memory",
                                           "sample",  "encode",  "decode",  "net",
                                           "inspect", "convert", "train",   "finetune"};
    for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++) {
        cli_ok(*state, "%s --help", commands[i]);
        char *by_flag = cli_text(*state, "stdout");
        cli_ok(*state, "help %s", commands[i]);
        char *by_command = cli_text(*state, "stdout");
        char example[64];
        snprintf(example, sizeof example, "resample %s ", commands[i]);
        assert_non_null(strstr(strstr(by_flag, "example:"), example));
        assert_string_equal(by_flag, by_command);
        free(by_flag);
        free(by_command);
    }
    cli_ok(*state, "--version");
    cli_ok(*state, "help");
}

/* ---- net ---- */

static void net_repeats_the_golden_values(void **state)
{
    cli_ok(*state,
           "net " TINY " --part unet --input tests/data/tiny/x.npy --t 250 --output @/eps.npy "
           "--cotangent tests/data/tiny/cot_eps.npy --gradient @/g.npy");
    assert_true(distance(*state, "eps.npy", "tests/data/tiny/eps_t250.npy") < 1e-4);
    assert_true(distance(*state, "g.npy", "tests/data/tiny/eps_vjp_t250.npy") < 1e-3);
    cli_ok(*state, "net " TINY " --part decoder --input tests/data/tiny/z.npy --output @/d.npy "
                   "--cotangent tests/data/tiny/cot_img.npy --gradient @/g.npy");
    assert_true(distance(*state, "d.npy", "tests/data/tiny/decode_quant.npy") < 1e-4);
    assert_true(distance(*state, "g.npy", "tests/data/tiny/decode_quant_vjp.npy") < 1e-3);
    cli_ok(*state, "net " TINY " --part decoder --no-quantize --input tests/data/tiny/z.npy "
                   "--output @/d.npy --cotangent=tests/data/tiny/cot_img.npy --gradient=@/g.npy");
    assert_true(distance(*state, "d.npy", "tests/data/tiny/decode_noquant.npy") < 1e-4);
    assert_true(distance(*state, "g.npy", "tests/data/tiny/decode_noquant_vjp.npy") < 1e-3);
    cli_ok(*state, "net " TINY " --part encoder --input tests/data/tiny/img.npy --output @/z.npy "
                   "--cotangent tests/data/tiny/cot_h.npy --gradient @/g.npy");
    assert_true(distance(*state, "z.npy", "tests/data/tiny/encode.npy") < 1e-4);
    assert_true(distance(*state, "g.npy", "tests/data/tiny/encode_vjp.npy") < 1e-3);
}

static void net_takes_several_pictures(void **state)
{
    float *latents = cli_picture(6, 16, 16, 3);
    cli_write_array(*state, "two.npy", latents, 2, 3, 16, 16);
    cli_write_array(*state, "second.npy", latents + 3 * 16 * 16, 1, 3, 16, 16);
    free(latents);
    cli_ok(*state, "net " TINY " --part decoder --input @/two.npy --output @/both.npy");
    cli_ok(*state, "net " TINY " --part decoder --input @/second.npy --output @/one.npy");
    struct array both = cli_array(*state, "both.npy"), one = cli_array(*state, "one.npy");
    assert_int_equal(both.shape[0], 2);
    int64_t count = array_elements(&one);
    for (int64_t i = 0; i < count; i++)
        assert_true(fabsf(both.values[count + i] - one.values[i]) < 1e-4f);
    array_free(&both);
    array_free(&one);
}

/* ---- measure, adjoint ---- */

static double dot(const char *folder, const char *a_name, const char *b_name)
{
    struct array a = cli_array(folder, a_name), b = cli_array(folder, b_name);
    assert_int_equal(array_elements(&a), array_elements(&b));
    double sum = 0;
    for (int64_t i = 0; i < array_elements(&a); i++)
        sum += (double)a.values[i] * (double)b.values[i];
    array_free(&a);
    array_free(&b);
    return sum;
}

static void adjoint_is_the_transpose(void **state)
{
    prepare(*state);
    static const char *const tasks[] = {"blur", "sr"};
    for (int i = 0; i < 2; i++) {
        cli_ok(*state,
               "measure --task_config @/%s.yaml --input @/truth.npy --output @/y.npy --noiseless",
               tasks[i]);
        struct array y = cli_array(*state, "y.npy");
        float *u = cli_picture((int)y.shape[1], (int)y.shape[2], (int)y.shape[3], 9);
        cli_write_array(*state, "u.npy", u, 1, (int)y.shape[1], (int)y.shape[2], (int)y.shape[3]);
        free(u);
        array_free(&y);
        cli_ok(*state,
               "adjoint --task_config @/%s.yaml --input @/u.npy --shape 3,64,64 --output @/x.npy",
               tasks[i]);
        double left = dot(*state, "y.npy", "u.npy"), right = dot(*state, "truth.npy", "x.npy");
        assert_true(fabs(left - right) < 1e-4 * (fabs(left) + 1));
    }
}

static void noise_follows_the_seed_alone(void **state)
{
    prepare(*state);
    const char *form = "measure --task_config @/blur.yaml --input @/truth.png --output @/%s.npy "
                       "--seed %d --threads %d";
    cli_ok(*state, form, "a", 5, 1);
    cli_ok(*state, form, "b", 5, 3);
    cli_ok(*state, form, "c", 6, 1);
    assert_true(cli_same_bytes(*state, "a.npy", "b.npy"));
    assert_false(cli_same_bytes(*state, "a.npy", "c.npy"));
}

/* ---- solve ---- */

static void check_trace(const char *folder, const char *name, int lines)
{
    static const char *const keys[] = {
        "j", "t", "iterations", "decoder_evaluations", "unet_evaluations", "seconds"};
    char *text = cli_text(folder, name);
    int count = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), count++) {
        cJSON *json = cJSON_Parse(line);
        assert_non_null(json);
        for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++)
            number(json, keys[i]);
        assert_true(cJSON_IsString(cJSON_GetObjectItem(json, "event")));
        assert_true(cJSON_HasObjectItem(json, "loss") && cJSON_HasObjectItem(json, "norm"));
        cJSON_Delete(json);
    }
    assert_int_equal(count, lines);
    free(text);
}

static void check_files(const char *folder, const char *directory)
{
    static const char *const names[] = {"recon.npy",       "recon.png",       "latent.npy",
                                        "measurement.npy", "measurement.png", "comparison.png",
                                        "trace.jsonl",     "result.json"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        char name[256];
        snprintf(name, sizeof name, "%s/%s", directory, names[i]);
        if (!cli_exists(folder, name))
            fail_msg("%s is missing", name);
    }
    char part[256];
    snprintf(part, sizeof part, "%s/trace.jsonl.part", directory);
    assert_false(cli_exists(folder, part));
}

static void solve_writes_what_it_says(void **state)
{
    prepare(*state);
    cli_ok(*state, "solve " TINY " --task_config @/blur.yaml --input @/truth.png --save_dir "
                   "@/out/deep " SHORT " --seed 3 --threads 2");
    check_files(*state, "out/deep");
    check_trace(*state, "out/deep/trace.jsonl", 21);
    struct array recon = cli_array(*state, "out/deep/recon.npy");
    const int64_t expected[4] = {1, 3, 64, 64};
    assert_int_equal(recon.rank, 4);
    assert_memory_equal(recon.shape, expected, sizeof expected);
    array_free(&recon);
    cJSON *json = cli_json(*state, "out/deep/result.json");
    const cJSON *settings = cJSON_GetObjectItem(json, "settings");
    const cJSON *metrics = cJSON_GetObjectItem(json, "metrics");
    assert_true(number(json, "seed") == 3 && number(settings, "sigma") == 0.01);
    assert_true(number(settings, "ddim_steps") == 20 && number(settings, "threads") == 2);
    assert_true(isfinite(number(metrics, "psnr_db")) && isfinite(number(metrics, "ssim")));
    number(cJSON_GetObjectItem(metrics, "baseline"), "psnr_db");
    assert_true(number(cJSON_GetObjectItem(json, "counts"), "unet_evaluations") == 25);
    assert_true(number(json, "peak_rss_bytes") > number(json, "plan_bytes") / 2);
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(json, "interrupted")));
    assert_true(cJSON_IsString(cJSON_GetObjectItem(json, "kernels")));
    cJSON_Delete(json);
    char *summary = cli_text(*state, "stdout");
    assert_non_null(strstr(summary, "dB"));
    assert_non_null(strstr(summary, "decoder passes"));
    free(summary);
}

static void solve_needs_no_truth_and_does_not_look_at_it(void **state)
{
    prepare(*state);
    const char *tasks[] = {"sr", "ct"};
    for (int i = 0; i < 2; i++) {
        cli_ok(*state, "measure --task_config @/%s.yaml --input @/truth.npy --output @/y.npy",
               tasks[i]);
        cli_ok(*state,
               "solve " TINY " --task_config @/%s.yaml --measurement @/y.npy --save_dir "
               "@/alone_%s " SHORT " --preset paper",
               tasks[i], tasks[i]);
        cli_ok(*state,
               "solve " TINY " --task_config @/%s.yaml --measurement @/y.npy --input "
               "@/truth.npy --save_dir @/beside_%s " SHORT " --preset paper",
               tasks[i], tasks[i]);
        char alone[64], beside[64];
        snprintf(alone, sizeof alone, "alone_%s", tasks[i]);
        check_files(*state, alone);
        snprintf(alone, sizeof alone, "alone_%s/recon.npy", tasks[i]);
        snprintf(beside, sizeof beside, "beside_%s/recon.npy", tasks[i]);
        assert_true(cli_same_bytes(*state, alone, beside));
        snprintf(alone, sizeof alone, "alone_%s/result.json", tasks[i]);
        cJSON *json = cli_json(*state, alone);
        assert_true(
            cJSON_IsNull(cJSON_GetObjectItem(cJSON_GetObjectItem(json, "metrics"), "psnr_db")));
        cJSON_Delete(json);
    }
}

static void solve_gives_the_same_bytes_for_any_threads(void **state)
{
    prepare(*state);
    static const int threads[] = {1, 2, 3, 7};
    for (int i = 0; i < 4; i++)
        cli_ok(*state,
               "solve " TINY " --task_config @/blur.yaml --input @/truth.npy --save_dir "
               "@/threads_%d " SHORT " --seed 1 --threads %d",
               threads[i], threads[i]);
    assert_true(cli_same_bytes(*state, "threads_1/recon.npy", "threads_2/recon.npy"));
    assert_true(cli_same_bytes(*state, "threads_1/recon.npy", "threads_3/recon.npy"));
    assert_true(cli_same_bytes(*state, "threads_1/recon.npy", "threads_7/recon.npy"));
    cli_ok(*state, "solve " TINY " --task_config @/blur.yaml --input @/truth.npy --save_dir "
                   "@/other " SHORT " --seed 2");
    assert_false(cli_same_bytes(*state, "threads_1/recon.npy", "other/recon.npy"));
}

#define FAST "--levels 3 --latent-levels 2 --iterations 2 --final-iterations 2 --pixel-iterations 3"

/* Without a flag of the other presets' schedule the fast preset runs. */
static void solve_is_fast_unless_told_otherwise(void **state)
{
    prepare(*state);
    cli_ok(*state, "solve " TINY " --task_config @/blur.yaml --input @/truth.npy --save_dir @/fast "
                   "--levels 3 --final-iterations 2 --pixel-iterations 5 --threads 1 --seed 4");
    check_files(*state, "fast");
    check_trace(*state, "fast/trace.jsonl", 4);
    cJSON *json = cli_json(*state, "fast/result.json");
    const cJSON *settings = cJSON_GetObjectItem(json, "settings");
    assert_string_equal(cJSON_GetObjectItem(settings, "preset")->valuestring, "fast");
    assert_true(number(settings, "levels") == 3 && number(settings, "sigma") == 0.01);
    const cJSON *counts = cJSON_GetObjectItem(json, "counts");
    assert_true(number(counts, "unet_evaluations") == 3);
    assert_true(number(counts, "decoder_vjps") == number(counts, "decoder_jvps"));
    assert_true(number(counts, "decoder_vjps") > 0);
    cJSON_Delete(json);
}

/* Several seeds: the mean of what each seed alone gives, and their deviation. */
static void solve_takes_several_samples(void **state)
{
    prepare(*state);
    cli_ok(*state, "solve " TINY " --task_config @/blur.yaml --input @/truth.npy --save_dir @/both "
                   "--samples 2 --seed 7 --preset fast " FAST);
    check_files(*state, "both");
    assert_true(cli_exists(*state, "both/deviation.png") &&
                cli_exists(*state, "both/sample_1.png"));
    cJSON *json = cli_json(*state, "both/result.json");
    assert_true(number(json, "samples") == 2);
    const cJSON *each = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "metrics"), "sample_psnr_db");
    assert_int_equal(cJSON_GetArraySize(each), 2);
    cJSON_Delete(json);
    struct array mean = cli_array(*state, "both/recon.npy"),
                 deviation = cli_array(*state, "both/deviation.npy"),
                 a = cli_array(*state, "both/sample_0.npy"),
                 b = cli_array(*state, "both/sample_1.npy");
    double spread = 0;
    for (int64_t i = 0; i < array_elements(&mean); i++) {
        assert_true(fabsf(mean.values[i] - (a.values[i] + b.values[i]) / 2) < 1e-6f);
        float half = fabsf(a.values[i] - b.values[i]) / sqrtf(2);
        assert_true(fabsf(deviation.values[i] - half) < 1e-4f);
        spread += deviation.values[i];
    }
    assert_true(spread > 0);
    array_free(&mean);
    array_free(&deviation);
    array_free(&a);
    array_free(&b);
    cli_ok(*state, "solve " TINY " --task_config @/blur.yaml --input @/truth.npy --save_dir @/one "
                   "--seed 7 --preset fast " FAST);
    assert_true(cli_same_bytes(*state, "both/sample_0.npy", "one/recon.npy"));
}

/* A noise level that nobody gives is read off the measurement, and that is said. */
static void solve_estimates_an_unknown_noise_level(void **state)
{
    prepare(*state);
    cli_write_text(*state, "unknown.yaml",
                   "measurement:\n  operator:\n    name: gaussian_blur\n    kernel_size: 13\n"
                   "    intensity: 1.0\n  noise:\n    name: gaussian\n");
    cli_ok(*state, "measure --task_config @/blur.yaml --input @/truth.npy --sigma 0.05 --output "
                   "@/y.npy");
    cli_ok(*state, "solve " TINY " --task_config @/unknown.yaml --measurement @/y.npy --save_dir "
                   "@/estimated --preset fast " FAST);
    char *notes = cli_text(*state, "stderr");
    assert_non_null(strstr(notes, "estimated from the measurement"));
    free(notes);
    cJSON *json = cli_json(*state, "estimated/result.json");
    const cJSON *settings = cJSON_GetObjectItem(json, "settings");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(settings, "sigma_estimated")));
    assert_true(fabs(number(settings, "sigma") / 0.05 - 1) < 0.15);
    cJSON_Delete(json);
}

static void solve_takes_sizes_other_than_the_models(void **state)
{
    prepare(*state);
    float *picture = cli_picture(3, 48, 80, 2);
    cli_write_array(*state, "wide.npy", picture, 1, 3, 48, 80);
    free(picture);
    cli_ok(*state,
           "solve " TINY " --task_config @/sr.yaml --input @/wide.npy --save_dir @/wide " SHORT);
    struct array recon = cli_array(*state, "wide/recon.npy");
    assert_true(recon.shape[2] == 48 && recon.shape[3] == 80);
    array_free(&recon);
}

static void solve_takes_injected_noise(void **state)
{
    prepare(*state);
    float *draws = cli_picture(3 * 64, 16, 16, 4);
    cli_write_array(*state, "draws.npy", draws, 64, 3, 16, 16);
    cli_write_array(*state, "few.npy", draws, 1, 3, 16, 16);
    cli_write_array(*state, "misshapen.npy", draws, 48, 4, 16, 16);
    free(draws);
    const char *form = "solve " TINY " --task_config @/blur.yaml --input @/truth.npy --save_dir "
                       "@/%s " SHORT " --noise @/%s.npy --measurement @/y.npy --seed %d";
    cli_ok(*state, "measure --task_config @/blur.yaml --input @/truth.npy --output @/y.npy");
    cli_ok(*state, form, "a", "draws", 1);
    cli_ok(*state, form, "b", "draws", 2);
    assert_true(cli_same_bytes(*state, "a/recon.npy", "b/recon.npy"));
    cli_bad(*state, "few.npy", form, "c", "few", 1);
    cli_bad(*state, "misshapen.npy", form, "c", "misshapen", 1);
    assert_false(cli_exists(*state, "c"));
}

/* A folder of three pictures, two of the same name with different endings. */
static void prepare_folder(const char *folder)
{
    char path[1024];
    struct status status = {0};
    snprintf(path, sizeof path, "%s/pictures", folder);
    assert_int_equal(mkdir(path, 0777), 0);
    snprintf(path, sizeof path, "%s/pictures/sub", folder);
    assert_int_equal(mkdir(path, 0777), 0);
    static const char *const names[] = {"b", "a", "sub/c"};
    for (unsigned i = 0; i < 3; i++) {
        float *picture = cli_picture(3, 64, 64, i);
        snprintf(path, sizeof path, "%s/pictures/%s.png", folder, names[i]);
        assert_int_equal(png_write(path, picture, 3, 64, 64, NULL, &status), 0);
        free(picture);
    }
}

static void solve_takes_a_folder(void **state)
{
    prepare(*state);
    prepare_folder(*state);
    cli_ok(*state,
           "solve " TINY " --task_config @/blur.yaml --input @/pictures/ --save_dir @/out " SHORT);
    check_files(*state, "out/a");
    check_files(*state, "out/b");
    check_files(*state, "out/sub_c");
    char *csv = cli_text(*state, "out/summary.csv");
    assert_non_null(strstr(csv, "psnr_db"));
    assert_true(strstr(csv, "a.png") < strstr(csv, "b.png") &&
                strstr(csv, "b.png") < strstr(csv, "c.png"));
    free(csv);
}

static void solve_takes_the_official_scripts_form(void **state)
{
    char text[512];
    prepare(*state);
    prepare_folder(*state);
    snprintf(text, sizeof text, "%s/pictures", (char *)*state);
    char task[2048];
    snprintf(task, sizeof task, blur_task, text);
    cli_write_text(*state, "official.yaml", task);
    cli_ok(*state, "solve --ldm_config=tests/data/tiny/tiny.yaml --diffusion_config "
                   "tests/data/tiny/tiny.ckpt --task_config @/official.yaml --ddim_steps 20 "
                   "--ddim_eta 0.0 --n_samples_per_class 1 --ddim_scale 1.0 --gpu 0 --save_dir "
                   "@/results --pixel_iterations 3 --latent_iterations 3");
    check_files(*state, "results/a");
    check_files(*state, "results/sub_c");
    assert_true(cli_exists(*state, "results/summary.csv"));
    char *notes = cli_text(*state, "stderr");
    assert_non_null(strstr(notes, "--gpu"));
    free(notes);
}

static void solve_saves_what_it_reached_when_interrupted(void **state)
{
    prepare(*state);
    int process = cli_start(*state, "solve " TINY " --task_config @/blur.yaml --input @/truth.npy "
                                    "--save_dir @/cut --ddim_steps 500 --threads 1");
    for (int i = 0; i < 600 && !cli_exists(*state, "cut/trace.jsonl.part"); i++)
        usleep(50000);
    for (int i = 0; i < 600; i++) { /* until a step is in the trace */
        char *trace = cli_text(*state, "cut/trace.jsonl.part");
        bool begun = strchr(trace, '\n');
        free(trace);
        if (begun)
            break;
        usleep(50000);
    }
    int status;
    assert_int_equal(kill(process, SIGINT), 0);
    assert_int_equal(waitpid(process, &status, 0), process);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 130);
    static const char *const names[] = {"latent.npy", "measurement.npy", "trace.jsonl"};
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "cut/%s", names[i]);
        assert_true(cli_exists(*state, name));
    }
    cJSON *json = cli_json(*state, "cut/result.json");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(json, "interrupted")));
    cJSON_Delete(json);
}

/* ---- memory, inspect, sample, encode, decode, convert ---- */

static void memory_plans_without_weights(void **state)
{
    prepare(*state);
    const char *form = "memory --ldm_config tests/data/tiny/tiny.yaml --task_config @/blur.yaml "
                       "--json --size %d";
    cli_ok(*state, form, 64);
    cJSON *small = cli_json(*state, "stdout");
    double parts = number(small, "weights_bytes") + number(small, "pinned_bytes") +
                   number(small, "activations_bytes") + number(small, "workspace_bytes");
    double total = number(small, "total_bytes");
    assert_true(total > 0 && fabs(parts - total) < 0.01 * total);
    cli_ok(*state, form, 128);
    cJSON *large = cli_json(*state, "stdout");
    assert_true(number(large, "activations_bytes") > 2 * number(small, "activations_bytes"));
    cJSON_Delete(small);
    cJSON_Delete(large);
    cli_bad(*state, "memory",
            "memory --ldm_config tests/data/tiny/tiny.yaml --task_config "
            "@/blur.yaml --memory-limit 1M");
    cli_ok(*state, "memory " TINY " --task_config @/blur.yaml --memory-limit %.0f", 0.95 * total);
}

static void inspect_lists_tensors_and_misfits(void **state)
{
    cli_ok(*state, "inspect tests/data/tiny/tiny.ckpt --ldm_config tests/data/tiny/tiny.yaml "
                   "--json");
    cJSON *json = cli_json(*state, "stdout");
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "missing")), 0);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "misshapen")), 0);
    assert_true(cJSON_GetArraySize(cJSON_GetObjectItem(json, "tensors")) > 100);
    cJSON_Delete(json);

    char *yaml = cli_text(".", "tests/data/tiny/tiny.yaml"), changed[8192];
    char *place = strstr(yaml, "n_embed: 64");
    assert_non_null(place);
    snprintf(changed, sizeof changed, "%.*sn_embed: 32%s", (int)(place - yaml), yaml,
             place + strlen("n_embed: 64"));
    cli_write_text(*state, "changed.yaml", changed);
    free(yaml);
    cli_ok(*state, "inspect tests/data/tiny/tiny.ckpt --ldm_config @/changed.yaml --json");
    json = cli_json(*state, "stdout");
    const cJSON *misshapen = cJSON_GetObjectItem(json, "misshapen");
    assert_int_equal(cJSON_GetArraySize(misshapen), 1);
    assert_non_null(strstr(cJSON_GetArrayItem(misshapen, 0)->valuestring, "embedding"));
    cJSON_Delete(json);
    cli_ok(*state, "inspect tests/data/tiny/tiny.ckpt");
}

static void sample_draws_by_seed(void **state)
{
    cli_ok(*state, "sample " TINY " --save_dir @/a --count 2 --ddim_steps 4 --seed 1");
    cli_ok(*state, "sample " TINY " --save_dir @/b --count 1 --ddim_steps 4 --seed 1 --threads 3");
    assert_true(cli_exists(*state, "a/sample_0001.png"));
    assert_true(cli_same_bytes(*state, "a/sample_0000.npy", "b/sample_0000.npy"));
    assert_false(cli_same_bytes(*state, "a/sample_0000.npy", "a/sample_0001.npy"));
}

static void encode_and_decode_are_the_networks(void **state)
{
    prepare(*state);
    cli_ok(*state, "encode " TINY " --input @/truth.npy --output @/z.npy");
    cli_ok(*state, "net " TINY " --part encoder --input @/truth.npy --output @/z2.npy");
    assert_true(cli_same_bytes(*state, "z.npy", "z2.npy"));
    cli_ok(*state, "decode " TINY " --input @/z.npy --output @/x.npy");
    cli_ok(*state, "net " TINY " --part decoder --input @/z.npy --output @/x2.npy");
    assert_true(cli_same_bytes(*state, "x.npy", "x2.npy"));
    cli_ok(*state, "decode " TINY " --input @/z.npy --output @/x.png");
    cli_ok(*state, "encode " TINY " --input @/x.png --output @/z3.npy");
}

static void convert_keeps_the_model(void **state)
{
    cli_ok(*state, "convert " TINY " --type f32 --output @/model.safetensors");
    const char *form = "net %s --part unet --t 7 --input tests/data/tiny/x.npy --output @/%s.npy";
    cli_ok(*state, form, TINY, "original");
    cli_ok(*state, form, "--model @/model.safetensors", "converted");
    cli_ok(*state, form, "@/model.safetensors", "positional");
    assert_true(cli_same_bytes(*state, "original.npy", "converted.npy"));
    assert_true(cli_same_bytes(*state, "original.npy", "positional.npy"));
    cli_ok(*state, "convert " TINY " --output @/half.safetensors");
    cli_ok(*state, form, "--model @/half.safetensors", "half");
    char path[1024];
    snprintf(path, sizeof path, "%s/original.npy", (char *)*state);
    struct array a = cli_array(*state, "original.npy"), b = cli_array(*state, "half.npy");
    double difference = 0;
    for (int64_t i = 0; i < array_elements(&a); i++)
        difference = fmax(difference, fabs((double)a.values[i] - (double)b.values[i]));
    assert_true(difference > 0 && difference < 0.05);
    array_free(&a);
    array_free(&b);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, cli_setup, cli_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(help_has_an_example_for_every_command),
        IN_FOLDER(net_repeats_the_golden_values),
        IN_FOLDER(net_takes_several_pictures),
        IN_FOLDER(adjoint_is_the_transpose),
        IN_FOLDER(noise_follows_the_seed_alone),
        IN_FOLDER(solve_writes_what_it_says),
        IN_FOLDER(solve_needs_no_truth_and_does_not_look_at_it),
        IN_FOLDER(solve_gives_the_same_bytes_for_any_threads),
        IN_FOLDER(solve_is_fast_unless_told_otherwise),
        IN_FOLDER(solve_takes_several_samples),
        IN_FOLDER(solve_estimates_an_unknown_noise_level),
        IN_FOLDER(solve_takes_sizes_other_than_the_models),
        IN_FOLDER(solve_takes_injected_noise),
        IN_FOLDER(solve_takes_a_folder),
        IN_FOLDER(solve_takes_the_official_scripts_form),
        IN_FOLDER(solve_saves_what_it_reached_when_interrupted),
        IN_FOLDER(memory_plans_without_weights),
        IN_FOLDER(inspect_lists_tensors_and_misfits),
        IN_FOLDER(sample_draws_by_seed),
        IN_FOLDER(encode_and_decode_are_the_networks),
        IN_FOLDER(convert_keeps_the_model),
    };
    return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
