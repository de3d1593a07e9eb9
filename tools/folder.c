/* resample solve of every picture in a folder: one folder of results each, and summary.csv. */
#include "tools/solve.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* "a/b.png" under the folder becomes SAVE_DIR/a_b; with its ending where that would be taken. */
static void name_directory(struct problem *problem, const struct picture_list *list, int index,
                           const char *folder, const char *save_dir)
{
    const char *path = list->paths[index] + strlen(folder);
    path += strspn(path, "/");
    const char *dot = strrchr(path, '.');
    int stem = (int)(dot - path);
    for (int i = 0; i < list->count; i++)
        if (i != index && strncmp(list->paths[i], list->paths[index],
                                  (size_t)(dot + 1 - list->paths[index])) == 0)
            stem = (int)strlen(path);
    int start = snprintf(problem->directory, sizeof problem->directory, "%.1024s/", save_dir);
    snprintf(problem->directory + start, sizeof problem->directory - (size_t)start, "%.*s", stem,
             path);
    for (char *c = problem->directory + start; *c; c++)
        if (*c == '/')
            *c = '_';
}

static int check_all(const struct session *session, const struct picture_list *list,
                     struct status *status)
{
    for (int i = 0; i < list->count && status_ok(status); i++) {
        struct problem problem = {.truth_path = list->paths[i]};
        problem_read_truth(&problem, session, status);
        problem_close(&problem);
    }
    return status->code;
}

struct summary {
    char *csv;
    size_t csv_bytes;
    FILE *stream;
    double sum, squares;
    int count;
};

static void add_row(struct summary *summary, const struct problem *problem,
                    const struct outcome *outcome)
{
    double psnr = outcome->reconstruction.psnr_db;
    fprintf(summary->stream, "\"%s\",%.4f,%.6f,%.4f,%.6f,%lld,%lld,%.3f\n", problem->truth_path,
            psnr, outcome->reconstruction.ssim, outcome->baseline.psnr_db, outcome->baseline.ssim,
            (long long)outcome->result.decoder_evaluations,
            (long long)outcome->result.unet_evaluations, outcome->result.seconds);
    summary->sum += psnr;
    summary->squares += psnr * psnr;
    summary->count++;
    printf("%s: %.2f dB PSNR, %.3f SSIM", problem->truth_path, psnr, outcome->reconstruction.ssim);
    if (problem->baseline)
        printf(" (%s %.2f dB, %.3f)", problem->baseline_name, outcome->baseline.psnr_db,
               outcome->baseline.ssim);
    printf("  -> %s/\n", problem->directory);
    fflush(stdout);
}

static int write_summary(struct summary *summary, const char *save_dir, struct status *status)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%.1024s/summary.csv", save_dir);
    if (fclose(summary->stream) != 0)
        return status_set(status, STATUS_FAILURE, "out of memory for %s", path);
    if (summary->count > 0) {
        struct status writing = {0};
        double mean = summary->sum / summary->count;
        double variance = fmax(summary->squares / summary->count - mean * mean, 0);
        if (file_write(path, summary->csv, summary->csv_bytes, &writing))
            status_set(status, writing.code, "%s", writing.message);
        printf("%d pictures: %.2f dB PSNR on average, deviation %.2f dB; %s\n", summary->count,
               mean, sqrt(variance), path);
    }
    free(summary->csv);
    return status->code;
}

int solve_folder(struct session *session, const char *folder, struct status *status)
{
    struct picture_list list;
    struct summary summary = {0};
    if (list_pictures(&list, folder, status) || check_all(session, &list, status))
        goto done;
    summary.stream = open_memstream(&summary.csv, &summary.csv_bytes);
    if (!summary.stream) {
        status_set(status, STATUS_FAILURE, "out of memory for summary.csv");
        goto done;
    }
    fprintf(summary.stream, "picture,psnr_db,ssim,baseline_psnr_db,baseline_ssim,"
                            "decoder_evaluations,unet_evaluations,seconds\n");
    uint64_t seed = session->settings.seed;
    for (int i = 0; i < list.count && status_ok(status); i++) {
        struct problem problem = {.truth_path = list.paths[i], .seed = seed + (uint64_t)i};
        struct outcome outcome = {0};
        name_directory(&problem, &list, i, folder, session->arguments->save_dir);
        if (solve_problem(session, &problem, list.count, i == 0, &outcome, status) == STATUS_OK)
            add_row(&summary, &problem, &outcome);
        outcome_free(&outcome);
        problem_close(&problem);
    }
    write_summary(&summary, session->arguments->save_dir, status);
done:
    list_free(&list);
    return status->code;
}
