import Base
import CPlatform
import Crypto

/// One person's place in the key file: 128 bytes, little-endian, never across a sector's edge. docs/formats/keys.md.
struct KeySlot {
    static let headerSize = 512
    static let size = 128
    static let keySize = 32
    private static let magic = [UInt8]("HRKEYS1\0".utf8)
    private static let secretOffset = 24
    private static let headerCRC = 56

    private static let idOffset = 8
    private static let tagOffset = 24
    private static let keyOffset = 56
    private static let createdOffset = 88
    private static let erasedOffset = 96

    let id: KeyID
    /// A keyed digest of the person's name; zero once erased.
    let tag: Base.Digest
    /// 32 bytes; zeros once erased.
    let key: [UInt8]
    let created: Instant
    let erased: Instant?

    init(id: KeyID, tag: Base.Digest, key: [UInt8], created: Instant) {
        self.id = id
        self.tag = tag
        self.key = key
        self.created = created
        erased = nil
    }

    init(erased id: KeyID, at moment: Instant) {
        self.id = id
        tag = .zero
        key = Array(repeating: 0, count: KeySlot.keySize)
        created = Instant(milliseconds: 0)
        erased = moment
    }

    /// What 128 bytes may be.
    enum Decoded {
        case free
        case damaged
        case slot(KeySlot)
    }

    static func offset(_ number: UInt32) -> Int64 { Int64(headerSize) + Int64(number) * Int64(size) }

    private enum State: UInt8 { case live = 1, erased = 2 }

    var encoded: [UInt8] {
        var out = ByteWriter(capacity: KeySlot.size)
        out.append(erased == nil ? State.live.rawValue : State.erased.rawValue)
        out.append([0, 0, 0])
        out.append(little: UInt32(0))
        out.append(id.bytes)
        out.append(tag.bytes)
        out.append(key)
        out.append(little: created.milliseconds)
        out.append(little: erased?.milliseconds ?? 0)
        out.append(Array(repeating: UInt8(0), count: KeySlot.size - out.count))
        out.patch(little: KeySlot.crc(out.bytes), at: 4)
        return out.bytes
    }

    /// Over everything but the CRC's own four bytes.
    private static func crc(_ bytes: [UInt8]) -> UInt32 {
        bytes.withUnsafeBytes { raw in
            let head = headrace_crc32c(0, raw.baseAddress, 4)
            let rest = UnsafeRawBufferPointer(rebasing: raw[8...])
            return headrace_crc32c(head, rest.baseAddress, rest.count)
        }
    }

    static func decode(_ bytes: [UInt8]) -> Decoded {
        guard bytes.count == size else { return .damaged }
        if bytes.allSatisfy({ $0 == 0 }) { return .free }
        return bytes.withUnsafeBytes { raw in
            func number<T: FixedWidthInteger>(_ offset: Int) -> T {
                T(littleEndian: raw.loadUnaligned(fromByteOffset: offset, as: T.self))
            }
            guard number(4) == crc(bytes), let state = State(rawValue: raw[0]),
                let id = KeyID(Array(bytes[idOffset..<tagOffset]).hex),
                let tag = Base.Digest(bytes[tagOffset..<keyOffset])
            else { return .damaged }
            if state == .erased { return .slot(KeySlot(erased: id, at: Instant(milliseconds: number(erasedOffset)))) }
            return .slot(
                KeySlot(
                    id: id, tag: tag, key: Array(bytes[keyOffset..<createdOffset]),
                    created: Instant(milliseconds: number(createdOffset))))
        }
    }

    // MARK: Header

    /// A header with a secret of its own.
    static func newHeader() -> [UInt8] {
        var out = ByteWriter(capacity: headerSize)
        out.append(magic)
        out.append(KeyID.random().bytes)
        out.append(SymmetricKey(size: .bits256).withUnsafeBytes { Array($0) })
        out.append(little: out.bytes.withUnsafeBytes { headrace_crc32c(0, $0.baseAddress, $0.count) })
        out.append(Array(repeating: UInt8(0), count: headerSize - out.count))
        return out.bytes
    }

    static func identity(_ header: [UInt8]) -> String { Array(header[magic.count..<secretOffset]).hex }

    /// The secret of a header; nil when it is damaged.
    static func secret(_ header: [UInt8]) -> [UInt8]? {
        guard header.count == headerSize, Array(header[..<magic.count]) == magic else { return nil }
        let crc = header.withUnsafeBytes { raw in
            (
                headrace_crc32c(0, raw.baseAddress, headerCRC),
                UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: headerCRC, as: UInt32.self))
            )
        }
        return crc.0 == crc.1 ? Array(header[secretOffset..<headerCRC]) : nil
    }
}
