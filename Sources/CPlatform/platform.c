#define _GNU_SOURCE
#include "CPlatform.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int headrace_pwrite_all(int descriptor, const void *bytes, size_t count, off_t offset) {
    const uint8_t *cursor = bytes;
    while (count > 0) {
        ssize_t written = pwrite(descriptor, cursor, count, offset);
        if (written < 0) {
            if (errno == EINTR) continue;
            return errno;
        }
        if (written == 0) return ENOSPC;
        cursor += written;
        count -= (size_t)written;
        offset += written;
    }
    return 0;
}

int headrace_pread_all(int descriptor, void *bytes, size_t count, off_t offset, size_t *got) {
    uint8_t *cursor = bytes;
    *got = 0;
    while (*got < count) {
        ssize_t read = pread(descriptor, cursor + *got, count - *got, offset + (off_t)*got);
        if (read < 0) {
            if (errno == EINTR) continue;
            return errno;
        }
        if (read == 0) return 0;
        *got += (size_t)read;
    }
    return 0;
}

int headrace_sync_data(int descriptor) { return fdatasync(descriptor) == 0 ? 0 : errno; }

int headrace_reserve(int descriptor, off_t offset, off_t count) {
    int result = posix_fallocate(descriptor, offset, count);
    return result;
}

int headrace_lock_exclusive(int descriptor) { return flock(descriptor, LOCK_EX | LOCK_NB) == 0 ? 0 : errno; }

void headrace_yield_to_others(void) {
#if defined(__linux__)
    // On Linux a thread has a priority of its own, and a refusal changes nothing but speed.
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 10);
#endif
}

uint64_t headrace_peak_memory(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
    return (uint64_t)usage.ru_maxrss * 1024;
}
