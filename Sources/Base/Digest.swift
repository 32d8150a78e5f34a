import Crypto
import Foundation

/// A SHA-256 digest (FIPS 180-4), 32 bytes.
package struct Digest: Hashable, Sendable, Comparable, CustomStringConvertible {
    package static let byteCount = 32
    package static let zero = Digest(words: (0, 0, 0, 0))

    private let a: UInt64
    private let b: UInt64
    private let c: UInt64
    private let d: UInt64

    private init(words: (UInt64, UInt64, UInt64, UInt64)) {
        (a, b, c, d) = words
    }

    /// Takes 32 bytes; nil when the count is another.
    package init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == Digest.byteCount else { return nil }
        var words: [UInt64] = [0, 0, 0, 0]
        for (index, byte) in bytes.enumerated() { words[index / 8] = words[index / 8] << 8 | UInt64(byte) }
        self.init(words: (words[0], words[1], words[2], words[3]))
    }

    /// The same of bytes in memory, of which every frame of a log has some.
    package init?(_ raw: UnsafeRawBufferPointer) {
        guard raw.count == Digest.byteCount else { return nil }
        self.init(loading: raw)
    }

    /// Takes 64 hexadecimal digits; nil for anything else.
    package init?(hex: String) {
        guard let bytes = [UInt8](hex: hex) else { return nil }
        self.init(bytes)
    }

    package static func of(_ bytes: UnsafeRawBufferPointer) -> Digest {
        SHA256.hash(data: bytes).withUnsafeBytes { Digest(loading: $0) }
    }

    package static func of(_ bytes: [UInt8]) -> Digest {
        bytes.withUnsafeBytes { of($0) }
    }

    fileprivate init(loading raw: UnsafeRawBufferPointer) {
        func word(_ index: Int) -> UInt64 {
            UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: index * 8, as: UInt64.self))
        }
        self.init(words: (word(0), word(1), word(2), word(3)))
    }

    package var bytes: [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(Digest.byteCount)
        for word in [a, b, c, d] {
            for shift in stride(from: 56, through: 0, by: -8) {
                result.append(UInt8(truncatingIfNeeded: word >> shift))
            }
        }
        return result
    }

    /// Writes the 32 bytes at an offset.
    package func store(into raw: UnsafeMutableRawBufferPointer, at offset: Int) {
        raw.storeBytes(of: a.bigEndian, toByteOffset: offset, as: UInt64.self)
        raw.storeBytes(of: b.bigEndian, toByteOffset: offset + 8, as: UInt64.self)
        raw.storeBytes(of: c.bigEndian, toByteOffset: offset + 16, as: UInt64.self)
        raw.storeBytes(of: d.bigEndian, toByteOffset: offset + 24, as: UInt64.self)
    }

    /// The first 16 of the 32 bytes, as two numbers.
    package var halves: (UInt64, UInt64) { (a, b) }

    package var hex: String { bytes.hex }
    package var description: String { hex }

    package static func < (left: Digest, right: Digest) -> Bool {
        (left.a, left.b, left.c, left.d) < (right.a, right.b, right.c, right.d)
    }
}

/// SHA-256 over several pieces.
package struct DigestStream {
    private var hasher = SHA256()

    package init() {}

    package mutating func update(_ bytes: UnsafeRawBufferPointer) {
        hasher.update(bufferPointer: bytes)
    }

    package mutating func update(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { hasher.update(bufferPointer: $0) }
    }

    package mutating func update(_ text: String) {
        update([UInt8](text.utf8))
    }

    package func finish() -> Digest {
        hasher.finalize().withUnsafeBytes { Digest(loading: $0) }
    }
}

extension [UInt8] {
    package var hex: String {
        let digits = [UInt8]("0123456789abcdef".utf8)
        var out: [UInt8] = []
        out.reserveCapacity(count * 2)
        for byte in self {
            out.append(digits[Int(byte >> 4)])
            out.append(digits[Int(byte & 15)])
        }
        return String(decoding: out, as: UTF8.self)
    }

    package init?(hex: String) {
        let digits = [UInt8](hex.utf8)
        guard digits.count % 2 == 0 else { return nil }
        func value(_ digit: UInt8) -> UInt8? {
            switch digit {
            case 0x30...0x39: digit - 0x30
            case 0x61...0x66: digit - 0x61 + 10
            case 0x41...0x46: digit - 0x41 + 10
            default: nil
            }
        }
        self = []
        reserveCapacity(digits.count / 2)
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let high = value(digits[index]), let low = value(digits[index + 1]) else { return nil }
            append(high << 4 | low)
        }
    }
}

/// A fast 64-bit hash that is the same in every process (unlike Swift's Hasher), for derived indexes only; wherever
/// equality matters the bytes themselves are compared. Source: the wyhash mixing step (public domain, Wang Yi).
@inlinable
package func stableHash(_ bytes: UnsafeRawBufferPointer, seed: UInt64 = 0) -> UInt64 {
    func mix(_ left: UInt64, _ right: UInt64) -> UInt64 {
        let product = left.multipliedFullWidth(by: right)
        return product.high ^ product.low
    }
    var hash = seed ^ 0xa076_1d64_78bd_642f
    var offset = 0
    let count = bytes.count
    while count - offset >= 8 {
        let word = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        hash = mix(hash ^ word, 0xe703_7ed1_a0b4_28db)
        offset += 8
    }
    var tail: UInt64 = 0
    while offset < count {
        tail = tail << 8 | UInt64(bytes[offset])
        offset += 1
    }
    return mix(hash ^ tail, 0x8ebc_6af0_9c88_c6e3 ^ UInt64(truncatingIfNeeded: count))
}
