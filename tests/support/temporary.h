/* Small files that a test writes under /tmp. */
#ifndef TESTS_SUPPORT_TEMPORARY_H
#define TESTS_SUPPORT_TEMPORARY_H

/* Writes text to a new file; the name stays valid until the next call from the same test binary. */
const char *temporary_text(const char *text);

#endif
