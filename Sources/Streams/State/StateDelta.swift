import Base

/// One entry of a store as runs and deltas hold it. Layout, little-endian: place (u64), length of the value (u32; all ones
/// for a removed key), length of the key (u32), key, value. What begins at the length of the key is what a leaf of the
/// state's digest is the digest of.
struct StateEntry {
    static let headerBytes = 16
    static let removed = UInt32.max

    let place: UInt64
    let key: UnsafeRawBufferPointer
    /// nil for a removed key.
    let value: UnsafeRawBufferPointer?
    /// The whole entry.
    let raw: UnsafeRawBufferPointer

    /// The entry that begins at an offset; nil where none fits.
    init?(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        guard offset >= 0, bytes.count - offset >= Self.headerBytes else { return nil }
        func word(_ at: Int) -> UInt32 {
            UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset + at, as: UInt32.self))
        }
        let valueLength = word(8)
        let keyCount = Int(word(12))
        let valueCount = valueLength == Self.removed ? 0 : Int(valueLength)
        guard bytes.count - offset - Self.headerBytes >= keyCount + valueCount else { return nil }
        place = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        let start = offset + Self.headerBytes
        key = UnsafeRawBufferPointer(rebasing: bytes[start..<start + keyCount])
        value =
            valueLength == Self.removed
            ? nil : UnsafeRawBufferPointer(rebasing: bytes[start + keyCount..<start + keyCount + valueCount])
        raw = UnsafeRawBufferPointer(rebasing: bytes[offset..<start + keyCount + valueCount])
    }

    /// What the entry adds to its store's digest; `.zero` for a removed key.
    var leaf: Digest { value == nil ? .zero : Digest.of(UnsafeRawBufferPointer(rebasing: raw[12...])) }

    var hash: UInt64 { StateKey.hash(key) }
    /// What it is ordered by.
    var mark: (place: UInt64, key: UnsafeRawBufferPointer) { (place, key) }

    /// The order of entries: by place, then by the bytes of the key; negative where the left one comes first.
    static func order(_ left: (place: UInt64, key: UnsafeRawBufferPointer), _ right: StateEntry) -> Int {
        if left.place != right.place { return left.place < right.place ? -1 : 1 }
        return StateKey.order(left.key, right.key)
    }
}

/// What a checkpoint writes of one store, as it was at one moment: every key that changed, once.
package struct StateDelta: Sendable {
    /// Bytes taken at once: what was taken is not copied again as more comes.
    private static let segmentBytes = 1 << 20

    private struct Mark {
        let place: UInt64
        /// From the first byte of the first segment.
        let offset: Int
    }

    package let store: String
    private var segments: [[UInt8]] = []
    private var writer = ByteWriter()
    private var base = 0
    private var marks: [Mark] = []

    package init(store: String) { self.store = store }

    package var count: Int { marks.count }
    package var byteCount: Int { base + writer.count }

    /// Takes a key with its value, or without one where it was removed; returns the bytes of the value.
    @discardableResult
    mutating func append<Value: StateValue>(_ key: String, place: UInt64, _ value: Value?) -> Int {
        let start = begin(key, place)
        guard let value else { return 0 }
        let first = writer.count
        value.encode(into: &writer)
        let count = writer.count - first
        writer.patch(little: UInt32(count), at: start + 8)
        return count
    }

    /// The same with a value that is encoded already; nil where the key was removed.
    mutating func append(_ key: String, place: UInt64, encoded value: [UInt8]?) {
        let start = begin(key, place)
        guard let value else { return }
        writer.append(value)
        writer.patch(little: UInt32(value.count), at: start + 8)
    }

    private mutating func begin(_ key: String, _ place: UInt64) -> Int {
        if writer.count >= Self.segmentBytes {
            base += writer.count
            segments.append(writer.bytes)
            writer = ByteWriter(capacity: Self.segmentBytes + Self.segmentBytes / 8)
        }
        let start = writer.count
        marks.append(Mark(place: place, offset: base + start))
        writer.append(little: place)
        writer.append(little: StateEntry.removed)
        writer.append(sized: key)
        return start
    }

    /// Every entry in order.
    /// - Parameter body: gets entries that are good until it returns.
    func forEachInOrder<E: Error>(_ body: (StateEntry) throws(E) -> Void) throws(E) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(byteCount)
        for segment in segments { bytes.append(contentsOf: segment) }
        bytes.append(contentsOf: writer.bytes)
        try bytes.withRaw { raw throws(E) in
            let sorted = marks.sorted { left, right in
                if left.place != right.place { return left.place < right.place }
                guard let one = StateEntry(raw, at: left.offset), let other = StateEntry(raw, at: right.offset) else {
                    return false
                }
                return StateKey.order(one.key, other.key) < 0
            }
            for mark in sorted {
                guard let entry = StateEntry(raw, at: mark.offset) else { continue }
                try body(entry)
            }
        }
    }

    /// All of it, for tests: encoded values by key, nil where one was removed.
    package var entries: [(key: String, value: [UInt8]?)] {
        var list: [(key: String, value: [UInt8]?)] = []
        forEachInOrder { (entry) throws(Never) in
            list.append((String(decoding: entry.key, as: UTF8.self), entry.value.map { [UInt8]($0) }))
        }
        return list
    }
}
