import Base

/// Room for one small record, written at once: an array would look for room and for other owners at every piece of it.
struct RecordScratch {
    /// Records up to this size, in bytes, are written in one piece; larger ones are not worth a second copy.
    static let limit = 1000
    /// What the record's own length takes at most.
    static let lengthBytes = 10

    private let start: UnsafeMutableRawPointer
    private var count = 0

    /// - Parameter room: as many bytes as will be written.
    init(_ room: UnsafeMutableRawBufferPointer) {
        // Never empty: a record has its length.
        start = room.baseAddress ?? UnsafeMutableRawPointer(bitPattern: 1).unsafelyUnwrapped
    }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: start, count: count) }

    @inline(__always)
    mutating func append(_ byte: UInt8) {
        start.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
        count += 1
    }

    /// Zig-zag, as `ByteWriter` writes them.
    @inline(__always)
    mutating func append(varint value: Int) {
        var rest = UInt64(bitPattern: Int64((value << 1) ^ (value >> 63)))
        while rest >= 0x80 {
            append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        append(UInt8(rest))
    }

    @inline(__always)
    mutating func append(_ more: UnsafeRawBufferPointer) {
        guard let from = more.baseAddress else { return }
        (start + count).copyMemory(from: from, byteCount: more.count)
        count += more.count
    }
}
