/// Appends numbers and bytes in a stated byte order; the one way every file and wire format of ours is written.
package struct ByteWriter: Sendable {
    package var bytes: [UInt8]

    package init(capacity: Int = 0) {
        bytes = []
        bytes.reserveCapacity(capacity)
    }

    package var count: Int { bytes.count }

    @inlinable
    package mutating func append<T: FixedWidthInteger>(big value: T) {
        withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
    }

    @inlinable
    package mutating func append<T: FixedWidthInteger>(little value: T) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    @inlinable
    package mutating func append(_ byte: UInt8) { bytes.append(byte) }

    @inlinable
    package mutating func append(_ more: [UInt8]) { bytes.append(contentsOf: more) }

    @inlinable
    package mutating func append(_ more: UnsafeRawBufferPointer) { bytes.append(contentsOf: more) }

    /// A length (u32, little-endian) and then the UTF-8 bytes.
    package mutating func append(sized text: String) {
        var text = text
        text.withUTF8 {
            append(little: UInt32($0.count))
            bytes.append(contentsOf: $0)
        }
    }

    package mutating func append(sized more: [UInt8]) {
        append(little: UInt32(more.count))
        bytes.append(contentsOf: more)
    }

    package mutating func append(_ value: Double) { append(little: value.bitPattern) }

    package mutating func append(_ value: Float) { append(little: value.bitPattern) }

    /// Zig-zag varint as in Kafka's record format and Protocol Buffers.
    @inlinable
    package mutating func append(varint value: Int64) {
        var rest = UInt64(bitPattern: (value << 1) ^ (value >> 63))
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    /// Overwrites what stands at `offset`.
    package mutating func patch<T: FixedWidthInteger>(big value: T, at offset: Int) {
        withUnsafeBytes(of: value.bigEndian) { raw in
            for (index, byte) in raw.enumerated() { bytes[offset + index] = byte }
        }
    }

    package mutating func patch<T: FixedWidthInteger>(little value: T, at offset: Int) {
        withUnsafeBytes(of: value.littleEndian) { raw in
            for (index, byte) in raw.enumerated() { bytes[offset + index] = byte }
        }
    }

    /// Bytes that `append(varint:)` would take.
    @inlinable
    package static func varintLength(_ value: Int64) -> Int {
        let rest = UInt64(bitPattern: (value << 1) ^ (value >> 63))
        return rest == 0 ? 1 : (64 - rest.leadingZeroBitCount + 6) / 7
    }
}
