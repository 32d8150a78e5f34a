import Base
import RecordFormat

/// What retention lets go of one partition. Pure.
enum RetentionDecision {
    /// The offset below which nothing need be kept: whole files only, oldest first, never what a pin holds.
    static func start(
        of partition: Manifest.Partition, retention: Retention, now: Int64, pins: [Pin]
    ) -> Int64 {
        let held = pins.compactMap { $0.ranges[partition.partition]?.lowerBound }.min() ?? .max
        var start = partition.start
        var bytes = partition.files.reduce(Int64(0)) { $0 + $1.bytes }
        for file in partition.files {
            let isOld = retention.milliseconds.map { now - file.newestRecorded > $0 } ?? false
            let isTooMuch = retention.bytes.map { bytes - file.bytes >= $0 } ?? false
            guard isOld || isTooMuch, file.end <= held else { break }
            start = max(start, file.end)
            bytes -= file.bytes
        }
        return start
    }
}

extension EmbeddedLog {
    /// Applies every topic's retention and removes files that nobody may read any more.
    func retain() throws(EventLogError) {
        var manifest = maintenance.withLock { $0.manifest }
        let now = options.wallClock().milliseconds
        let layouts = Dictionary(uniqueKeysWithValues: topics.map { ($0.name, $0) })
        for number in manifest.partitions.indices {
            guard let layout = layouts[manifest.partitions[number].partition.topic] else { continue }
            manifest.partitions[number].start = RetentionDecision.start(
                of: manifest.partitions[number], retention: layout.retention, now: now, pins: manifest.pins)
        }
        try drop(&manifest)
    }

    /// Takes files out of the manifest that end at or below their partition's start, then from the disk.
    private func drop(_ manifest: inout Manifest) throws(EventLogError) {
        let before = maintenance.withLock { $0.manifest }
        var gone: [String] = []
        for number in manifest.partitions.indices {
            let record = manifest.partitions[number]
            let old = record.files.filter { $0.end <= record.start }
            gone += old.map { $0.path(record.partition) }
            manifest.partitions[number].files.removeAll { $0.end <= record.start }
            manifest.partitions[number].lost.removeAll { $0.upperBound <= record.start }
        }
        let starts = Dictionary(uniqueKeysWithValues: before.partitions.map { ($0.partition, $0.start) })
        guard !gone.isEmpty || manifest.partitions.contains(where: { $0.start != starts[$0.partition] ?? 0 }) else {
            return
        }
        let chains = try trimmedChains(&manifest)
        try adopt(&manifest)
        show(manifest)
        hub.tail.clear()
        for path in gone {
            cache.forget(path)
            try volume.remove(path)
            try volume.remove(PartitionFile.indexPath(path))
        }
        for chain in chains { try volume.remove(chain.path) }
    }

    /// Chain files of which nothing can be read any more; the hash behind the last one becomes the anchor.
    private func trimmedChains(_ manifest: inout Manifest) throws(EventLogError) -> [Manifest.Chain] {
        var gone: [Manifest.Chain] = []
        while let chain = manifest.chains.first {
            // A damaged chain file stays where it is and is reported by verify.
            guard let envelopes = try? ChainFile.load(volume, chain), let last = envelopes.last else { break }
            let starts = Dictionary(uniqueKeysWithValues: manifest.partitions.map { ($0.partition, $0.start) })
            let isGone = envelopes.allSatisfy { envelope in
                envelope.description.batches.allSatisfy { $0.end <= starts[$0.partition] ?? 0 }
            }
            guard isGone else { break }
            manifest.chainStart = chain.endSequence
            manifest.chainHash = last.hash
            manifest.chains.removeFirst()
            gone.append(chain)
        }
        return gone
    }

    package func trim(_ partition: TopicPartition, before offset: Int64) throws(EventLogError) {
        guard !options.readOnly else {
            throw EventLogError("read-only", "the log in \(volume.path) was opened for reading only")
        }
        guard sequencer.withLock({ $0.partitions.contains(partition) }) else {
            throw EventLogError("unknown-topic", "there is no partition \(partition)")
        }
        let end = try offsets(partition).upperBound
        guard offset >= 0, offset <= end else {
            throw EventLogError("bad-offset", "\(partition) can be trimmed up to offset \(end), not \(offset)")
        }
        try upkeep.withLock { _ throws(EventLogError) in
            var manifest = maintenance.withLock { $0.manifest }
            for pin in manifest.pins {
                guard let range = pin.ranges[partition], range.lowerBound < offset, !range.isEmpty else { continue }
                throw EventLogError(
                    "pinned",
                    "'\(pin.name)' holds offsets \(range.lowerBound)..<\(range.upperBound) of \(partition); trim below \(range.lowerBound), or release it first"
                )
            }
            let number = manifest.ensure(partition)
            manifest.partitions[number].start = max(manifest.partitions[number].start, offset)
            try drop(&manifest)
        }
    }

    package func pin(_ pin: Pin) throws(EventLogError) {
        try changePins(pin.name) { pins throws(EventLogError) in
            guard pins.count < Limits.pins || pins.contains(where: { $0.name == pin.name }) else {
                throw EventLogError("too-many-pins", "\(Limits.pins) pins are held; release one first")
            }
            for (partition, range) in pin.ranges {
                let readable = try offsets(partition)
                guard !range.isEmpty, range.lowerBound >= readable.lowerBound, range.upperBound <= readable.upperBound
                else {
                    throw EventLogError(
                        "bad-offset",
                        "'\(pin.name)' cannot hold offsets \(range.lowerBound)..<\(range.upperBound) of \(partition): \(readable.lowerBound)..<\(readable.upperBound) are there"
                    )
                }
            }
            pins.removeAll { $0.name == pin.name }
            pins.append(pin)
            pins.sort { $0.name < $1.name }
        }
    }

    package func unpin(_ name: String) throws(EventLogError) {
        try changePins(name) { pins throws(EventLogError) in pins.removeAll { $0.name == name } }
    }

    package var pins: [Pin] { maintenance.withLock { $0.manifest.pins } }

    private func changePins(_ name: String, _ change: (inout [Pin]) throws(EventLogError) -> Void) throws(EventLogError)
    {
        guard !options.readOnly else {
            throw EventLogError("read-only", "the log in \(volume.path) was opened for reading only")
        }
        try upkeep.withLock { _ throws(EventLogError) in
            var manifest = maintenance.withLock { $0.manifest }
            let before = manifest.pins.first { $0.name == name }
            try change(&manifest.pins)
            // What the pin kept may be superseded; compaction looks at it again.
            for (partition, range) in before?.ranges ?? [:] {
                guard let number = manifest.index(of: partition) else { continue }
                manifest.partitions[number].compactedThrough = min(
                    manifest.partitions[number].compactedThrough, range.lowerBound)
            }
            try adopt(&manifest)
        }
    }
}
