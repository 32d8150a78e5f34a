import Base

/// Which event ids a log holds and where: open addressing over 128-bit hashes of (topic, source, id), 24 bytes an entry. Derived
/// state, rebuilt from the log when it is missing.
package struct IdentifierTable: Sendable {
    package struct Entry: Sendable {
        package let first: UInt64
        package let second: UInt64
        package let partition: UInt32
        package let offset: Int64
    }

    private var slots: [(UInt64, UInt64, UInt64)]
    private var mask: Int
    package private(set) var count = 0

    package init() {
        slots = Array(repeating: (0, 0, 0), count: 1 << 12)
        mask = slots.count - 1
    }

    /// Two independent hashes of topic, source and id (CloudEvents: source and id name an event); never both zero, which marks an empty slot.
    package static func hash(topic: UInt64, source: String, id: String) -> (UInt64, UInt64) {
        var id = id
        var source = source
        let seed = source.withUTF8 { stableHash(UnsafeRawBufferPointer($0), seed: topic) }
        return id.withUTF8 { bytes in
            let raw = UnsafeRawBufferPointer(bytes)
            return (stableHash(raw, seed: seed) | 1, stableHash(raw, seed: seed ^ 0x5851_f42d_4c95_7f2d))
        }
    }

    /// Partition index and offset packed into 64 bits: 20 bits of partition, 44 of offset.
    private static func pack(_ partition: UInt32, _ offset: Int64) -> UInt64 {
        UInt64(partition) << 44 | UInt64(bitPattern: offset) & 0xFFF_FFFF_FFFF
    }

    /// Inserts, or gives what stands there already.
    package mutating func insert(_ hash: (UInt64, UInt64), partition: UInt32, offset: Int64) -> (UInt32, Int64)? {
        if count * 4 >= slots.count * 3 { grow() }
        var index = Int(truncatingIfNeeded: hash.0 >> 1) & mask
        while slots[index].0 != 0 {
            if slots[index].0 == hash.0, slots[index].1 == hash.1 {
                let packed = slots[index].2
                return (UInt32(packed >> 44), Int64(packed & 0xFFF_FFFF_FFFF))
            }
            index = (index + 1) & mask
        }
        slots[index] = (hash.0, hash.1, IdentifierTable.pack(partition, offset))
        count += 1
        return nil
    }

    private mutating func grow() {
        let old = slots
        slots = Array(repeating: (0, 0, 0), count: old.count * 2)
        mask = slots.count - 1
        for slot in old where slot.0 != 0 {
            var index = Int(truncatingIfNeeded: slot.0 >> 1) & mask
            while slots[index].0 != 0 { index = (index + 1) & mask }
            slots[index] = slot
        }
    }
}
