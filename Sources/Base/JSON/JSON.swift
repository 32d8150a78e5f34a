/// A JSON value as a tree: the control plane's currency (definitions, reports, answers). The event path uses
/// `JSONDocument` and `JSONWriter` instead.
public enum JSON: Sendable, Equatable {
    /// `null`.
    case null
    /// `true` or `false`.
    case bool(Bool)
    /// A whole number of 64 bits.
    case int(Int64)
    /// Any other number.
    case double(Double)
    /// A text.
    case string(String)
    /// Values in their order.
    case array([JSON])
    /// Values by name.
    case object([String: JSON])

    /// Reads UTF-8.
    /// - Throws: `bad-json` with the offset at which it ends to be JSON.
    public init(parsing text: [UInt8]) throws(BaseError) {
        let document = JSONDocument()
        try document.parse(text)
        self = try document.value()
    }

    /// Canonical encoding: keys sorted by their UTF-8 bytes, no spaces, shortest numbers. Equal values give equal bytes.
    public var canonical: [UInt8] {
        var out: [UInt8] = []
        append(to: &out)
        return out
    }

    /// The canonical form as text.
    public var text: String { String(decoding: canonical, as: UTF8.self) }

    func append(to out: inout [UInt8]) {
        switch self {
        case .null: out.append(contentsOf: "null".utf8)
        case .bool(let value): out.append(contentsOf: (value ? "true" : "false").utf8)
        case .int(let value): JSONNumber.append(value, to: &out)
        case .double(let value): JSONNumber.append(value, to: &out)
        case .string(let value): JSONString.append(value, to: &out)
        case .array(let items):
            out.append(0x5B)
            for (index, item) in items.enumerated() {
                if index > 0 { out.append(0x2C) }
                item.append(to: &out)
            }
            out.append(0x5D)
        case .object(let members):
            out.append(0x7B)
            var first = true
            for (key, value) in JSON.sorted(members) {
                if !first { out.append(0x2C) }
                first = false
                JSONString.append(key, to: &out)
                out.append(0x3A)
                value.append(to: &out)
            }
            out.append(0x7D)
        }
    }

    /// Members in the order of the canonical encoding.
    public static func sorted(_ members: [String: JSON]) -> [(key: String, value: JSON)] {
        members.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
    }

    /// A member of an object; nil where there is none.
    public subscript(key: String) -> JSON? {
        guard case .object(let members) = self else { return nil }
        return members[key]
    }

    /// nil for anything but a text.
    public var string: String? {
        guard case .string(let value) = self else { return nil }
        return value
    }

    /// nil for anything but a number.
    public var double: Double? {
        switch self {
        case .int(let value): Double(value)
        case .double(let value): value
        default: nil
        }
    }

    /// The integer, also when it is written as 3.0.
    public var int: Int64? {
        switch self {
        case .int(let value): value
        case .double(let value): Int64(exactly: value)
        default: nil
        }
    }

    /// nil for anything but a truth value.
    public var bool: Bool? {
        guard case .bool(let value) = self else { return nil }
        return value
    }

    /// nil for anything but an array.
    public var array: [JSON]? {
        guard case .array(let items) = self else { return nil }
        return items
    }

    /// nil for anything but an object.
    public var object: [String: JSON]? {
        guard case .object(let members) = self else { return nil }
        return members
    }
}

extension JSON: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral,
    ExpressibleByBooleanLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByNilLiteral
{
    public init(stringLiteral value: String) { self = .string(value) }
    public init(integerLiteral value: Int64) { self = .int(value) }
    public init(floatLiteral value: Double) { self = .double(value) }
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    public init(arrayLiteral elements: JSON...) { self = .array(elements) }
    public init(nilLiteral: ()) { self = .null }
    public init(dictionaryLiteral elements: (String, JSON)...) {
        self = .object(Dictionary(elements, uniquingKeysWith: { _, last in last }))
    }
}
