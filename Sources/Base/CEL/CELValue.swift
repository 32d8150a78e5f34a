/// A value of the Common Expression Language (github.com/google/cel-spec). Moments and spans have millisecond
/// resolution here. `json` is a value that still stands in its document and is converted when looked at.
package enum CELValue: Sendable {
    case null
    case bool(Bool)
    case int(Int64)
    case uint(UInt64)
    case double(Double)
    case string(String)
    case bytes([UInt8])
    case list([CELValue])
    /// Entries in the order they were written.
    case map([(key: CELValue, value: CELValue)])
    case timestamp(Instant)
    case duration(Int64)

    package var typeName: String {
        switch self {
        case .null: "null_type"
        case .bool: "bool"
        case .int: "int"
        case .uint: "uint"
        case .double: "double"
        case .string: "string"
        case .bytes: "bytes"
        case .list: "list"
        case .map: "map"
        case .timestamp: "google.protobuf.Timestamp"
        case .duration: "google.protobuf.Duration"
        }
    }

    /// The value as a number, for feature columns: booleans are 0 and 1, null is nil.
    package var number: Double? {
        switch self {
        case .bool(let value): value ? 1 : 0
        case .int(let value): Double(value)
        case .uint(let value): Double(value)
        case .double(let value): value
        case .timestamp(let value): Double(value.milliseconds) / 1000
        case .duration(let value): Double(value) / 1000
        default: nil
        }
    }

    /// The value as a key or category: strings as they are, numbers and booleans as their text, null as nil.
    package var label: String? {
        switch self {
        case .string(let value): value
        case .int(let value): String(value)
        case .uint(let value): String(value)
        case .bool(let value): value ? "true" : "false"
        case .double(let value): value.isNaN ? nil : Self.text(value)
        case .timestamp(let value): value.description
        default: nil
        }
    }

    static func text(_ value: Double) -> String {
        var out: [UInt8] = []
        JSONNumber.append(value, to: &out)
        return String(decoding: out, as: UTF8.self)
    }

    package var isNull: Bool { if case .null = self { true } else { false } }

    package func write(to writer: inout JSONWriter) {
        switch self {
        case .null: writer.null()
        case .bool(let value): writer.value(value)
        case .int(let value): writer.value(value)
        case .uint(let value): writer.value(Double(value))
        case .double(let value): writer.value(value)
        case .string(let value): writer.value(value)
        case .bytes(let value): writer.value(value.hex)
        case .timestamp(let value): writer.value(value)
        case .duration(let value): writer.value(Self.text(Double(value) / 1000) + "s")
        case .list(let items):
            writer.beginArray()
            for item in items { item.write(to: &writer) }
            writer.endArray()
        case .map(let entries):
            writer.beginObject()
            for entry in entries {
                writer.key(entry.key.label ?? "null")
                entry.value.write(to: &writer)
            }
            writer.endObject()
        }
    }

    package init(_ document: JSONDocument, _ node: Int) {
        switch document.kind(node) {
        case .null: self = .null
        case .trueValue: self = .bool(true)
        case .falseValue: self = .bool(false)
        case .number: self = .double(document.double(node) ?? .nan)
        case .string: self = .string(document.string(node) ?? "")
        case .array:
            var items: [CELValue] = []
            document.forEachElement(node) { items.append(CELValue(document, $0)) }
            self = .list(items)
        case .object:
            var entries: [(key: CELValue, value: CELValue)] = []
            document.forEachMember(node) { key, value in
                entries.append((.string(document.string(key) ?? ""), CELValue(document, value)))
            }
            self = .map(entries)
        }
    }
}

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
        case (.list(let a), .list(let b)):
            a.count == b.count && zip(a, b).allSatisfy { equal($0, $1) }
        case (.map(let a), .map(let b)):
            a.count == b.count
                && a.allSatisfy { entry in b.contains { equal($0.key, entry.key) && equal($0.value, entry.value) } }
        default: compareNumbers(left, right) == 0
        }
    }

    /// -1, 0 or 1; nil when either is no number or NaN.
    static func compareNumbers(_ left: CELValue, _ right: CELValue) -> Int? {
        func order<T: Comparable>(_ a: T, _ b: T) -> Int { a < b ? -1 : (a == b ? 0 : 1) }
        func mixed(_ integer: Int128, _ value: Double) -> Int? {
            if value.isNaN { return nil }
            if value >= 0x1p65 { return -1 }
            if value <= -0x1p65 { return 1 }
            let whole = Int128(value.rounded(.down))
            return integer <= whole ? (integer == whole && Double(whole) == value ? 0 : -1) : 1
        }
        switch (left, right) {
        case (.int(let a), .int(let b)): return order(a, b)
        case (.uint(let a), .uint(let b)): return order(a, b)
        case (.int(let a), .uint(let b)): return order(Int128(a), Int128(b))
        case (.uint(let a), .int(let b)): return order(Int128(a), Int128(b))
        case (.double(let a), .double(let b)): return a.isNaN || b.isNaN ? nil : order(a, b)
        case (.int(let a), .double(let b)): return mixed(Int128(a), b)
        case (.uint(let a), .double(let b)): return mixed(Int128(a), b)
        case (.double, .int), (.double, .uint): return compareNumbers(right, left).map { -$0 }
        default: return nil
        }
    }

    /// Ordering for `<` and its kin; nil when the two cannot be ordered.
    static func compare(_ left: CELValue, _ right: CELValue) -> Int? {
        func order<T: Comparable>(_ a: T, _ b: T) -> Int { a < b ? -1 : (a == b ? 0 : 1) }
        switch (left, right) {
        case (.string(let a), .string(let b)):
            return a == b ? 0 : (a.unicodeScalars.lexicographicallyPrecedes(b.unicodeScalars) ? -1 : 1)
        case (.bytes(let a), .bytes(let b)): return a == b ? 0 : (a.lexicographicallyPrecedes(b) ? -1 : 1)
        case (.bool(let a), .bool(let b)): return order(a ? 1 : 0, b ? 1 : 0)
        case (.timestamp(let a), .timestamp(let b)): return order(a, b)
        case (.duration(let a), .duration(let b)): return order(a, b)
        default: return compareNumbers(left, right)
        }
    }
}
