/* The progress line on stderr: rewritten in place on a terminal, else one line every ten seconds.
 */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include "solvers/resample.h"

struct progress {
    bool terminal, shown;
    double last_seconds;
};

void progress_start(struct progress *progress);
void progress_show(struct progress *progress, const struct resample_progress *state);
/* The same with a line of one's own, `seconds` after the start. */
void progress_print(struct progress *progress, double seconds, const char *line);
/* Clears the line, so that what is printed next stands alone. */
void progress_end(struct progress *progress);

#endif
