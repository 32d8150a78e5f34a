import Foundation
import Synchronization

/// The offsets of one IANA time zone, read from the system's TZif file (RFC 8536), with the POSIX rule of its footer
/// for moments after the last listed transition.
package struct TimeZoneRules: Sendable {
    private let transitions: [Int64]
    private let offsets: [Int]
    private let initial: Int
    private let footer: PosixRule?

    private static let cache = Mutex<[String: TimeZoneRules]>([:])

    /// Finds a zone by its IANA name or as a fixed offset (`+02:00`, `UTC`).
    package static func named(_ name: String) throws(BaseError) -> TimeZoneRules {
        if let known = cache.withLock({ $0[name] }) { return known }
        let rules = try load(name)
        cache.withLock { $0[name] = rules }
        return rules
    }

    /// Seconds to add to UTC at that moment.
    package func offset(at instant: Instant) -> Int {
        let seconds = Int64((Double(instant.milliseconds) / 1000).rounded(.down))
        guard let last = transitions.last else { return footer?.offset(at: seconds) ?? initial }
        if seconds >= last, let footer { return footer.offset(at: seconds) }
        var low = 0
        var high = transitions.count
        while low < high {
            let middle = (low + high) / 2
            if transitions[middle] <= seconds { low = middle + 1 } else { high = middle }
        }
        return low == 0 ? initial : offsets[low - 1]
    }

    private static func load(_ name: String) throws(BaseError) -> TimeZoneRules {
        if name == "UTC" || name == "Z" { return TimeZoneRules(transitions: [], offsets: [], initial: 0, footer: nil) }
        if let fixed = fixedOffset(name) {
            return TimeZoneRules(transitions: [], offsets: [], initial: fixed, footer: nil)
        }
        guard
            name.utf8.allSatisfy({
                ($0 | 0x20 >= 0x61 && $0 | 0x20 <= 0x7A) || ($0 >= 0x30 && $0 <= 0x39) || "/_+-".utf8.contains($0)
            }),
            !name.hasPrefix("/"), let data = FileManager.default.contents(atPath: "/usr/share/zoneinfo/" + name)
        else {
            throw BaseError(
                "unknown-time-zone",
                "there is no time zone '\(name)' under /usr/share/zoneinfo; use an IANA name, and install tzdata if it is absent"
            )
        }
        return try [UInt8](data).withRaw { raw throws(BaseError) in try parse(raw, name: name) }
    }

    private static func fixedOffset(_ name: String) -> Int? {
        let bytes = [UInt8](name.utf8)
        guard bytes.count == 6, bytes[0] == 0x2B || bytes[0] == 0x2D, bytes[3] == 0x3A,
            let hours = Int(name.dropFirst().prefix(2)),
            let minutes = Int(name.suffix(2)), hours < 24, minutes < 60
        else { return nil }
        return (hours * 3600 + minutes * 60) * (bytes[0] == 0x2D ? -1 : 1)
    }

    private static func parse(_ raw: UnsafeRawBufferPointer, name: String) throws(BaseError) -> TimeZoneRules {
        var reader = ByteReader(raw)
        func header(_ reader: inout ByteReader) throws(BaseError) -> (version: UInt8, counts: [Int]) {
            guard try reader.big(UInt32.self) == 0x545A_6966 else {
                throw BaseError("bad-time-zone", "/usr/share/zoneinfo/\(name) is no TZif file", fault: .world)
            }
            let version = try reader.byte()
            try reader.skip(15)
            var counts: [Int] = []
            for _ in 0..<6 { counts.append(Int(try reader.big(UInt32.self))) }
            return (version, counts)
        }
        // isutc, isstd, leap, time, type, char: the order of RFC 8536 section 3.1.
        let first = try header(&reader)
        guard first.version >= 0x32 else {
            throw BaseError("bad-time-zone", "/usr/share/zoneinfo/\(name) has only 32-bit times", fault: .world)
        }
        let c = first.counts
        try reader.skip(c[3] * 5 + c[4] * 6 + c[5] + c[2] * 8 + c[1] + c[0])
        let counts = try header(&reader).counts
        var times: [Int64] = []
        for _ in 0..<counts[3] { times.append(try reader.big(Int64.self)) }
        var kinds: [Int] = []
        for _ in 0..<counts[3] { kinds.append(Int(try reader.byte())) }
        var types: [Int] = []
        for _ in 0..<counts[4] {
            types.append(Int(try reader.big(Int32.self)))
            try reader.skip(2)
        }
        try reader.skip(counts[5] + counts[2] * 12 + counts[1] + counts[0])
        let tail = String(decoding: try reader.slice(reader.remaining), as: UTF8.self)
        guard let initial = types.first, kinds.allSatisfy({ $0 < types.count }) else {
            throw BaseError(
                "bad-time-zone", "/usr/share/zoneinfo/\(name) names a type it does not define", fault: .world)
        }
        let footer = PosixRule(tail.trimmingCharacters(in: .newlines))
        return TimeZoneRules(transitions: times, offsets: kinds.map { types[$0] }, initial: initial, footer: footer)
    }
}

