#include "tools/command.h"

#include <unistd.h>

static volatile sig_atomic_t interrupted, deferred;

static void on_signal(int number)
{
    (void)number;
    if (!deferred || interrupted) {
        static const char message[] = "\nresample: interrupted\n";
        ssize_t ignored = write(STDERR_FILENO, message, sizeof message - 1);
        (void)ignored;
        _exit(STATUS_INTERRUPTED);
    }
    interrupted = 1;
}

void interrupt_install(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

void interrupt_defer(bool defer)
{
    deferred = defer;
}

const volatile sig_atomic_t *interrupt_flag(void)
{
    return &interrupted;
}
