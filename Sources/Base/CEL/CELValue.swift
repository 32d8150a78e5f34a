/// A value of the Common Expression Language (github.com/google/cel-spec, langdef.md "Values").
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
    case timestamp(CELTimestamp)
    /// Nanoseconds.
    case duration(Int64)
    /// A type as a value, by its name.
    case type(String)
    /// A value that may be absent (cel-spec proposal 246).
    indirect case optional(CELValue?)

    /// A moment of the platform.
    package static func instant(_ instant: Instant) -> CELValue { .timestamp(CELTimestamp(instant)) }

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
        case .type: "type"
        case .optional: "optional_type"
        }
    }

    /// The value as a number, for feature columns: booleans are 0 and 1, moments and spans are seconds, an optional is what
    /// it holds, and null is nil.
    package var number: Double? {
        switch self {
        case .bool(let value): value ? 1 : 0
        case .int(let value): Double(value)
        case .uint(let value): Double(value)
        case .double(let value): value
        case .timestamp(let value):
            value.nanoseconds % 1_000_000 == 0
                ? Double(value.instant.milliseconds) / 1000
                : Double(value.seconds) + Double(value.nanoseconds) / 1e9
        case .duration(let value): CELDuration.seconds(value)
        case .optional(let value): value?.number
        default: nil
        }
    }

    /// The value as a key or category: strings as they are, numbers and booleans as their text, an optional as what it
    /// holds, null as nil.
    package var label: String? {
        switch self {
        case .string(let value): value
        case .int(let value): String(value)
        case .uint(let value): String(value)
        case .bool(let value): value ? "true" : "false"
        case .double(let value):
            value.isNaN ? nil : Int64(exactly: value).map { String($0) } ?? Self.text(value)
        case .timestamp(let value): value.text
        case .optional(let value): value?.label
        default: nil
        }
    }

    /// The label of a value of JSON. A number that is written as an integer keeps all its digits: many ids have more than a
    /// double holds.
    package static func label(_ document: JSONDocument, _ node: Int) -> String? {
        switch document.kind(node) {
        case .string: document.string(node)
        case .number: document.int(node).map { String($0) } ?? CELValue.double(document.double(node) ?? .nan).label
        case .trueValue: "true"
        case .falseValue: "false"
        default: nil
        }
    }

    static func text(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Infinity" : "+Infinity" }
        var out: [UInt8] = []
        JSONNumber.append(value, to: &out)
        return String(decoding: out, as: UTF8.self)
    }

    package var isNull: Bool {
        switch self {
        case .null, .optional(nil): true
        default: false
        }
    }

    /// What `optional.ofNonZeroValue` takes for nothing.
    var isZero: Bool {
        switch self {
        case .null, .optional(nil): true
        case .bool(let value): !value
        case .int(let value): value == 0
        case .uint(let value): value == 0
        case .double(let value): value == 0
        case .string(let value): value.isEmpty
        case .bytes(let value): value.isEmpty
        case .list(let value): value.isEmpty
        case .map(let value): value.isEmpty
        case .duration(let value): value == 0
        case .timestamp(let value): value.seconds == 0 && value.nanoseconds == 0
        case .type, .optional: false
        }
    }

    /// The value that a map has under a key; nil when there is none.
    static func find(_ key: CELValue, in entries: [(key: CELValue, value: CELValue)]) -> CELValue? {
        for entry in entries where equal(entry.key, key) { return entry.value }
        return nil
    }

    package func write(to writer: inout JSONWriter) {
        switch self {
        case .null, .optional(nil): writer.null()
        case .bool(let value): writer.value(value)
        case .int(let value): writer.value(value)
        case .uint(let value): writer.value(Double(value))
        case .double(let value): writer.value(value)
        case .string(let value), .type(let value): writer.value(value)
        case .bytes(let value): writer.value(value.hex)
        case .timestamp(let value): writer.value(value.text)
        case .duration(let value): writer.value(CELDuration.text(value))
        case .optional(let value?): value.write(to: &writer)
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

    /// A value of JSON; every number is a double, as JSON has no others.
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
