/// Reads numbers and bytes from a buffer, refusing to step past its end.
package struct ByteReader {
    package let bytes: UnsafeRawBufferPointer
    @usableFromInline package var offset: Int

    @inlinable
    package init(_ bytes: UnsafeRawBufferPointer, offset: Int = 0) {
        self.bytes = bytes
        self.offset = offset
    }

    @inlinable
    package var remaining: Int { bytes.count - offset }

    @inlinable
    @inline(__always)
    package func require(_ count: Int) throws(BaseError) {
        guard count >= 0, remaining >= count else { throw short(count) }
    }

    @usableFromInline
    @inline(never)
    func short(_ count: Int) -> BaseError {
        BaseError("short-read", "needed \(count) bytes at offset \(offset), only \(remaining) are left", fault: .world)
    }

    @inlinable
    @inline(__always)
    package mutating func big<T: FixedWidthInteger>(_ type: T.Type = T.self) throws(BaseError) -> T {
        try require(MemoryLayout<T>.size)
        defer { offset += MemoryLayout<T>.size }
        return T(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    @inlinable
    @inline(__always)
    package mutating func little<T: FixedWidthInteger>(_ type: T.Type = T.self) throws(BaseError) -> T {
        try require(MemoryLayout<T>.size)
        defer { offset += MemoryLayout<T>.size }
        return T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    @inlinable
    @inline(__always)
    package mutating func byte() throws(BaseError) -> UInt8 { try big(UInt8.self) }

    @inlinable
    package mutating func double() throws(BaseError) -> Double { Double(bitPattern: try little(UInt64.self)) }

    package mutating func float() throws(BaseError) -> Float { Float(bitPattern: try little(UInt32.self)) }

    @inlinable
    package mutating func varint() throws(BaseError) -> Int64 {
        var result: UInt64 = 0
        var shift: UInt64 = 0
        while true {
            guard offset < bytes.count, shift < 64 else {
                throw BaseError("bad-varint", "no varint ends at offset \(offset)", fault: .world)
            }
            let byte = bytes[offset]
            offset += 1
            result |= UInt64(byte & 0x7F) << shift
            if byte & 0x80 == 0 { return Int64(bitPattern: result >> 1) ^ -Int64(bitPattern: result & 1) }
            shift += 7
        }
    }

    @inlinable
    @inline(__always)
    package mutating func slice(_ count: Int) throws(BaseError) -> UnsafeRawBufferPointer {
        try require(count)
        defer { offset += count }
        return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
    }

    package mutating func sizedBytes() throws(BaseError) -> [UInt8] {
        let count = try little(UInt32.self)
        return [UInt8](try slice(Int(count)))
    }

    package mutating func sizedText() throws(BaseError) -> String {
        let count = try little(UInt32.self)
        return String(decoding: try slice(Int(count)), as: UTF8.self)
    }

    @inlinable
    @inline(__always)
    package mutating func skip(_ count: Int) throws(BaseError) {
        try require(count)
        offset += count
    }
}

extension [UInt8] {
    /// The bytes as a raw buffer, keeping the body's typed error.
    @inlinable
    package func withRaw<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        try withUnsafeBufferPointer { buffer throws(E) in try body(UnsafeRawBufferPointer(buffer)) }
    }
}
