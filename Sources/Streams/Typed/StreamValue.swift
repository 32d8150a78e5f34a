import Base

/// A value of a typed stream: read from an event's JSON, and written as JSON where it is emitted or kept in a state.
public protocol StreamValue {
    /// Reads itself from an event's data.
    /// - Throws: what is missing or of another type, by its name; the event goes to the dead letters.
    init(_ fields: FieldReader) throws
    /// Writes itself as JSON.
    func write(to writer: inout JSONWriter)
}

/// A JSON value with typed access to its members; what is missing or of another type is an error that names it.
public struct FieldReader {
    package let document: JSONDocument
    package let node: Int

    @usableFromInline
    package init(_ document: JSONDocument, node: Int = 0) {
        self.document = document
        self.node = node
    }

    /// The member; nil when it is not there, or null.
    private func member(_ key: JSONKey) -> Int? {
        guard document.kind(node) == .object, let found = document.member(node, key), document.kind(found) != .null
        else { return nil }
        return found
    }

    private func wanted<T>(_ value: T?, _ key: JSONKey, _ type: String) throws(StreamsError) -> T {
        guard let value else {
            let isThere = member(key) != nil
            throw StreamsError("bad-value", isThere ? "'\(key.text)' is no \(type)" : "'\(key.text)' is missing")
        }
        return value
    }

    /// nil when it is missing or null; an error when it is there with another type.
    private func optional<T>(
        _ key: JSONKey, _ type: String, _ read: (Int) -> T?
    ) throws(StreamsError) -> T? {
        guard let found = member(key) else { return nil }
        return try wanted(read(found), key, type)
    }

    /// nil where there is none or null.
    public func optionalText(_ key: JSONKey) throws(StreamsError) -> String? {
        try optional(key, "text") { document.string($0) }
    }

    /// nil where there is none or null.
    public func optionalNumber(_ key: JSONKey) throws(StreamsError) -> Double? {
        try optional(key, "number") { document.double($0) }
    }

    /// nil where there is none or null.
    public func optionalInteger(_ key: JSONKey) throws(StreamsError) -> Int64? {
        try optional(key, "whole number") { document.int($0) }
    }

    /// nil where there is none or null.
    public func optionalFlag(_ key: JSONKey) throws(StreamsError) -> Bool? {
        try optional(key, "true or false") { document.bool($0) }
    }

    /// nil where there is none or null; RFC 3339.
    public func optionalTime(_ key: JSONKey) throws(StreamsError) -> Instant? {
        try optional(key, "RFC 3339 time") { document.string($0).flatMap { Instant($0) } }
    }

    /// A text that must be there.
    public func text(_ key: JSONKey) throws(StreamsError) -> String {
        try wanted(try optionalText(key), key, "text")
    }
    /// A number that must be there.
    public func number(_ key: JSONKey) throws(StreamsError) -> Double {
        try wanted(try optionalNumber(key), key, "number")
    }
    /// A whole number that must be there.
    public func integer(_ key: JSONKey) throws(StreamsError) -> Int64 {
        try wanted(try optionalInteger(key), key, "whole number")
    }
    /// A truth value that must be there.
    public func flag(_ key: JSONKey) throws(StreamsError) -> Bool {
        try wanted(try optionalFlag(key), key, "true or false")
    }
    /// An RFC 3339 time that must be there.
    public func time(_ key: JSONKey) throws(StreamsError) -> Instant {
        try wanted(try optionalTime(key), key, "RFC 3339 time")
    }

    /// An inner value; nil when it is missing or null.
    public func optionalValue<V: StreamValue>(_ key: JSONKey, _ type: V.Type = V.self) throws -> V? {
        try member(key).map { try V(FieldReader(document, node: $0)) }
    }

    /// A value of its own type that must be there.
    public func value<V: StreamValue>(_ key: JSONKey, _ type: V.Type = V.self) throws -> V {
        try wanted(try optionalValue(key, type), key, "\(V.self)")
    }
}

extension JSON: StreamValue {
    public init(_ fields: FieldReader) throws { self = try fields.document.value(fields.node) }
    public func write(to writer: inout JSONWriter) { writer.value(self) }
}

extension String: StreamValue {
    public init(_ fields: FieldReader) throws {
        guard let text = fields.document.string(fields.node) else {
            throw StreamsError("bad-value", "the data is no text")
        }
        self = text
    }
    public func write(to writer: inout JSONWriter) { writer.value(self) }
}

extension Int64: StreamValue {
    public init(_ fields: FieldReader) throws {
        guard let number = fields.document.int(fields.node) else {
            throw StreamsError("bad-value", "the data is no whole number")
        }
        self = number
    }
    public func write(to writer: inout JSONWriter) { writer.value(self) }
}

extension Double: StreamValue {
    public init(_ fields: FieldReader) throws {
        guard let number = fields.document.double(fields.node) else {
            throw StreamsError("bad-value", "the data is no number")
        }
        self = number
    }
    public func write(to writer: inout JSONWriter) { writer.value(self) }
}

/// Two values that a join brought together; the second may be missing where the join lets it.
public struct Joined<Left: StreamValue, Right: StreamValue>: StreamValue {
    /// Of the stream, or table, that was joined with another.
    public let left: Left
    /// Of the other one; nil where there was none.
    public let right: Right?

    /// A pair.
    public init(_ left: Left, _ right: Right?) {
        self.left = left
        self.right = right
    }

    /// As `write` writes it.
    public init(_ fields: FieldReader) throws {
        left = try fields.value("left")
        right = try fields.optionalValue("right")
    }

    /// As an object of `left` and `right`.
    public func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.key("left")
        left.write(to: &writer)
        writer.key("right")
        if let right { right.write(to: &writer) } else { writer.null() }
        writer.endObject()
    }
}

/// A typed value in a state, as the bytes of its JSON.
struct Held<Value: StreamValue>: StateValue {
    var value: Value

    init(_ value: Value) { self.value = value }

    func encode(into writer: inout ByteWriter) {
        var json = JSONWriter()
        value.write(to: &json)
        writer.append(sized: json.bytes)
    }

    init(decoding reader: inout ByteReader) throws(BaseError) {
        let document = JSONDocument()
        try document.parse(try reader.sizedBytes())
        do {
            value = try Value(FieldReader(document))
        } catch {
            throw BaseError("bad-state", "a kept \(Value.self) cannot be read", cause: error, fault: .headrace)
        }
    }
}
