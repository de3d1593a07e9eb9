#include "tools/progress.h"

#include "tools/command.h"

#include <math.h>
#include <unistd.h>

void progress_start(struct progress *progress)
{
    *progress = (struct progress){.terminal = isatty(STDERR_FILENO) == 1};
}

static void format_line(char *line, size_t size, const struct resample_progress *state)
{
    char left[32];
    size_t used =
        (size_t)snprintf(line, size, "%-8s step %d/%d", state->stage, state->step, state->steps);
    if (state->iteration_limit > 0)
        used += (size_t)snprintf(line + used, size - used, "  iteration %lld/%lld",
                                 (long long)state->iteration, (long long)state->iteration_limit);
    if (isfinite(state->residual))
        used += (size_t)snprintf(line + used, size - used, "  residual %.4g", state->residual);
    if (isfinite(state->residual) && isfinite(state->target))
        used += (size_t)snprintf(line + used, size - used, " -> %.4g", state->target);
    if (isfinite(state->seconds_left))
        snprintf(line + used, size - used, "  %s left",
                 duration_text(left, fmax(state->seconds_left, 0)));
}

static bool is_due(const struct progress *progress, double seconds)
{
    return seconds - progress->last_seconds >= (progress->terminal ? 0.1 : 10);
}

void progress_print(struct progress *progress, double seconds, const char *line)
{
    if (!is_due(progress, seconds))
        return;
    progress->last_seconds = seconds;
    if (progress->terminal)
        fprintf(stderr, "\r\033[K%s", line);
    else
        fprintf(stderr, "resample: %s\n", line);
    fflush(stderr);
    progress->shown = true;
}

void progress_show(struct progress *progress, const struct resample_progress *state)
{
    char line[256];
    if (!is_due(progress, state->seconds))
        return;
    format_line(line, sizeof line, state);
    progress_print(progress, state->seconds, line);
}

void progress_end(struct progress *progress)
{
    if (progress->terminal && progress->shown)
        fprintf(stderr, "\r\033[K");
    progress->shown = false;
}
