#include "CPlatform.h"

#include <pthread.h>
#include <string.h>

static uint32_t tables[8][256];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int hardware = 0;

static void prepare(void) {
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t crc = n;
        for (int bit = 0; bit < 8; bit++) crc = (crc & 1) ? (crc >> 1) ^ 0x82F63B78u : crc >> 1;
        tables[0][n] = crc;
    }
    for (uint32_t n = 0; n < 256; n++)
        for (int slice = 1; slice < 8; slice++)
            tables[slice][n] = (tables[slice - 1][n] >> 8) ^ tables[0][tables[slice - 1][n] & 0xFF];
#if defined(__x86_64__)
    hardware = __builtin_cpu_supports("sse4.2");
#endif
}

uint32_t headrace_crc32c_portable(uint32_t crc, const void *bytes, size_t count) {
    pthread_once(&once, prepare);
    const uint8_t *cursor = bytes;
    crc = ~crc;
    while (count >= 8) {
        uint32_t low, high;
        memcpy(&low, cursor, 4);
        memcpy(&high, cursor + 4, 4);
        low ^= crc;
        crc = tables[7][low & 0xFF] ^ tables[6][(low >> 8) & 0xFF] ^ tables[5][(low >> 16) & 0xFF] ^
              tables[4][low >> 24] ^ tables[3][high & 0xFF] ^ tables[2][(high >> 8) & 0xFF] ^
              tables[1][(high >> 16) & 0xFF] ^ tables[0][high >> 24];
        cursor += 8;
        count -= 8;
    }
    while (count-- > 0) crc = (crc >> 8) ^ tables[0][(crc ^ *cursor++) & 0xFF];
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_hardware(uint32_t crc, const uint8_t *cursor, size_t count) {
    uint64_t value = ~crc;
    while (count >= 8) {
        uint64_t word;
        memcpy(&word, cursor, 8);
        value = __builtin_ia32_crc32di(value, word);
        cursor += 8;
        count -= 8;
    }
    uint32_t rest = (uint32_t)value;
    while (count-- > 0) rest = __builtin_ia32_crc32qi(rest, *cursor++);
    return ~rest;
}
#endif

uint32_t headrace_crc32c(uint32_t crc, const void *bytes, size_t count) {
    pthread_once(&once, prepare);
#if defined(__x86_64__)
    if (hardware) return crc_hardware(crc, bytes, count);
#endif
    return headrace_crc32c_portable(crc, bytes, count);
}