/// A POSIX TZ string such as `EST5EDT,M3.2.0,M11.1.0` (only the M form, which is the one zone files use).
private struct PosixRule: Sendable {
    let standard: Int
    let daylight: Int?
    let start: (month: Int, week: Int, weekday: Int, time: Int)
    let end: (month: Int, week: Int, weekday: Int, time: Int)

    init?(_ text: String) {
        var rest = Substring(text)
        guard !rest.isEmpty, PosixRule.name(&rest), let offset = PosixRule.time(&rest) else { return nil }
        standard = -offset
        guard !rest.isEmpty, PosixRule.name(&rest) else {
            daylight = nil
            start = (0, 0, 0, 0)
            end = (0, 0, 0, 0)
            return
        }
        daylight = rest.first == "," ? standard + 3600 : PosixRule.time(&rest).map { -$0 }
        guard let first = PosixRule.date(&rest), let second = PosixRule.date(&rest) else { return nil }
        start = first
        end = second
    }

    private static func name(_ rest: inout Substring) -> Bool {
        if rest.first == "<" {
            guard let close = rest.firstIndex(of: ">") else { return false }
            rest = rest[rest.index(after: close)...]
            return true
        }
        let letters = rest.prefix { $0.isLetter }
        rest = rest.dropFirst(letters.count)
        return letters.count >= 3
    }

    private static func time(_ rest: inout Substring) -> Int? {
        let text = rest.prefix { "+-0123456789:".contains($0) }
        guard !text.isEmpty else { return nil }
        rest = rest.dropFirst(text.count)
        let sign = text.hasPrefix("-") ? -1 : 1
        let parts = text.drop { "+-".contains($0) }.split(separator: ":").compactMap { Int($0) }
        var seconds = 0
        for (part, unit) in zip(parts, [3600, 60, 1]) { seconds += part * unit }
        return sign * seconds
    }

    private static func date(_ rest: inout Substring) -> (month: Int, week: Int, weekday: Int, time: Int)? {
        guard rest.hasPrefix(",M") else { return nil }
        rest = rest.dropFirst(2)
        let text = rest.prefix { "0123456789.".contains($0) }
        rest = rest.dropFirst(text.count)
        let parts = text.split(separator: ".").compactMap { Int($0) }
        guard parts.count == 3 else { return nil }
        var seconds = 7200
        if rest.first == "/" {
            rest = rest.dropFirst()
            guard let stated = time(&rest) else { return nil }
            seconds = stated
        }
        return (parts[0], parts[1], parts[2], seconds)
    }

    func offset(at seconds: Int64) -> Int {
        guard let daylight else { return standard }
        let day = Int((Double(seconds) / 86_400).rounded(.down))
        let year = Instant.civil(days: day).year
        func moment(_ rule: (month: Int, week: Int, weekday: Int, time: Int), _ offset: Int) -> Int64 {
            let first = Instant.days(year: year, month: rule.month, day: 1)
            let weekday = ((first + 4) % 7 + 7) % 7
            var date = 1 + (rule.weekday - weekday + 7) % 7 + (rule.week - 1) * 7
            if date > Instant.monthLength(year, rule.month) { date -= 7 }
            return Int64(first + date - 1) * 86_400 + Int64(rule.time - offset)
        }
        let begin = moment(start, standard)
        let finish = moment(end, daylight)
        let inside =
            begin < finish ? seconds >= begin && seconds < finish : !(seconds >= finish && seconds < begin)
        return inside ? daylight : standard
    }
}
