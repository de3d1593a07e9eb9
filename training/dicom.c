#include "training/dicom.h"

#include "runtime/plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_SECONDS = 60 };
#define MOST_BYTES (2ul << 30) /* that decoding adds to what this process has already */

struct dicom_library {
    void *handle;
    bool (*read)(const char *path, struct dicom_picture *picture, char *message,
                 size_t message_bytes);
};

int dicom_library_open(struct dicom_library **result, struct status *status)
{
    char path[PATH_MAX];
    struct dicom_library *library = *result =
        status_calloc(status, 1, sizeof *library, "the reader of DICOM");
    if (!library)
        return status->code;
    const char *from = plugin_path(path, "RESAMPLE_DICOM_LIBRARY", "libresample-dicom.so");
    /* what GDCM allocates once stays reachable */
    library->handle = dlopen(from, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library->handle)
        status_set(status, STATUS_BAD_INPUT,
                   "DICOM needs libresample-dicom.so, which `make dicom` builds: %s", dlerror());
    else if (!plugin_find(library->handle, "resample_dicom_read", &library->read,
                          sizeof library->read))
        status_set(status, STATUS_BAD_INPUT, "%s is not this program's reader of DICOM", from);
    if (!status_ok(status)) {
        dicom_library_close(library);
        *result = NULL;
    }
    return status->code;
}

void dicom_library_close(struct dicom_library *library)
{
    if (library && library->handle)
        dlclose(library->handle);
    free(library);
}

/* ---- a process of its own for each file ---- */

/* What the child sends; the values follow. */
struct answer {
    bool read;
    char message[192];
    struct dicom_picture picture;
};

static bool write_all(int pipe, const void *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t count = write(pipe, (const char *)bytes + done, length - done);
        if (count < 0 && errno != EINTR)
            return false;
        done += count > 0 ? (size_t)count : 0;
    }
    return true;
}

static bool read_all(int pipe, void *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t count = read(pipe, (char *)bytes + done, length - done);
        if (count == 0 || (count < 0 && errno != EINTR))
            return false;
        done += count > 0 ? (size_t)count : 0;
    }
    return true;
}

static size_t values_bytes(const struct dicom_picture *picture)
{
    return (size_t)picture->frames * (size_t)picture->channels * (size_t)picture->height *
           (size_t)picture->width * sizeof *picture->values;
}

/* Against a file whose compressed pixels unpack to more than its header says. */
static void limit_memory(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    bool known = file && fscanf(file, "%*u %*u %*u %*u %*u %lu", &pages) == 1;
    rlim_t bytes = pages * (rlim_t)sysconf(_SC_PAGESIZE) + MOST_BYTES;
    if (known)
        setrlimit(RLIMIT_DATA, &(const struct rlimit){bytes, bytes});
    if (file)
        fclose(file);
}

static void answer_from_child(const struct dicom_library *library, const char *path, int pipe)
{
    struct answer answer = {0};
    const struct rlimit seconds = {MOST_SECONDS, MOST_SECONDS}, no_core = {0, 0};
    int nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, STDOUT_FILENO);
    dup2(nowhere, STDERR_FILENO);
    setrlimit(RLIMIT_CPU, &seconds);
    setrlimit(RLIMIT_CORE, &no_core);
    limit_memory();
    answer.read = library->read(path, &answer.picture, answer.message, sizeof answer.message);
    if (write_all(pipe, &answer, sizeof answer) && answer.read)
        write_all(pipe, answer.picture.values, values_bytes(&answer.picture));
    _exit(0);
}

/* A child that went wrong is believed nothing. */
static bool is_sound(const struct answer *answer)
{
    const struct dicom_picture *p = &answer->picture;
    const int64_t most = DICOM_MOST_PIXELS;
    return (p->channels == 1 || p->channels == 3) && p->frames > 0 && p->height > 0 &&
           p->width > 0 && p->frames <= most && p->height <= most && p->width <= most &&
           (int64_t)p->height * p->width <= most && most / p->height / p->width >= p->frames &&
           memchr(p->patient, 0, sizeof p->patient) && memchr(p->modality, 0, sizeof p->modality);
}

static int take_answer(int pipe, const char *path, struct dicom_picture *picture,
                       struct status *status)
{
    struct answer answer;
    if (!read_all(pipe, &answer, sizeof answer))
        return status_set(status, STATUS_BAD_INPUT, "%s: its reader failed on it", path);
    answer.message[sizeof answer.message - 1] = 0;
    if (!answer.read)
        return status_set(status, STATUS_BAD_INPUT, "%s: %s", path, answer.message);
    if (!is_sound(&answer))
        return status_set(status, STATUS_BAD_INPUT, "%s: its reader failed on it", path);
    *picture = answer.picture;
    size_t bytes = values_bytes(picture);
    picture->values = status_calloc(status, bytes, 1, "a DICOM picture");
    if (picture->values && !read_all(pipe, picture->values, bytes)) {
        dicom_picture_free(picture);
        status_set(status, STATUS_BAD_INPUT, "%s: its reader failed on it", path);
    }
    return status->code;
}

int dicom_read(const struct dicom_library *library, const char *path, struct dicom_picture *picture,
               struct status *status)
{
    int ends[2];
    *picture = (struct dicom_picture){0};
    if (pipe2(ends, O_CLOEXEC) != 0)
        return status_set(status, STATUS_FAILURE, "no pipe for the reader of DICOM");
    pid_t child = fork();
    if (child == 0)
        answer_from_child(library, path, ends[1]);
    close(ends[1]);
    if (child < 0)
        status_set(status, STATUS_FAILURE, "no process for the reader of DICOM");
    else
        take_answer(ends[0], path, picture, status);
    close(ends[0]);
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
        continue;
    return status->code;
}

void dicom_picture_free(struct dicom_picture *picture)
{
    free(picture->values);
    picture->values = NULL;
}
