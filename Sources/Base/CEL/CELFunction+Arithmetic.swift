extension CELFunction {
    func negated(_ value: CELValue) throws(BaseError) -> CELValue {
        switch value {
        case .int(let number):
            guard number != .min else { throw overflow }
            return .int(-number)
        case .double(let number): return .double(-number)
        case .duration(let span):
            guard span != .min else { throw overflow }
            return .duration(-span)
        default: throw wrong([value])
        }
    }

    /// `<` and its kin; every one of them is false beside NaN.
    func ordered(_ left: CELValue, _ right: CELValue) throws(BaseError) -> Bool {
        guard let order = CELValue.compare(left, right) else {
            guard left.isNumber, right.isNumber else { throw wrong([left, right]) }
            return false
        }
        switch self {
        case .less: return order < 0
        case .atMost: return order <= 0
        case .more: return order > 0
        default: return order >= 0
        }
    }

    func arithmetic(_ left: CELValue, _ right: CELValue) throws(BaseError) -> CELValue {
        switch (left, right) {
        case (.int(let a), .int(let b)): return .int(try integer(a, b))
        case (.uint(let a), .uint(let b)): return .uint(try integer(a, b))
        case (.double(let a), .double(let b)):
            switch self {
            case .add: return .double(a + b)
            case .subtract: return .double(a - b)
            case .multiply: return .double(a * b)
            case .divide: return .double(a / b)
            default: throw wrong([left, right])
            }
        case (.string(let a), .string(let b)) where self == .add:
            try CELFunction.require(a.utf8.count + b.utf8.count)
            return .string(a + b)
        case (.bytes(let a), .bytes(let b)) where self == .add:
            try CELFunction.require(a.count + b.count)
            return .bytes(a + b)
        case (.list(let a), .list(let b)) where self == .add:
            try CELFunction.require(a.count + b.count)
            return .list(a + b)
        case (.timestamp(let a), .duration(let b)) where self == .add: return .timestamp(try checked(a.adding(b)))
        case (.duration(let a), .timestamp(let b)) where self == .add: return .timestamp(try checked(b.adding(a)))
        case (.timestamp(let a), .duration(let b)) where self == .subtract:
            guard b != .min else { throw overflow }
            return .timestamp(try checked(a.adding(-b)))
        case (.timestamp(let a), .timestamp(let b)) where self == .subtract: return .duration(try checked(a.since(b)))
        case (.duration(let a), .duration(let b)) where self == .add || self == .subtract:
            return .duration(try integer(a, b))
        default: throw wrong([left, right])
        }
    }

    /// Refuses what would grow beyond its limit: an expression can double a text with every operator.
    static func require(_ count: Int) throws(BaseError) {
        guard count <= Limits.expressionBytes else {
            throw BaseError("too-long", "an expression may put \(Limits.expressionBytes) bytes or elements together")
        }
    }

    private func checked<T>(_ value: T?) throws(BaseError) -> T {
        guard let value else { throw overflow }
        return value
    }

    private func integer<T: FixedWidthInteger>(_ a: T, _ b: T) throws(BaseError) -> T {
        let result: (partialValue: T, overflow: Bool)
        switch self {
        case .add: result = a.addingReportingOverflow(b)
        case .subtract: result = a.subtractingReportingOverflow(b)
        case .multiply: result = a.multipliedReportingOverflow(by: b)
        default:
            guard b != 0 else { throw BaseError("divide-by-zero", "an integer is divided by zero") }
            result = self == .divide ? a.dividedReportingOverflow(by: b) : a.remainderReportingOverflow(dividingBy: b)
        }
        guard !result.overflow else { throw overflow }
        return result.partialValue
    }

    /// cel-go's math extension.
    func maths(_ value: CELValue) throws(BaseError) -> CELValue {
        switch (self, value) {
        case (.abs, .int(let number)):
            guard number != .min else { throw overflow }
            return .int(Swift.abs(number))
        case (.sign, .int(let number)): return .int(number.signum())
        case (.abs, .uint): return value
        case (.sign, .uint(let number)): return .uint(number == 0 ? 0 : 1)
        case (.sqrt, .int(let number)): return .double(Double(number).squareRoot())
        case (.sqrt, .uint(let number)): return .double(Double(number).squareRoot())
        case (_, .double(let number)):
            switch self {
            case .abs: return .double(Swift.abs(number))
            case .ceil: return .double(number.rounded(.up))
            case .floor: return .double(number.rounded(.down))
            case .round: return .double(number.rounded(.toNearestOrAwayFromZero))
            case .trunc: return .double(number.rounded(.towardZero))
            case .sign: return .double(number > 0 ? 1 : (number < 0 ? -1 : number))
            case .sqrt: return .double(number.squareRoot())
            case .isNaN: return .bool(number.isNaN)
            case .isInf: return .bool(number.isInfinite)
            default: return .bool(number.isFinite)
            }
        default: throw wrong([value])
        }
    }

    /// math.greatest and math.least: of the values, or of the one list; the first of equal ones, and NaN where there is one.
    func extreme(_ values: [CELValue]) throws(BaseError) -> CELValue {
        var values = values
        if values.count == 1, case .list(let items) = values[0] { values = items }
        guard var best = values.first else { throw BaseError("bad-value", "'\(rawValue)' needs a number") }
        for value in values {
            guard value.isNumber else { throw wrong([value]) }
            if case .double(let number) = value, number.isNaN { return value }
            guard let order = CELValue.compareNumbers(value, best) else { continue }
            if self == .greatest ? order > 0 : order < 0 { best = value }
        }
        return best
    }
}

extension CELValue {
    var isNumber: Bool {
        switch self {
        case .int, .uint, .double: true
        default: false
        }
    }
}
