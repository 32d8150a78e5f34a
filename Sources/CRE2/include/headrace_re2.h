#ifndef HEADRACE_RE2_H
#define HEADRACE_RE2_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/// A compiled regular expression (github.com/google/re2). May be matched by many threads at a time.
typedef struct headrace_re2 headrace_re2;

/// Compiles UTF-8 `pattern`; its automata take at most `memory` bytes. NULL when it is no regular expression: `error`, of
/// `capacity` bytes, then says why, cut off and ended by 0.
headrace_re2 *headrace_re2_make(const char *pattern, size_t count, long long memory, char *error, size_t capacity);

/// Whether the expression matches anywhere in UTF-8 `text`, in time that grows with the text alone.
int headrace_re2_found(const headrace_re2 *expression, const char *text, size_t count);

void headrace_re2_free(headrace_re2 *expression);

/// Whether `piece` stands in `text`: memmem(3), whose time grows with the two lengths added.
int headrace_text_contains(const char *text, size_t count, const char *piece, size_t pieceCount);

#ifdef __cplusplus
}
#endif

#endif
