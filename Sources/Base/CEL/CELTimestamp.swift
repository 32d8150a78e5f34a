/// A moment of CEL: nanoseconds, from year 1 to year 9999 (google.protobuf.Timestamp).
package struct CELTimestamp: Equatable, Comparable, Sendable {
    /// Since 1970 in UTC, rounded down.
    package let seconds: Int64
    /// 0 to 999,999,999.
    package let nanoseconds: Int32

    static let first: Int64 = -62_135_596_800
    static let last: Int64 = 253_402_300_799
    static let perSecond: Int64 = 1_000_000_000

    /// Nil outside the years 1 to 9999.
    init?(seconds: Int64, nanoseconds: Int32) {
        guard seconds >= Self.first, seconds <= Self.last else { return nil }
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }

    /// An instant of the platform, whatever its year.
    package init(_ instant: Instant) {
        let part = ((instant.milliseconds % 1000) + 1000) % 1000
        seconds = (instant.milliseconds - part) / 1000
        nanoseconds = Int32(part) * 1_000_000
    }

    /// Reads RFC 3339 with up to nine digits below a second; further digits are cut.
    init?(_ text: String) {
        guard let instant = Instant(text) else { return nil }
        var nanoseconds: Int32 = 0
        if let point = text.utf8.firstIndex(of: 0x2E) {
            var scale: Int32 = 100_000_000
            for digit in text.utf8[text.utf8.index(after: point)...] {
                guard digit >= 0x30, digit <= 0x39, scale > 0 else { break }
                nanoseconds += Int32(digit - 0x30) * scale
                scale /= 10
            }
        }
        self.init(seconds: CELTimestamp(instant).seconds, nanoseconds: nanoseconds)
    }

    /// To the millisecond, rounded down.
    package var instant: Instant {
        Instant(milliseconds: seconds * 1000 + Int64(nanoseconds) / 1_000_000)
    }

    package static func < (left: CELTimestamp, right: CELTimestamp) -> Bool {
        (left.seconds, left.nanoseconds) < (right.seconds, right.nanoseconds)
    }

    /// Nil when the sum leaves the years 1 to 9999.
    func adding(_ span: Int64) -> CELTimestamp? {
        let total = Int128(seconds) * Int128(Self.perSecond) + Int128(nanoseconds) + Int128(span)
        let per = Int128(Self.perSecond)
        let rest = ((total % per) + per) % per
        guard let whole = Int64(exactly: (total - rest) / per) else { return nil }
        return CELTimestamp(seconds: whole, nanoseconds: Int32(rest))
    }

    /// Nanoseconds from another moment to this one; nil beyond 292 years.
    func since(_ other: CELTimestamp) -> Int64? {
        let span =
            (Int128(seconds) - Int128(other.seconds)) * Int128(Self.perSecond)
            + Int128(nanoseconds) - Int128(other.nanoseconds)
        return Int64(exactly: span)
    }

    /// RFC 3339 in UTC with the digits below a second that are needed.
    package var text: String {
        let whole = Instant(milliseconds: seconds * 1000).description
        guard nanoseconds != 0 else { return whole }
        return String(whole.dropLast()) + "." + CELDuration.fraction(Int64(nanoseconds)) + "Z"
    }
}

/// Spans of CEL: nanoseconds in 64 bits, as far as 292 years (what cel-go takes).
enum CELDuration {
    /// Go's duration syntax: `1.5h`, `-90s`, `1h30m`, `250ms`. Nil for anything else and beyond the range.
    static func parse(_ text: String) -> Int64? {
        var rest = Substring(text)
        let negative = rest.first == "-"
        if negative || rest.first == "+" { rest = rest.dropFirst() }
        guard !rest.isEmpty else { return nil }
        if rest == "0" { return 0 }
        var total: Int128 = 0
        let units: [(String, Int128)] = [
            ("ms", 1_000_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("us", 1000),
            ("µs", 1000), ("ns", 1),
        ]
        while !rest.isEmpty {
            let whole = rest.prefix { $0.isASCII && $0.isNumber }
            rest = rest.dropFirst(whole.count)
            var part: Substring = ""
            if rest.first == "." {
                part = rest.dropFirst().prefix { $0.isASCII && $0.isNumber }
                rest = rest.dropFirst(part.count + 1)
            }
            guard !(whole.isEmpty && part.isEmpty), whole.count <= 19,
                let unit = units.first(where: { rest.hasPrefix($0.0) })
            else { return nil }
            total += (Int128(whole) ?? 0) * unit.1
            let digits = part.prefix(18)
            var scale: Int128 = 1
            for _ in digits { scale *= 10 }
            total += (Int128(digits) ?? 0) * unit.1 / scale
            guard total < Int128(1) << 80 else { return nil }
            rest = rest.dropFirst(unit.0.count)
        }
        return Int64(exactly: negative ? -total : total)
    }

    /// Seconds with the digits below that are needed: `1.5s`.
    static func text(_ span: Int64) -> String {
        let size = span.magnitude
        let per = UInt64(CELTimestamp.perSecond)
        let part = Int64(size % per)
        return (span < 0 ? "-" : "") + String(size / per) + (part == 0 ? "" : "." + fraction(part)) + "s"
    }

    /// Seconds as a number.
    static func seconds(_ span: Int64) -> Double {
        // Whole milliseconds divide exactly rounded; more digits would be rounded before the division.
        span % 1_000_000 == 0 ? Double(span / 1_000_000) / 1000 : Double(span) / 1e9
    }

    /// Up to nine digits, without zeros at the end.
    static func fraction(_ nanoseconds: Int64) -> String {
        let digits = String(nanoseconds)
        var text = String(repeating: "0", count: 9 - digits.count) + digits
        while text.hasSuffix("0") { text.removeLast() }
        return text
    }
}
