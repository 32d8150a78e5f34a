import Base
import RecordFormat

/// Which records of a partition stay: of each key the newest; tombstones until their horizon has passed; everything that
/// is pinned. Pure, once the newest offsets are known.
package struct CompactionDecision {
    /// Keys held in memory at a time; what lies behind them waits for the next pass.
    package static let keyLimit = 4_000_000
    let keyLimit: Int
    /// The part of a partition's bytes that must be new before compaction is worth it.
    static let dirtyShare = 0.5

    /// First half of the key's SHA-256, against the offset of its newest record.
    private(set) var newest: [Key: Int64] = [:]
    /// Offsets below it were compacted before: of each key at most one is left there.
    let from: Int64
    /// Offsets below it were looked at.
    private(set) var through: Int64
    let now: Int64
    let tombstoneRetention: Int64
    let held: [Range<Int64>]

    struct Key: Hashable {
        let first: UInt64
        let second: UInt64

        init(_ bytes: UnsafeRawBufferPointer) {
            (first, second) = Digest.of(bytes).halves
        }
    }

    init(from offset: Int64, now: Int64, tombstoneRetention: Int64, held: [Range<Int64>], keyLimit: Int) {
        self.keyLimit = keyLimit
        from = offset
        through = offset
        self.now = now
        self.tombstoneRetention = tombstoneRetention
        self.held = held
    }

    /// False when the memory for keys is used up before this batch.
    mutating func note(_ batch: RecordBatch) -> Bool {
        guard newest.count + batch.records.count <= keyLimit else { return false }
        batch.payload.withUnsafeBytes { raw in
            for view in batch.records where view.keyStart >= 0 && view.offset >= from {
                newest[Key(CompactionDecision.key(view, raw))] = view.offset
            }
        }
        through = batch.header.lastOffset + 1
        return true
    }

    static func key(_ view: RecordView, _ raw: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: raw[Int(view.keyStart)..<Int(view.keyStart + view.keyCount)])
    }

    func keeps(_ view: RecordView, _ header: RecordBatchHeader, _ raw: UnsafeRawBufferPointer) -> Bool {
        if view.keyStart < 0 || view.offset >= through || held.contains(where: { $0.contains(view.offset) }) {
            return true
        }
        // What was compacted before stays unless its key came again.
        let newer = newest[Key(CompactionDecision.key(view, raw))]
        guard newer == view.offset || (newer == nil && view.offset < from) else { return false }
        guard view.valueStart < 0, let horizon = header.deleteHorizon else { return true }
        // A tombstone outlives whatever a pin keeps of the value before it, or the value would be the newest again.
        return now < horizon || held.contains { $0.lowerBound < view.offset }
    }
}

extension EmbeddedLog {
    /// Compacts partitions of compacted topics where enough is new, or all of them.
    func compact(all: Bool) throws(EventLogError) {
        for layout in topics where layout.isCompacted {
            for partition in 0..<layout.partitions where !isClosing {
                let manifest = maintenance.withLock { $0.manifest }
                guard let number = manifest.index(of: TopicPartition(layout.name, partition)) else { continue }
                let record = manifest.partitions[number]
                let bytes = record.files.reduce(Int64(0)) { $0 + $1.bytes }
                let dirty = record.files.filter { $0.end > record.compactedThrough }.reduce(Int64(0)) { $0 + $1.bytes }
                guard bytes > 0, all || Double(dirty) >= Double(bytes) * CompactionDecision.dirtyShare else { continue }
                try compact(record, layout, manifest)
            }
        }
    }

