/// The functions and operators of CEL's standard library that this implementation has.
enum CELFunction: String, Sendable {
    case equals = "=="
    case differs = "!="
    case less = "<"
    case atMost = "<="
    case more = ">"
    case atLeast = ">="
    case contained = "in"
    case add = "+"
    case subtract = "-"
    case multiply = "*"
    case divide = "/"
    case remainder = "%"
    case not = "!"
    case negate
    case size, int, uint, double, string, bytes, bool, timestamp, duration, dyn
    case startsWith, endsWith, contains, matches
    case getFullYear, getMonth, getDayOfMonth, getDate, getDayOfWeek, getDayOfYear
    case getHours, getMinutes, getSeconds, getMilliseconds

    private static let one: Set<CELFunction> = [
        .not, .negate, .size, .int, .uint, .double, .string, .bytes, .bool, .timestamp, .duration, .dyn, .getFullYear,
        .getMonth, .getDayOfMonth, .getDate, .getDayOfWeek, .getDayOfYear, .getHours, .getMinutes, .getSeconds,
        .getMilliseconds,
    ]
    private static let zoned: Set<CELFunction> = [
        .getFullYear, .getMonth, .getDayOfMonth, .getDate, .getDayOfWeek, .getDayOfYear, .getHours, .getMinutes,
        .getSeconds, .getMilliseconds,
    ]

    static func find(_ name: String, _ count: Int, method: Bool) -> CELFunction? {
        if name == "-", count == 1 { return .negate }
        guard let function = CELFunction(rawValue: name), function != .negate else { return nil }
        if zoned.contains(function) { return method && (count == 1 || count == 2) ? function : nil }
        if one.contains(function) { return count == 1 ? function : nil }
        return count == 2 ? function : nil
    }

    func apply1(_ value: CELValue) throws(BaseError) -> CELValue {
        switch self {
        case .not:
            guard case .bool(let flag) = value else { throw wrong(value) }
            return .bool(!flag)
        case .negate:
            switch value {
            case .int(let number):
                guard number != .min else { throw overflow }
                return .int(-number)
            case .double(let number): return .double(-number)
            case .duration(let span): return .duration(-span)
            default: throw wrong(value)
            }
        case .size:
            switch value {
            case .string(let text): return .int(Int64(text.unicodeScalars.count))
            case .bytes(let bytes): return .int(Int64(bytes.count))
            case .list(let items): return .int(Int64(items.count))
            case .map(let entries): return .int(Int64(entries.count))
            default: throw wrong(value)
            }
        case .dyn: return value
        case .int, .uint, .double, .string, .bytes, .bool, .timestamp, .duration: return try convert(value)
        default: return try part(value, zone: "UTC")
        }
    }

    private var overflow: BaseError { BaseError("overflow", "'\(rawValue)' leaves the range of its type") }

    private func wrong(_ values: CELValue...) -> BaseError {
        BaseError("bad-type", "'\(rawValue)' does not take \(values.map(\.typeName).joined(separator: " and "))")
    }

