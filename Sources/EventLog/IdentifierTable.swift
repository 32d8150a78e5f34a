import Base

/// Which event ids the newest part of a log holds and where: open addressing over 128-bit hashes of (topic, source, id),
/// 24 bytes an entry.
package struct IdentifierTable: Sendable {
    private var slots: [(UInt64, UInt64, UInt64)]
    private var mask: Int
    package private(set) var count = 0

    package init() {
        slots = Array(repeating: (0, 0, 0), count: 1 << 12)
        mask = slots.count - 1
    }

    /// Two independent hashes of topic, source and id (CloudEvents: source and id name an event); never both zero, which
    /// marks an empty slot.
    package static func hash(topic: UInt64, source: String, id: String) -> (UInt64, UInt64) {
        var id = id
        var source = source
        let seed = source.withUTF8 { stableHash(UnsafeRawBufferPointer($0), seed: topic) }
        return id.withUTF8 { bytes in
            let raw = UnsafeRawBufferPointer(bytes)
            return (stableHash(raw, seed: seed) | 1, stableHash(raw, seed: seed ^ 0x5851_f42d_4c95_7f2d))
        }
    }

    /// What stands for the topic in `hash`.
    package static func topicSeed(_ topic: String) -> UInt64 {
        var topic = topic
        return topic.withUTF8 { stableHash(UnsafeRawBufferPointer($0), seed: 7) }
    }

    /// Partition index and offset packed into 64 bits: 20 bits of partition, 44 of offset.
    static func pack(_ partition: UInt32, _ offset: Int64) -> UInt64 {
        UInt64(partition) << 44 | UInt64(bitPattern: offset) & 0xFFF_FFFF_FFFF
    }

    static func unpack(_ packed: UInt64) -> (UInt32, Int64) {
        (UInt32(packed >> 44), Int64(packed & 0xFFF_FFFF_FFFF))
    }

    package func find(_ hash: (UInt64, UInt64)) -> (UInt32, Int64)? {
        var index = Int(truncatingIfNeeded: hash.0 >> 1) & mask
        while slots[index].0 != 0 {
            if slots[index].0 == hash.0, slots[index].1 == hash.1 { return IdentifierTable.unpack(slots[index].2) }
            index = (index + 1) & mask
        }
        return nil
    }

    /// Inserts, or puts the newer place where the id stands already.
    package mutating func insert(_ hash: (UInt64, UInt64), partition: UInt32, offset: Int64) {
        if count * 4 >= slots.count * 3 { grow() }
        var index = Int(truncatingIfNeeded: hash.0 >> 1) & mask
        while slots[index].0 != 0, slots[index].0 != hash.0 || slots[index].1 != hash.1 { index = (index + 1) & mask }
        if slots[index].0 == 0 { count += 1 }
        slots[index] = (hash.0, hash.1, IdentifierTable.pack(partition, offset))
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

/// All ids of a log, newest first: the table being filled, tables whose segments are not sealed yet, and sealed files.
struct IdentifierHistory: Sendable {
    private(set) var active = IdentifierTable()
    /// Older tables in memory with the ticket before which all of their appends were decided, oldest first.
    private(set) var older: [(table: IdentifierTable, through: Int)] = []
    /// Oldest first.
    private(set) var files: [IdentifierFile] = []
    /// Files whose ids the filter does not have yet.
    private(set) var unfiltered: [IdentifierFile] = []
    private var filter = IdentifierFilter()

    enum Answer {
        case absent
        case memory(partition: UInt32, offset: Int64)
        case file(TopicPartition, Int64, recorded: Int64)
        case damaged(IdentifierFile)
    }

    func find(_ hash: (UInt64, UInt64)) -> Answer {
        if let known = active.find(hash) { return .memory(partition: known.0, offset: known.1) }
        for generation in older.reversed() {
            if let known = generation.table.find(hash) { return .memory(partition: known.0, offset: known.1) }
        }
        for file in (filter.mayHold(hash) ? files : unfiltered).reversed() {
            switch file.find(hash) {
            case .absent: continue
            case .found(let partition, let offset): return .file(partition, offset, recorded: file.newestRecorded)
            case .damaged: return .damaged(file)
            }
        }
        return .absent
    }

    mutating func insert(_ hash: (UInt64, UInt64), partition: UInt32, offset: Int64) {
        active.insert(hash, partition: partition, offset: offset)
    }

    /// A segment is sealed and its file is there.
    /// - Parameters:
    ///   - written: ticket of the first append that is not in this segment or an older one.
    ///   - next: ticket that the next append gets.
    mutating func adopt(_ file: IdentifierFile, written: Int, next: Int) {
        place(file)
        older.removeAll { $0.through <= written }
        guard active.count > 0 else { return }
        older.append((active, next))
        active = IdentifierTable()
    }

    /// Takes a file in that was there before, or was built again.
    mutating func place(_ file: IdentifierFile) {
        for list in [\IdentifierHistory.files, \IdentifierHistory.unfiltered] {
            self[keyPath: list].removeAll { $0.firstSequence == file.firstSequence }
            self[keyPath: list].append(file)
            self[keyPath: list].sort { $0.firstSequence < $1.firstSequence }
        }
    }

    mutating func remove(_ file: IdentifierFile) {
        files.removeAll { $0 === file }
        unfiltered.removeAll { $0 === file }
    }

    /// Takes some ids of a file into the filter. False when there is no room for them.
    mutating func filter(_ hashes: [(UInt64, UInt64)]) -> Bool {
        for hash in hashes where !filter.insert(hash) { return false }
        return true
    }

    /// All of a file's ids have been taken.
    mutating func isFiltered(_ file: IdentifierFile) { unfiltered.removeAll { $0 === file } }

    /// Lets the oldest files go as long as no topic's horizon reaches them.
    mutating func forget(recordedBefore time: Int64) -> [IdentifierFile] {
        let gone = Array(files.prefix { $0.newestRecorded < time })
        files.removeFirst(gone.count)
        unfiltered.removeAll { file in gone.contains { $0 === file } }
        // A filter lets nothing go. Filled anew once most of it is gone, it stays within a few times what is left.
        if filter.count > 2 * files.reduce(0, { $0 + $1.count }), !gone.isEmpty {
            filter = IdentifierFilter()
            unfiltered = files
        }
        return gone
    }
}
