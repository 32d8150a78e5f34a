extension CELValue {
    /// CEL equality: numbers compare across types, everything else only within its own.
    package static func equal(_ left: CELValue, _ right: CELValue) -> Bool {
        switch (left, right) {
        case (.null, .null): true
        case (.bool(let a), .bool(let b)): a == b
        // Code points decide, not canonical equivalence.
        case (.string(let a), .string(let b)): a.utf8.elementsEqual(b.utf8)
        case (.bytes(let a), .bytes(let b)): a == b
        case (.timestamp(let a), .timestamp(let b)): a == b
        case (.duration(let a), .duration(let b)): a == b
        case (.type(let a), .type(let b)): a == b
        case (.optional(let a), .optional(let b)):
            if let a, let b { equal(a, b) } else { a == nil && b == nil }
        case (.list(let a), .list(let b)):
            a.count == b.count && zip(a, b).allSatisfy { equal($0, $1) }
        case (.map(let a), .map(let b)):
            a.count == b.count && equalEntries(a, b)
        default: compareNumbers(left, right) == 0
        }
    }

    /// What a map's key is, whatever its type of number; nil for what is none.
    private enum MapKey: Hashable {
        case bool(Bool)
        case number(Int128)
        case text([UInt8])

        init?(_ value: CELValue) {
            switch value {
            case .bool(let flag): self = .bool(flag)
            case .int(let number): self = .number(Int128(number))
            case .uint(let number): self = .number(Int128(number))
            case .string(let text): self = .text(Array(text.utf8))
            default: return nil
            }
        }
    }

    /// By what their keys are: entries have no order.
    private static func equalEntries(
        _ left: [(key: CELValue, value: CELValue)], _ right: [(key: CELValue, value: CELValue)]
    ) -> Bool {
        var places: [MapKey: Int] = [:]
        places.reserveCapacity(right.count)
        for (place, entry) in right.enumerated() { if let key = MapKey(entry.key) { places[key] = place } }
        return left.allSatisfy { entry in
            MapKey(entry.key).flatMap { places[$0] }.map { equal(entry.value, right[$0].value) } ?? false
        }
    }

    /// Entries of a map, which a look-up may go over.
    var entryCount: Int {
        switch self {
        case .map(let entries): entries.count
        case .optional(let inner?): inner.entryCount
        default: 0
        }
    }

    /// Elements within it, all the way down; 64 bytes of a text are one.
    var weight: Int {
        switch self {
        case .string(let text), .type(let text): text.utf8.count >> 6
        case .bytes(let bytes): bytes.count >> 6
        case .list(let items): items.reduce(items.count) { $0 + $1.weight }
        case .map(let entries): entries.reduce(entries.count) { $0 + $1.key.weight + $1.value.weight }
        case .optional(let inner?): inner.weight
        default: 0
        }
    }

    /// -1, 0 or 1; nil when either is no number or NaN.
    static func compareNumbers(_ left: CELValue, _ right: CELValue) -> Int? {
        func order<T: Comparable>(_ a: T, _ b: T) -> Int { a < b ? -1 : (a == b ? 0 : 1) }
        switch (left, right) {
        case (.int(let a), .int(let b)): return order(a, b)
        case (.uint(let a), .uint(let b)): return order(a, b)
        case (.int(let a), .uint(let b)): return order(Int128(a), Int128(b))
        case (.uint(let a), .int(let b)): return order(Int128(a), Int128(b))
        case (.double(let a), .double(let b)): return a.isNaN || b.isNaN ? nil : order(a, b)
        // The integer is rounded to a double, as the conformance tests want it (`lossy_double`).
        case (.int(let a), .double(let b)): return b.isNaN ? nil : order(Double(a), b)
        case (.uint(let a), .double(let b)): return b.isNaN ? nil : order(Double(a), b)
        case (.double, .int), (.double, .uint): return compareNumbers(right, left).map { -$0 }
        default: return nil
        }
    }

    /// Ordering for `<` and its kin; nil when the two cannot be ordered.
    static func compare(_ left: CELValue, _ right: CELValue) -> Int? {
        func order<T: Comparable>(_ a: T, _ b: T) -> Int { a < b ? -1 : (a == b ? 0 : 1) }
        switch (left, right) {
        case (.string(let a), .string(let b)):
            return a.utf8.elementsEqual(b.utf8) ? 0 : (a.utf8.lexicographicallyPrecedes(b.utf8) ? -1 : 1)
        case (.bytes(let a), .bytes(let b)): return a == b ? 0 : (a.lexicographicallyPrecedes(b) ? -1 : 1)
        case (.bool(let a), .bool(let b)): return order(a ? 1 : 0, b ? 1 : 0)
        case (.timestamp(let a), .timestamp(let b)): return order(a, b)
        case (.duration(let a), .duration(let b)): return order(a, b)
        default: return compareNumbers(left, right)
        }
    }
}