    private func convert(_ value: CELValue) throws(BaseError) -> CELValue {
        switch (self, value) {
        case (.int, .int), (.uint, .uint), (.double, .double), (.string, .string), (.bytes, .bytes), (.bool, .bool),
            (.timestamp, .timestamp), (.duration, .duration):
            return value
        case (.int, .uint(let number)):
            guard let exact = Int64(exactly: number) else { throw overflow }
            return .int(exact)
        case (.int, .double(let number)):
            guard number > -0x1p63, number < 0x1p63 else { throw overflow }
            return .int(Int64(number))
        case (.int, .string(let text)):
            guard let number = Int64(text) else { throw unreadable(text) }
            return .int(number)
        case (.int, .timestamp(let moment)): return .int(Int64((Double(moment.milliseconds) / 1000).rounded(.down)))
        case (.uint, .int(let number)):
            guard let exact = UInt64(exactly: number) else { throw overflow }
            return .uint(exact)
        case (.uint, .double(let number)):
            guard number > -1, number < 0x1p64 else { throw overflow }
            return .uint(UInt64(number))
        case (.uint, .string(let text)):
            guard let number = UInt64(text) else { throw unreadable(text) }
            return .uint(number)
        case (.double, .int(let number)): return .double(Double(number))
        case (.double, .uint(let number)): return .double(Double(number))
        case (.double, .string(let text)):
            guard let number = Double(text) else { throw unreadable(text) }
            return .double(number)
        case (.string, .bytes(let bytes)):
            guard let text = String(validating: bytes, as: UTF8.self) else {
                throw BaseError("bad-utf8", "the bytes are not UTF-8")
            }
            return .string(text)
        case (.string, .duration(let span)): return .string(CELValue.text(Double(span) / 1000) + "s")
        case (.string, _):
            guard let text = value.label else { throw wrong(value) }
            return .string(text)
        case (.bytes, .string(let text)): return .bytes([UInt8](text.utf8))
        case (.bool, .string(let text)):
            switch text {
            case "1", "t", "T", "true", "TRUE", "True": return .bool(true)
            case "0", "f", "F", "false", "FALSE", "False": return .bool(false)
            default: throw unreadable(text)
            }
        case (.timestamp, .string(let text)):
            guard let moment = Instant(text) else { throw unreadable(text) }
            return .timestamp(moment)
        case (.timestamp, .int(let seconds)): return .timestamp(Instant(milliseconds: seconds * 1000))
        case (.duration, .string(let text)):
            guard let span = CELFunction.span(text) else { throw unreadable(text) }
            return .duration(span)
        default: throw wrong(value)
        }
    }

    private func unreadable(_ text: String) -> BaseError {
        BaseError("bad-value", "'\(rawValue)' cannot read '\(text)'")
    }

