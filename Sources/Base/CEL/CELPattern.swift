import CRE2

/// A regular expression that was read once: RE2, whose syntax CEL's `matches` is defined by, and which never goes back in its
/// text.
///
/// It is matched by many threads at a time without a lock of ours: RE2 has its own.
final class CELPattern: @unchecked Sendable {
    private let expression: OpaquePointer

    init(_ source: String) throws(BaseError) {
        var error = [CChar](repeating: 0, count: 256)
        var text = source
        let made = text.withUTF8 { raw in
            raw.withMemoryRebound(to: CChar.self) {
                headrace_re2_make($0.baseAddress, $0.count, Int64(Limits.patternBytes), &error, error.count)
            }
        }
        guard let made else {
            let why = String(decoding: error.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            throw BaseError("bad-regex", "'\(source.prefix(200))' is no regular expression: \(why)")
        }
        expression = made
    }

    deinit { headrace_re2_free(expression) }

    func isFound(in text: String) -> Bool {
        var text = text
        return text.withUTF8 { raw in
            raw.withMemoryRebound(to: CChar.self) { headrace_re2_found(expression, $0.baseAddress, $0.count) != 0 }
        }
    }
}
