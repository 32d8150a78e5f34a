/// Writes one JSON text straight into bytes, for the event path: no tree, no allocation beyond the buffer.
public struct JSONWriter {
    public private(set) var bytes: [UInt8] = []
    private var needsComma = false

    public init(capacity: Int = 256) { bytes.reserveCapacity(capacity) }

    public mutating func reset() {
        bytes.removeAll(keepingCapacity: true)
        needsComma = false
    }

    @inline(__always)
    private mutating func separate() {
        if needsComma { bytes.append(0x2C) }
        needsComma = true
    }

    public mutating func beginObject() {
        separate()
        bytes.append(0x7B)
        needsComma = false
    }

    public mutating func endObject() {
        bytes.append(0x7D)
        needsComma = true
    }

    public mutating func beginArray() {
        separate()
        bytes.append(0x5B)
        needsComma = false
    }

    public mutating func endArray() {
        bytes.append(0x5D)
        needsComma = true
    }

    public mutating func key(_ key: StaticString) {
        separate()
        bytes.append(0x22)
        bytes.append(contentsOf: UnsafeBufferPointer(start: key.utf8Start, count: key.utf8CodeUnitCount))
        bytes.append(0x22)
        bytes.append(0x3A)
        needsComma = false
    }

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

    public mutating func value(_ value: String) {
        separate()
        JSONString.append(value, to: &bytes)
    }

    public mutating func value(_ value: Int64) {
        separate()
        JSONNumber.append(value, to: &bytes)
    }

    public mutating func value(_ value: Int) { self.value(Int64(value)) }

    public mutating func value(_ value: Double) {
        separate()
        JSONNumber.append(value, to: &bytes)
    }

    public mutating func value(_ value: Float) {
        separate()
        JSONNumber.append(value, to: &bytes)
    }

    public mutating func value(_ value: Bool) {
        separate()
        bytes.append(contentsOf: (value ? "true" : "false").utf8)
    }

    public mutating func value(_ value: Instant) {
        separate()
        bytes.append(0x22)
        value.append(to: &bytes)
        bytes.append(0x22)
    }

    public mutating func null() {
        separate()
        bytes.append(contentsOf: "null".utf8)
    }

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