    /// Go's duration syntax as CEL takes it: `1.5h`, `-90s`, `1h30m`, `250ms`.
    private static func span(_ text: String) -> Int64? {
        var rest = Substring(text)
        let negative = rest.first == "-"
        if negative || rest.first == "+" { rest = rest.dropFirst() }
        guard !rest.isEmpty else { return nil }
        var total = 0.0
        let units: [(String, Double)] = [
            ("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("us", 0.001), ("ns", 0.000001),
        ]
        while !rest.isEmpty {
            let digits = rest.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
            guard let value = Double(digits) else { return nil }
            rest = rest.dropFirst(digits.count)
            guard let unit = units.first(where: { rest.hasPrefix($0.0) }) else { return nil }
            total += value * unit.1
            rest = rest.dropFirst(unit.0.count)
        }
        guard total < 0x1p53 else { return nil }
        return Int64(negative ? -total : total)
    }

    /// A calendar part of a timestamp in a zone, or a total of a duration.
    private func part(_ value: CELValue, zone: String) throws(BaseError) -> CELValue {
        if case .duration(let span) = value {
            switch self {
            case .getHours: return .int(span / 3_600_000)
            case .getMinutes: return .int(span / 60_000)
            case .getSeconds: return .int(span / 1000)
            case .getMilliseconds: return .int(span % 1000)
            default: throw wrong(value)
            }
        }
        guard case .timestamp(let moment) = value else { throw wrong(value) }
        let offset = zone == "UTC" ? 0 : try TimeZoneRules.named(zone).offset(at: moment)
        let local = moment + Int64(offset) * 1000
        let day = local.day
        let ofDay = local.milliseconds - Int64(day) * 86_400_000
        let civil = Instant.civil(days: day)
        switch self {
        case .getFullYear: return .int(Int64(civil.year))
        case .getMonth: return .int(Int64(civil.month - 1))
        case .getDate: return .int(Int64(civil.day))
        case .getDayOfMonth: return .int(Int64(civil.day - 1))
        case .getDayOfYear: return .int(Int64(day - Instant.days(year: civil.year, month: 1, day: 1)))
        case .getDayOfWeek: return .int(Int64(((day + 4) % 7 + 7) % 7))
        case .getHours: return .int(ofDay / 3_600_000)
        case .getMinutes: return .int(ofDay / 60_000 % 60)
        case .getSeconds: return .int(ofDay / 1000 % 60)
        default: return .int(ofDay % 1000)
        }
    }

    func apply2(_ left: CELValue, _ right: CELValue) throws(BaseError) -> CELValue {
        switch self {
        case .equals: return .bool(CELValue.equal(left, right))
        case .differs: return .bool(!CELValue.equal(left, right))
        case .less, .atMost, .more, .atLeast:
            guard let order = CELValue.compare(left, right) else {
                if case .double = left, right.number != nil { return .bool(false) }
                if case .double = right, left.number != nil { return .bool(false) }
                throw wrong(left, right)
            }
            switch self {
            case .less: return .bool(order < 0)
            case .atMost: return .bool(order <= 0)
            case .more: return .bool(order > 0)
            default: return .bool(order >= 0)
            }
        case .contained:
            switch right {
            case .list(let items): return .bool(items.contains { CELValue.equal($0, left) })
            case .map(let entries): return .bool(entries.contains { CELValue.equal($0.key, left) })
            default: throw wrong(left, right)
            }
        case .startsWith, .endsWith, .contains, .matches: return .bool(try text(left, right))
        case .add, .subtract, .multiply, .divide, .remainder: return try arithmetic(left, right)
        default:
            guard case .string(let zone) = right else { throw wrong(left, right) }
            return try part(left, zone: zone)
        }
    }

    private func text(_ left: CELValue, _ right: CELValue) throws(BaseError) -> Bool {
        guard case .string(let text) = left, case .string(let piece) = right else { throw wrong(left, right) }
        switch self {
        case .startsWith: return text.hasPrefix(piece)
        case .endsWith: return text.hasSuffix(piece)
        case .contains: return piece.isEmpty || text.contains(piece)
        default:
            do {
                return try Regex(piece).firstMatch(in: text) != nil
            } catch {
                throw BaseError("bad-regex", "'\(piece)' is no regular expression", cause: error)
            }
        }
    }

    private func arithmetic(_ left: CELValue, _ right: CELValue) throws(BaseError) -> CELValue {
        switch (left, right) {
        case (.int(let a), .int(let b)): return .int(try integer(a, b))
        case (.uint(let a), .uint(let b)): return .uint(try integer(a, b))
        case (.double(let a), .double(let b)):
            switch self {
            case .add: return .double(a + b)
            case .subtract: return .double(a - b)
            case .multiply: return .double(a * b)
            case .divide: return .double(a / b)
            default: throw wrong(left, right)
            }
        case (.string(let a), .string(let b)) where self == .add: return .string(a + b)
        case (.bytes(let a), .bytes(let b)) where self == .add: return .bytes(a + b)
        case (.list(let a), .list(let b)) where self == .add: return .list(a + b)
        case (.timestamp(let a), .duration(let b)) where self == .add: return .timestamp(a + b)
        case (.duration(let a), .timestamp(let b)) where self == .add: return .timestamp(b + a)
        case (.timestamp(let a), .duration(let b)) where self == .subtract: return .timestamp(a + -b)
        case (.timestamp(let a), .timestamp(let b)) where self == .subtract: return .duration(a - b)
        case (.duration(let a), .duration(let b)) where self == .add: return .duration(a + b)
        case (.duration(let a), .duration(let b)) where self == .subtract: return .duration(a - b)
        default: throw wrong(left, right)
        }
    }

    private func integer<T: FixedWidthInteger>(_ a: T, _ b: T) throws(BaseError) -> T {
        let result: (partialValue: T, overflow: Bool)
        switch self {
        case .add: result = a.addingReportingOverflow(b)
        case .subtract: result = a.subtractingReportingOverflow(b)
        case .multiply: result = a.multipliedReportingOverflow(by: b)
        case .divide: result = b == 0 ? (0, true) : a.dividedReportingOverflow(by: b)
        default: result = b == 0 ? (0, true) : a.remainderReportingOverflow(dividingBy: b)
        }
        if b == 0, self == .divide || self == .remainder {
            throw BaseError("divide-by-zero", "an integer is divided by zero")
        }
        guard !result.overflow else { throw overflow }
        return result.partialValue
    }
}