    private func compact(
        _ record: Manifest.Partition, _ layout: TopicLayout, _ manifest: Manifest
    ) throws(EventLogError) {
        var decision = CompactionDecision(
            from: max(record.start, record.compactedThrough), now: options.wallClock().milliseconds,
            tombstoneRetention: layout.tombstoneRetention,
            held: manifest.pins.compactMap { $0.ranges[record.partition] }, keyLimit: options.compactionKeys)
        // Damage anywhere in the partition leaves it as it is: what is left is worth more than the space.
        var files: [(file: PartitionFile, entries: [BatchEntry])] = []
        var isFull = false
        for file in record.files {
            let stored = PartitionFile(record.partition, file, cache)
            let entries = try stored.entries()
            guard entries.reduce(Int64(0), { $0 + Int64($1.size) }) == file.bytes else { return }
            files.append((stored, entries))
            for entry in entries where entry.end > decision.through && !isFull {
                guard let batch = try intact(entry, stored) else { return }
                isFull = !decision.note(batch)
            }
            // Nothing behind the last key that fitted is touched.
            if isFull { break }
        }
        // Not one batch fitted: the same would happen again and again.
        guard !isFull || decision.through > max(record.start, record.compactedThrough) else { return }
        let generation = (record.files.map(\.generation).max() ?? 0) + 1
        var appender = PartitionAppender(
            record, cache: cache, options: options, compactingAs: generation)
        var compaction = BatchCompaction(decision: decision)
        for (file, entries) in files {
            for entry in entries {
                guard let batch = try intact(entry, file) else { return }
                try compaction.append(batch, file.record.newestRecorded, &appender)
            }
            // Nothing is joined over a gap between files.
            try compaction.flush(&appender)
        }
        _ = try appender.finish()
        var manifest = manifest
        guard let number = manifest.index(of: record.partition) else { return }
        let untouched = record.files.suffix(record.files.count - files.count)
        manifest.partitions[number].files = appender.files + untouched
        manifest.partitions[number].compactedThrough = max(decision.through, record.compactedThrough)
        manifest.maintenanceBytes += appender.written
        try adopt(&manifest)
        show(manifest)
        hub.tail.clear()
        for (file, _) in files {
            cache.forget(file.path)
            try volume.remove(file.path)
            try volume.remove(PartitionFile.indexPath(file.path))
        }
    }
}

extension EmbeddedLog {
    /// A batch, or nil where it is damaged.
    private func intact(_ entry: BatchEntry, _ file: PartitionFile) throws(EventLogError) -> RecordBatch? {
        do {
            return try decode(entry, try file.file(), file.partition)
        } catch {
            guard ["rot", "no-such-file", "read-failed"].contains(error.code) else { throw error }
            return nil
        }
    }
}

/// Joins what compaction keeps of neighbouring batches into large ones that cover the same offsets.
struct BatchCompaction {
    let decision: CompactionDecision
    /// Decoded bytes held at a time.
    private static let memory = 8 << 20

    private var pending: [(batch: RecordBatch, kept: [Int])] = []
    /// Offsets and times that the pending batches cover, with those of which nothing is kept.
    private var first: RecordBatchHeader?
    private var last: RecordBatchHeader?
    private var maxTime: Int64 = .min
    private var size = 0
    private var held = 0
    private var recorded: Int64 = .min

    init(decision: CompactionDecision) { self.decision = decision }

    mutating func append(
        _ batch: RecordBatch, _ recordedTime: Int64, _ appender: inout PartitionAppender
    ) throws(EventLogError) {
        let kept = batch.payload.withUnsafeBytes { raw in
            batch.records.indices.filter { decision.keeps(batch.records[$0], batch.header, raw) }
        }
        let joins =
            first.map { first in
                // The header has one producer and one horizon, and counts offsets from its base in 32 bits.
                first.producer.isNone && batch.header.producer.isNone
                    && first.deleteHorizon == batch.header.deleteHorizon
                    && last.map { $0.lastOffset + 1 } == batch.header.baseOffset
                    && batch.header.lastOffset - first.baseOffset < Int64(Int32.max)
            } ?? true
        if !joins || size >= appender.sizes.joined || held >= BatchCompaction.memory { try flush(&appender) }
        first = first ?? batch.header
        last = batch.header
        maxTime = max(maxTime, batch.header.maxTimestamp)
        if !kept.isEmpty {
            pending.append((batch, kept))
            held += batch.payload.count
        }
        size += kept.reduce(0) { $0 + Int(batch.records[$1].end - batch.records[$1].bodyStart) + 8 }
        recorded = max(recorded, recordedTime)
    }

    mutating func flush(_ appender: inout PartitionAppender) throws(EventLogError) {
        guard let first, let last else { return }
        let hasTombstone = pending.contains { batch, kept in kept.contains { batch.records[$0].valueStart < 0 } }
        var horizon = first.deleteHorizon
        if !hasTombstone {
            horizon = nil
        } else if horizon == nil {
            horizon = decision.now + decision.tombstoneRetention
        }
        var builder = RecordBatchBuilder(baseOffset: first.baseOffset, deleteHorizon: horizon, capacity: size + 1024)
        for (batch, kept) in pending { for index in kept { builder.append(batch, index) } }
        let encoded =
            builder.count > 0
            ? builder.finish(producer: first.producer, lastOffset: last.lastOffset)
            : RecordBatchBuilder.empty(
                baseOffset: first.baseOffset, lastOffset: last.lastOffset, time: maxTime, producer: first.producer)
        try appender.write(encoded, end: last.lastOffset + 1, recorded)
        pending.removeAll()
        (self.first, self.last) = (nil, nil)
        maxTime = .min
        held = 0
        size = 0
        recorded = .min
    }
}
