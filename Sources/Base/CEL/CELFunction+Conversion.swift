extension CELFunction {
    /// The type conversions (cel-spec langdef.md, "Type conversions").
    func convert(_ value: CELValue) throws(BaseError) -> CELValue {
        switch (self, value) {
        case (.int, .int), (.uint, .uint), (.double, .double), (.string, .string), (.bytes, .bytes), (.bool, .bool),
            (.timestamp, .timestamp), (.duration, .duration):
            return value
        case (.int, _), (.uint, _), (.double, _): return try numeric(value)
        case (.string, .bytes(let bytes)):
            guard let text = String(validating: bytes, as: UTF8.self) else {
                throw BaseError("bad-utf8", "the bytes are not UTF-8")
            }
            return .string(text)
        case (.string, .duration(let span)): return .string(CELDuration.text(span))
        case (.string, .double(let number)): return .string(CELValue.text(number))
        case (.string, .int), (.string, .uint), (.string, .bool), (.string, .timestamp):
            guard let text = value.label else { throw wrong([value]) }
            return .string(text)
        case (.bytes, .string(let text)): return .bytes([UInt8](text.utf8))
        case (.bool, .string(let text)):
            switch text {
            case "1", "t", "T", "true", "TRUE", "True": return .bool(true)
            case "0", "f", "F", "false", "FALSE", "False": return .bool(false)
            default: throw unreadable(text)
            }
        case (.timestamp, .string(let text)):
            guard let moment = CELTimestamp(text) else { throw unreadable(text) }
            return .timestamp(moment)
        case (.timestamp, .int(let seconds)):
            guard let moment = CELTimestamp(seconds: seconds, nanoseconds: 0) else { throw overflow }
            return .timestamp(moment)
        case (.duration, .string(let text)):
            guard let span = CELDuration.parse(text) else { throw unreadable(text) }
            return .duration(span)
        default: throw wrong([value])
        }
    }

    private func numeric(_ value: CELValue) throws(BaseError) -> CELValue {
        switch (self, value) {
        case (.int, .uint(let number)):
            guard let exact = Int64(exactly: number) else { throw overflow }
            return .int(exact)
        case (.int, .double(let number)):
            guard number > -0x1p63, number < 0x1p63 else { throw overflow }
            return .int(Int64(number))
        case (.int, .string(let text)):
            guard let number = Int64(text) else { throw unreadable(text) }
            return .int(number)
        case (.int, .timestamp(let moment)): return .int(moment.seconds)
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
        default: throw wrong([value])
        }
    }

    /// A calendar part of a timestamp in a zone (a name of tzdata or `+HH:MM`), or a total of a duration.
    func part(_ value: CELValue, zone: String) throws(BaseError) -> CELValue {
        if case .duration(let span) = value {
            switch self {
            case .getHours: return .int(span / 3_600_000_000_000)
            case .getMinutes: return .int(span / 60_000_000_000)
            case .getSeconds: return .int(span / 1_000_000_000)
            case .getMilliseconds: return .int(span / 1_000_000 % 1000)
            default: throw wrong([value])
            }
        }
        guard case .timestamp(let moment) = value else { throw wrong([value]) }
        let offset = zone == "UTC" ? 0 : try CELFunction.offset(zone, at: moment.instant)
        let local = moment.instant + Int64(offset) * 1000
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
        case .getMilliseconds: return .int(ofDay % 1000)
        default: throw wrong([value])
        }
    }

    private static func offset(_ zone: String, at moment: Instant) throws(BaseError) -> Int {
        var digits = Substring(zone)
        let negative = digits.first == "-"
        if negative || digits.first == "+" { digits = digits.dropFirst() }
        let parts = digits.split(separator: ":", omittingEmptySubsequences: false)
        if parts.count == 2, parts.allSatisfy({ $0.count == 2 }), let hours = Int(parts[0]),
            let minutes = Int(parts[1]),
            hours < 24, minutes < 60, hours >= 0, minutes >= 0
        {
            return (hours * 3600 + minutes * 60) * (negative ? -1 : 1)
        }
        return try TimeZoneRules.named(zone).offset(at: moment)
    }
}
