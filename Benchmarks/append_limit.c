// The least that a synced append can cost: record batches of so many bytes are built, hashed (SHA-256) and compressed (LZ4) by two
// threads, at most five under way, and written into a file of zeros with one fdatasync for those that wait. No index, no ids, no
// header, nothing kept for readers and nothing moved afterwards: what a log that promises the same can at most reach here.
// usage: append_limit EVENTS.jsonl FILE RECORDS BATCH_BYTES HASH(0/1) SYNC(0/1)
#define _GNU_SOURCE
#include <fcntl.h>
#include <lz4.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
enum { LIMIT = 5, SPARE = 64 << 20 };
static char **lines; static int *lengths; static long count;
static long wanted; static size_t batch_bytes; static int hashes, syncs;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int under_way; static long given, done; static int closing;
typedef struct { char *bytes; int size; long records; } Batch;
static Batch ready[LIMIT]; static int ready_count; static int fd;
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
static void *worker(void *unused) {
    size_t cap = batch_bytes + 4096;
    char *plain = malloc(cap);
    while (1) {
        pthread_mutex_lock(&lock);
        while (under_way >= LIMIT && given < wanted) pthread_cond_wait(&changed, &lock);
        if (given >= wanted) { pthread_mutex_unlock(&lock); break; }
        under_way++; long first = given; size_t at = 0; long n = 0;
        // Taken under the lock: which lines these are.
        while (at + 220 < batch_bytes) { at += lengths[(first + n) % count] + 10; n++; }
        given += n;
        pthread_mutex_unlock(&lock);
        at = 0;
        for (long i = 0; i < n; i++) {
            long k = (first + i) % count; int size = lengths[k];
            plain[at++] = (char)(size + 6); plain[at++] = 1; plain[at++] = 0; plain[at++] = (char)i; plain[at++] = (char)(i >> 7); plain[at++] = 1;
            plain[at++] = (char)size; plain[at++] = 1; memcpy(plain + at, lines[k], size); at += size; plain[at++] = 0; plain[at++] = 0;
        }
        unsigned char digest[32];
        if (hashes) SHA256((unsigned char *)plain, at, digest);
        int bound = LZ4_compressBound((int)at); char *out = malloc(bound + 32);
        int size = LZ4_compress_fast(plain, out, (int)at, bound, 1);
        memcpy(out + size, digest, 32);
        pthread_mutex_lock(&lock);
        ready[ready_count++] = (Batch){out, size + 32, n};
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    free(plain);
    return NULL;
}
static void *writer(void *unused) {
    off_t at = 0;
    while (1) {
        pthread_mutex_lock(&lock);
        while (!ready_count && !(closing && !under_way)) pthread_cond_wait(&changed, &lock);
        if (!ready_count) { pthread_mutex_unlock(&lock); return NULL; }
        Batch taken[LIMIT]; int n = ready_count; memcpy(taken, ready, sizeof(Batch) * n); ready_count = 0;
        pthread_mutex_unlock(&lock);
        struct iovec v[LIMIT]; size_t total = 0; long records = 0;
        for (int i = 0; i < n; i++) { v[i] = (struct iovec){taken[i].bytes, taken[i].size}; total += taken[i].size; records += taken[i].records; }
        if (at + (off_t)total > SPARE * 8L) at = 0;
        if (pwritev(fd, v, n, at) != (ssize_t)total) { perror("write"); exit(1); }
        at += total;
        if (syncs && fdatasync(fd)) { perror("sync"); exit(1); }
        for (int i = 0; i < n; i++) free(taken[i].bytes);
        pthread_mutex_lock(&lock);
        under_way -= n; done += records;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
}
int main(int argc, char **argv) {
    FILE *f = fopen(argv[1], "r"); char *line = NULL; size_t cap = 0; ssize_t k; long room = 0;
    while ((k = getline(&line, &cap, f)) > 0) {
        if (count == room) { room = room ? room * 2 : 1024; lines = realloc(lines, room * sizeof *lines); lengths = realloc(lengths, room * sizeof *lengths); }
        lines[count] = memcpy(malloc(k), line, k); lengths[count++] = (int)k - 1;
    }
    wanted = atol(argv[3]); batch_bytes = atol(argv[4]); hashes = atoi(argv[5]); syncs = atoi(argv[6]);
    fd = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
    char *zeros = calloc(1, SPARE);
    for (int i = 0; i < 8; i++) if (pwrite(fd, zeros, SPARE, (off_t)i * SPARE) != SPARE) return 1;
    fsync(fd);
    pthread_t w, t[2]; double s = now();
    pthread_create(&w, NULL, writer, NULL);
    for (int i = 0; i < 2; i++) pthread_create(&t[i], NULL, worker, NULL);
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    pthread_mutex_lock(&lock); closing = 1; pthread_cond_broadcast(&changed); pthread_mutex_unlock(&lock);
    pthread_join(w, NULL);
    printf("{\"name\":\"limit.append.%zuk%s%s\",\"value\":%.0f,\"unit\":\"events/s\"}\n", batch_bytes >> 10, hashes ? "" : ".unhashed",
           syncs ? "" : ".unsynced", done / (now() - s));
    unlink(argv[2]);
}
