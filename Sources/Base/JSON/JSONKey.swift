import Synchronization

/// A key prepared for look-ups. Its bytes are kept once for every text and for good, so that a key costs no reference
/// counting: threads that look for the same members would wait for each other over the count.
///
/// Unchecked: the bytes are written before anybody sees them and never change; the table is behind its lock.
public struct JSONKey: @unchecked Sendable, Hashable, ExpressibleByStringLiteral {
    /// Its bytes, which live as long as the program.
    public let utf8: UnsafeBufferPointer<UInt8>

    /// By text. Keys come from code and from definitions, not from events, so there are few.
    private static let known = Mutex<[[UInt8]: UnsafeBufferPointer<UInt8>]>([:])

    /// Made once for each text, and kept.
    public init(_ text: String) {
        let bytes = [UInt8](text.utf8)
        // The table hands over addresses of memory that is never given back.
        let address = JSONKey.known.withLock { known -> Int in
            if let found = known[bytes] { return Int(bitPattern: found.baseAddress) }
            let room = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: max(1, bytes.count))
            _ = room.initialize(from: bytes + (bytes.isEmpty ? [0] : []))
            known[bytes] = UnsafeBufferPointer(room)
            return Int(bitPattern: room.baseAddress)
        }
        utf8 = UnsafeBufferPointer(start: UnsafePointer(bitPattern: address), count: bytes.count)
    }

    public init(stringLiteral text: String) { self.init(text) }

    /// As text.
    public var text: String { String(decoding: utf8, as: UTF8.self) }

    public static func == (left: JSONKey, right: JSONKey) -> Bool { left.utf8.baseAddress == right.utf8.baseAddress }
    public func hash(into hasher: inout Hasher) { hasher.combine(utf8.baseAddress) }
}
