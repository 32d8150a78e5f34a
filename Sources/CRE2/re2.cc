#include "headrace_re2.h"

#include <re2/re2.h>

#include <cstring>
#include <new>
#include <string>

struct headrace_re2 {
    headrace_re2(const re2::StringPiece &pattern, const re2::RE2::Options &options) : expression(pattern, options) {}
    re2::RE2 expression;
};

headrace_re2 *headrace_re2_make(const char *pattern, size_t count, long long memory, char *error, size_t capacity) {
    re2::RE2::Options options;
    options.set_log_errors(false);
    options.set_max_mem(memory);
    auto *made = new (std::nothrow) headrace_re2(re2::StringPiece(pattern, count), options);
    if (made != nullptr && made->expression.ok()) return made;
    const std::string why = made == nullptr ? "out of memory" : made->expression.error();
    if (capacity > 0) {
        const size_t length = why.size() < capacity - 1 ? why.size() : capacity - 1;
        std::memcpy(error, why.data(), length);
        error[length] = 0;
    }
    delete made;
    return nullptr;
}

int headrace_re2_found(const headrace_re2 *expression, const char *text, size_t count) {
    return re2::RE2::PartialMatch(re2::StringPiece(text, count), expression->expression) ? 1 : 0;
}

void headrace_re2_free(headrace_re2 *expression) { delete expression; }

int headrace_text_contains(const char *text, size_t count, const char *piece, size_t pieceCount) {
    return pieceCount == 0 || (count > 0 && memmem(text, count, piece, pieceCount) != nullptr) ? 1 : 0;
}
