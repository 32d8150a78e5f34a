#ifndef HEADRACE_CPLATFORM_H
#define HEADRACE_CPLATFORM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), continuing from `crc` (0 to start).
/// Uses the processor's instruction where there is one, a table otherwise; both give the same value.
uint32_t headrace_crc32c(uint32_t crc, const void *bytes, size_t count);

/// The portable table path alone, so that a test can compare it with the hardware path.
uint32_t headrace_crc32c_portable(uint32_t crc, const void *bytes, size_t count);

/// Writes `count` bytes at `offset`, looping over short writes and EINTR. Returns 0, or the errno.
int headrace_pwrite_all(int descriptor, const void *bytes, size_t count, off_t offset);

/// Reads exactly `count` bytes at `offset`; `*got` holds what was there. Returns 0, or the errno.
int headrace_pread_all(int descriptor, void *bytes, size_t count, off_t offset, size_t *got);

/// fdatasync(2). Returns 0, or the errno; never retried, since a failed sync may have dropped dirty pages.
int headrace_sync_data(int descriptor);

/// Reserves `count` bytes from `offset` so that appends change no metadata. Returns 0, or the errno.
int headrace_reserve(int descriptor, off_t offset, off_t count);

/// Takes an exclusive advisory lock without waiting. Returns 0, or the errno (EWOULDBLOCK: another process has it).
int headrace_lock_exclusive(int descriptor);

/// Lets the calling thread run only when others leave the processor free (Linux: nice 10 for this thread alone).
void headrace_yield_to_others(void);

/// Resident set high-water mark of this process in bytes, 0 when the system does not tell.
uint64_t headrace_peak_memory(void);

#endif
