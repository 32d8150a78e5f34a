/// Writes one JSON text straight into bytes, for the event path: no tree, no allocation beyond the buffer.
public struct JSONWriter {
    /// What was written so far.
    public private(set) var bytes: [UInt8] = []
    private var needsComma = false

    /// - Parameter capacity: bytes that are set aside at first.
    public init(capacity: Int = 256) { bytes.reserveCapacity(capacity) }

    /// Begins anew in the same memory.
    public mutating func reset() {
        bytes.removeAll(keepingCapacity: true)
        needsComma = false
    }

    @inline(__always)
    private mutating func separate() {
        if needsComma { bytes.append(0x2C) }
        needsComma = true
    }

    /// `{`; members follow.
    public mutating func beginObject() {
        separate()
        bytes.append(0x7B)
        needsComma = false
    }

    /// `}`.
    public mutating func endObject() {
        bytes.append(0x7D)
        needsComma = true
    }

    /// `[`; values follow.
    public mutating func beginArray() {
        separate()
        bytes.append(0x5B)
        needsComma = false
    }

    /// `]`.
    public mutating func endArray() {
        bytes.append(0x5D)
        needsComma = true
    }

    /// A member's name that needs no escapes.
    public mutating func key(_ key: StaticString) {
        separate()
        bytes.append(0x22)
        bytes.append(contentsOf: UnsafeBufferPointer(start: key.utf8Start, count: key.utf8CodeUnitCount))
        bytes.append(0x22)
        bytes.append(0x3A)
        needsComma = false
    }

    /// A member's name.
    public mutating func key(_ key: String) {
        separate()
        JSONString.append(key, to: &bytes)
        bytes.append(0x3A)
        needsComma = false
    }

    /// A key as `escaped` gives it.
    public mutating func key(escaped key: [UInt8]) {
        separate()
        bytes.append(contentsOf: key)
        needsComma = false
    }

    /// A key with its quotes and colon, for those that are written again and again.
    public static func escaped(key: String) -> [UInt8] {
        var bytes: [UInt8] = []
        JSONString.append(key, to: &bytes)
        bytes.append(0x3A)
        return bytes
    }

    /// A text.
    public mutating func value(_ value: String) {
        separate()
        JSONString.append(value, to: &bytes)
    }

    /// A whole number.
    public mutating func value(_ value: Int64) {
        separate()
        JSONNumber.append(value, to: &bytes)
    }

    /// A whole number.
    public mutating func value(_ value: Int) { self.value(Int64(value)) }

    /// A number in its shortest form; `null` for what JSON has no number for.
    public mutating func value(_ value: Double) {
        separate()
        JSONNumber.append(value, to: &bytes)
    }

    /// A number in its shortest form; `null` for what JSON has no number for.
    public mutating func value(_ value: Float) {
        separate()
        JSONNumber.append(value, to: &bytes)
    }

    /// `true` or `false`.
    public mutating func value(_ value: Bool) {
        separate()
        bytes.append(contentsOf: (value ? "true" : "false").utf8)
    }

    /// An RFC 3339 time.
    public mutating func value(_ value: Instant) {
        separate()
        bytes.append(0x22)
        value.append(to: &bytes)
        bytes.append(0x22)
    }

    /// `null`.
    public mutating func null() {
        separate()
        bytes.append(contentsOf: "null".utf8)
    }

    /// Any value, in its canonical form.
    public mutating func value(_ value: JSON) {
        separate()
        value.append(to: &bytes)
    }

    /// Takes bytes that are already a JSON value.
    public mutating func raw(_ value: some Sequence<UInt8>) {
        separate()
        bytes.append(contentsOf: value)
    }
}
