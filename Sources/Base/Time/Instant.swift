import Foundation

/// A moment in milliseconds since 1970-01-01T00:00:00Z (no leap seconds), the unit of every event time.
public struct Instant: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// Since 1970-01-01T00:00:00Z.
    public var milliseconds: Int64

    /// - Parameter milliseconds: since 1970-01-01T00:00:00Z.
    @inlinable
    public init(milliseconds: Int64) { self.milliseconds = milliseconds }

    /// Before every moment.
    public static let distantPast = Instant(milliseconds: .min)
    /// Behind every moment.
    public static let distantFuture = Instant(milliseconds: .max)

    /// The years 1 to 9999: what RFC 3339 can write.
    public static let written = Instant(milliseconds: -62_135_596_800_000)...Instant(milliseconds: 253_402_300_799_999)

    @inlinable
    public static func < (left: Instant, right: Instant) -> Bool { left.milliseconds < right.milliseconds }

    /// So many milliseconds later.
    @inlinable
    public static func + (left: Instant, milliseconds: Int64) -> Instant {
        Instant(milliseconds: left.milliseconds &+ milliseconds)
    }

    /// Milliseconds between two moments.
    @inlinable
    public static func - (left: Instant, right: Instant) -> Int64 { left.milliseconds &- right.milliseconds }

    /// Days since the epoch of a civil date. Source: Howard Hinnant, "chrono-compatible low-level date algorithms".
    public static func days(year: Int, month: Int, day: Int) -> Int {
        let year = month <= 2 ? year - 1 : year
        let era = (year >= 0 ? year : year - 399) / 400
        let ofEra = year - era * 400
        let ofYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        let dayOfEra = ofEra * 365 + ofEra / 4 - ofEra / 100 + ofYear
        return era * 146_097 + dayOfEra - 719_468
    }

    /// The civil date of a day number. Source: as `days(year:month:day:)`.
    public static func civil(days: Int) -> (year: Int, month: Int, day: Int) {
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let ofEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let ofYear = dayOfEra - (365 * ofEra + ofEra / 4 - ofEra / 100)
        let index = (5 * ofYear + 2) / 153
        let month = index + (index < 10 ? 3 : -9)
        return (ofEra + era * 400 + (month <= 2 ? 1 : 0), month, ofYear - (153 * index + 2) / 5 + 1)
    }

    /// Whole days since the epoch, rounding toward the past.
    public var day: Int {
        // Not by subtracting first: of the least times that would overflow.
        let (quotient, rest) = milliseconds.quotientAndRemainder(dividingBy: 86_400_000)
        return Int(rest < 0 ? quotient - 1 : quotient)
    }

    /// Midnight of a day, counted from 1970-01-01.
    public init(day: Int) { self.init(milliseconds: Int64(day) * 86_400_000) }

    /// `2013-01-31` in UTC.
    public var date: String { String(description.prefix(10)) }

    /// `2013-01` in UTC.
    public var month: String { String(description.prefix(7)) }

    /// RFC 3339 in UTC with a trailing Z; milliseconds only when there are any.
    public var description: String {
        var out: [UInt8] = []
        append(to: &out)
        return String(decoding: out, as: UTF8.self)
    }

    /// Appends what `description` gives, without building a String.
    public func append(to out: inout [UInt8]) {
        if self == .distantPast || self == .distantFuture {
            out.append(contentsOf: (self == .distantPast ? "-infinity" : "infinity").utf8)
            return
        }
        let date = Instant.civil(days: day)
        let ofDay = Int(milliseconds - Int64(day) * 86_400_000)
        let (seconds, rest) = (ofDay / 1000, ofDay % 1000)
        // As one piece: each byte on its own would ask the array for room.
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 24) { text in
            func two(_ value: Int, _ place: Int) {
                text[place] = 0x30 + UInt8(truncatingIfNeeded: value / 10)
                text[place + 1] = 0x30 + UInt8(truncatingIfNeeded: value % 10)
            }
            // What no calendar writes with four digits keeps its last four.
            let year = abs(date.year) % 10_000
            two(year / 100, 0)
            two(year % 100, 2)
            text[4] = 0x2D
            two(date.month, 5)
            text[7] = 0x2D
            two(date.day, 8)
            text[10] = 0x54
            two(seconds / 3600, 11)
            text[13] = 0x3A
            two(seconds / 60 % 60, 14)
            text[16] = 0x3A
            two(seconds % 60, 17)
            var count = 19
            if rest != 0 {
                text[19] = 0x2E
                text[20] = 0x30 + UInt8(truncatingIfNeeded: rest / 100)
                two(rest % 100, 21)
                count = 23
            }
            text[count] = 0x5A
            out.append(contentsOf: text[...count])
        }
    }

    /// Reads RFC 3339 (`2013-01-01T10:00:00.5+01:00`); nil for anything else. Digits below a millisecond are cut.
    public init?(_ text: String) {
        var text = text
        guard let parsed = text.withUTF8({ Instant.parse(UnsafeRawBufferPointer($0)) }) else { return nil }
        self = parsed
    }

    /// Reads RFC 3339; nil for anything else.
    public static func parse(_ bytes: UnsafeRawBufferPointer) -> Instant? {
        guard bytes.count >= 20 else { return nil }
        func number(_ start: Int, _ count: Int) -> Int? {
            var value = 0
            for index in start..<start + count {
                guard index < bytes.count, bytes[index] >= 0x30, bytes[index] <= 0x39 else { return nil }
                value = value * 10 + Int(bytes[index] - 0x30)
            }
            return value
        }
        guard let year = number(0, 4), let month = number(5, 2), let day = number(8, 2), let hour = number(11, 2),
            let minute = number(14, 2), let second = number(17, 2), bytes[4] == 0x2D, bytes[7] == 0x2D,
            bytes[10] | 0x20 == 0x74 || bytes[10] == 0x20, bytes[13] == 0x3A, bytes[16] == 0x3A,
            (1...12).contains(month),
            day >= 1, day <= Instant.monthLength(year, month), hour < 24, minute < 60, second < 61
        else { return nil }
        var index = 19
        var millis = 0
        if bytes[index] == 0x2E {
            var scale = 100
            index += 1
            let first = index
            while index < bytes.count, bytes[index] >= 0x30, bytes[index] <= 0x39 {
                millis += Int(bytes[index] - 0x30) * scale
                scale /= 10
                index += 1
            }
            guard index > first else { return nil }
        }
        guard index < bytes.count else { return nil }
        var offsetMinutes = 0
        if bytes[index] | 0x20 == 0x7A {
            guard index + 1 == bytes.count else { return nil }
        } else {
            guard bytes[index] == 0x2B || bytes[index] == 0x2D, index + 6 == bytes.count, bytes[index + 3] == 0x3A,
                let hours = number(index + 1, 2), let minutes = number(index + 4, 2), hours < 24, minutes < 60
            else { return nil }
            offsetMinutes = (hours * 60 + minutes) * (bytes[index] == 0x2D ? -1 : 1)
        }
        let days = Instant.days(year: year, month: month, day: day)
        let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offsetMinutes * 60
        return Instant(milliseconds: Int64(seconds) * 1000 + Int64(millis))
    }

    /// Days of a month of the Gregorian calendar.
    public static func monthLength(_ year: Int, _ month: Int) -> Int {
        switch month {
        case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }

    /// The wall clock. Only shells may ask; nothing that reaches state or a digest does.
    public static func wallClock() -> Instant {
        Instant(milliseconds: Int64(Date().timeIntervalSince1970 * 1000))
    }
}

/// Spans such as `90s`, `15m`, `3h`, `30d`, `1h30m`, `250ms`, in milliseconds.
public func parseSpan(_ text: String) -> Int64? {
    let units: [(String, Int64)] = [("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)]
    var rest = Substring(text)
    var total: Int64 = 0
    guard !rest.isEmpty else { return nil }
    while !rest.isEmpty {
        let digits = rest.prefix { $0.isASCII && $0.isNumber }
        guard let value = Int64(digits) else { return nil }
        rest = rest.dropFirst(digits.count)
        guard let unit = units.first(where: { rest.hasPrefix($0.0) }) else { return nil }
        let product = value.multipliedReportingOverflow(by: unit.1)
        let sum = total.addingReportingOverflow(product.partialValue)
        guard !product.overflow, !sum.overflow else { return nil }
        total = sum.partialValue
        rest = rest.dropFirst(unit.0.count)
    }
    return total
}
