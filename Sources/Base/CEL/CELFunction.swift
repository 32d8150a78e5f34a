/// The functions and operators: CEL's standard library, optional values, and of cel-go's extensions what feature
/// expressions want of strings and maths.
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
    case size, int, uint, double, string, bytes, bool, timestamp, duration, dyn, type
    case startsWith, endsWith, contains, matches
    case getFullYear, getMonth, getDayOfMonth, getDate, getDayOfWeek, getDayOfYear
    case getHours, getMinutes, getSeconds, getMilliseconds
    case hasValue, value, or, orValue
    case optionalOf = "optional.of"
    case optionalOfNonZeroValue = "optional.ofNonZeroValue"
    case optionalNone = "optional.none"
    case lowerAscii, upperAscii, trim, split, join, replace, substring, indexOf, lastIndexOf, charAt
    case abs = "math.abs"
    case ceil = "math.ceil"
    case floor = "math.floor"
    case round = "math.round"
    case trunc = "math.trunc"
    case sign = "math.sign"
    case sqrt = "math.sqrt"
    case isNaN = "math.isNaN"
    case isInf = "math.isInf"
    case isFinite = "math.isFinite"
    case greatest = "math.greatest"
    case least = "math.least"

    /// Numbers of values taken, the target of a method included, and whether it is called as a method.
    private var forms: (counts: ClosedRange<Int>, method: Bool?) {
        switch self {
        case .equals, .differs, .less, .atMost, .more, .atLeast, .contained, .add, .subtract, .multiply, .divide,
            .remainder:
            (2...2, false)
        case .not, .negate, .int, .uint, .double, .string, .bytes, .bool, .timestamp, .duration, .dyn, .type, .abs,
            .ceil,
            .floor, .round, .trunc, .sign, .sqrt, .isNaN, .isInf, .isFinite, .optionalOf, .optionalOfNonZeroValue:
            (1...1, false)
        case .optionalNone: (0...0, false)
        case .size: (1...1, nil)
        case .matches: (2...2, nil)
        case .startsWith, .endsWith, .contains, .or, .orValue: (2...2, true)
        case .getFullYear, .getMonth, .getDayOfMonth, .getDate, .getDayOfWeek, .getDayOfYear, .getHours, .getMinutes,
            .getSeconds, .getMilliseconds:
            (1...2, true)
        case .hasValue, .value, .lowerAscii, .upperAscii, .trim: (1...1, true)
        case .split, .substring, .indexOf, .lastIndexOf: (2...3, true)
        case .join: (1...2, true)
        case .charAt: (2...2, true)
        case .replace: (3...4, true)
        case .greatest, .least: (1...64, false)
        }
    }

    /// The function that a call means; nil when there is none with so many values.
    static func find(_ name: String, _ count: Int, method: Bool) -> CELFunction? {
        if name == "-", count == 1 { return .negate }
        guard let function = CELFunction(rawValue: name), function != .negate || name != "negate" else { return nil }
        let forms = function.forms
        return forms.counts.contains(count) && (forms.method ?? method) == method ? function : nil
    }

    /// What the function gives for these values.
    func apply(_ values: [CELValue]) throws(BaseError) -> CELValue {
        switch values.count {
        case 0: return .optional(nil)
        case 1: return try apply1(values[0])
        case 2: return try apply2(values[0], values[1])
        default: return self == .greatest || self == .least ? try extreme(values) : try text(values)
        }
    }

    func apply1(_ value: CELValue) throws(BaseError) -> CELValue {
        switch self {
        case .not:
            guard case .bool(let flag) = value else { throw wrong([value]) }
            return .bool(!flag)
        case .negate: return try negated(value)
        case .size:
            switch value {
            case .string(let text): return .int(Int64(text.unicodeScalars.count))
            case .bytes(let bytes): return .int(Int64(bytes.count))
            case .list(let items): return .int(Int64(items.count))
            case .map(let entries): return .int(Int64(entries.count))
            default: throw wrong([value])
            }
        case .dyn: return value
        case .type: return .type(value.typeName)
        case .int, .uint, .double, .string, .bytes, .bool, .timestamp, .duration: return try convert(value)
        case .optionalOf: return .optional(value)
        case .optionalOfNonZeroValue: return .optional(value.isZero ? nil : value)
        case .hasValue:
            guard case .optional(let inner) = value else { throw wrong([value]) }
            return .bool(inner != nil)
        case .value:
            guard case .optional(let inner) = value else { throw wrong([value]) }
            guard let inner else { throw BaseError("no-value", "value() is asked of an optional without one") }
            return inner
        case .lowerAscii, .upperAscii, .trim, .join: return try text([value])
        case .abs, .ceil, .floor, .round, .trunc, .sign, .sqrt, .isNaN, .isInf, .isFinite: return try maths(value)
        case .greatest, .least: return try extreme([value])
        default: return try part(value, zone: "UTC")
        }
    }

    func apply2(_ left: CELValue, _ right: CELValue) throws(BaseError) -> CELValue {
        switch self {
        case .equals: return .bool(CELValue.equal(left, right))
        case .differs: return .bool(!CELValue.equal(left, right))
        case .less, .atMost, .more, .atLeast: return .bool(try ordered(left, right))
        case .contained:
            switch right {
            case .list(let items): return .bool(items.contains { CELValue.equal($0, left) })
            case .map(let entries): return .bool(CELValue.find(left, in: entries) != nil)
            default: throw wrong([left, right])
            }
        case .startsWith, .endsWith, .contains, .matches: return .bool(try found(left, right))
        case .add, .subtract, .multiply, .divide, .remainder: return try arithmetic(left, right)
        case .split, .join, .substring, .indexOf, .lastIndexOf, .charAt: return try text([left, right])
        case .greatest, .least: return try extreme([left, right])
        default:
            guard case .string(let zone) = right else { throw wrong([left, right]) }
            return try part(left, zone: zone)
        }
    }

    /// What it costs to read a regular expression, in elements.
    private static let patternCost = 20_000

    /// Two of different lengths are told apart at once.
    private static func comparison(_ left: CELValue, _ right: CELValue) -> Int {
        switch (left, right) {
        case (.string(let a), .string(let b)): min(a.utf8.count, b.utf8.count) >> 6
        case (.list(let a), .list(let b)): a.count == b.count ? left.weight + right.weight : 0
        case (.map(let a), .map(let b)): a.count == b.count ? left.weight + right.weight : 0
        case (.bytes(let a), .bytes(let b)): a.count == b.count ? a.count >> 6 : 0
        case (.optional(let a?), .optional(let b?)): comparison(a, b)
        default: 0
        }
    }

    /// Elements that applying it goes over, at most.
    func cost(_ left: CELValue, _ right: CELValue) -> Int {
        switch self {
        case .size, .dyn, .type, .optionalOf, .hasValue, .value: return 0
        case .equals, .differs: return CELFunction.comparison(left, right)
        case .contained:
            switch right {
            case .list(let items): return items.count * (1 + left.weight)
            case .map(let entries): return entries.count
            default: return 0
            }
        case .add:
            if case .list(let a) = left, case .list(let b) = right { return a.count + b.count }
            return left.weight + right.weight
        case .matches: return CELFunction.patternCost + left.weight + right.weight
        case .indexOf, .lastIndexOf, .split, .replace:
            guard case .string(let text) = left, case .string(let piece) = right else { return 0 }
            return (text.utf8.count * (1 + piece.utf8.count)) >> 6
        default: return left.weight + right.weight
        }
    }

    var overflow: BaseError { BaseError("overflow", "'\(rawValue)' leaves the range of its type") }

    func wrong(_ values: [CELValue]) -> BaseError {
        BaseError("bad-type", "'\(rawValue)' does not take \(values.map(\.typeName).joined(separator: " and "))")
    }

    func unreadable(_ text: String) -> BaseError {
        BaseError("bad-value", "'\(rawValue)' cannot read '\(text)'")
    }
}
