import Base

/// What is gone without a trace in the files: how it is told, and remembered.
extension Opening {
    /// Notes events that are gone from the WAL without a trace in it, where the manifest does not know of them.
    /// - Parameter place: where they stood in the segment being read.
    mutating func lose(_ range: DamagedRange, behind place: Int64?) {
        guard !manifest.damaged.contains(where: { $0.sequences == range.sequences }) else { return }
        shared.damaged.append(range)
        losses.append(range)
        if place.map({ attribute(range.sequences, behind: $0) }) != true { unknownLost += Int64(range.sequences.count) }
    }

    /// Learns from the index of a clean stop in which partitions the events stood that are gone from a place on. False where
    /// it does not say, or speaks of others.
    mutating func attribute(_ sequences: Range<UInt64>, behind offset: Int64) -> Bool {
        guard let stale, stale.nextSequence == sequences.upperBound else { return false }
        let gone = stale.batches.filter { $0.entry.fileOffset >= offset }
        guard !sequences.isEmpty, gone.reduce(0, { $0 + Int($1.entry.count) }) == sequences.count else { return false }
        for (partition, entry) in gone {
            let number = shared.partitions.number(of: stale.partitions[Int(partition)])
            shared.partitions[number].lostEnd = max(shared.partitions[number].lostEnd, entry.end)
        }
        self.stale = nil
        return true
    }

    /// Once something stands behind it, nothing in the WAL tells any more that it is missing.
    mutating func rememberLosses() throws(EventLogError) {
        guard !losses.isEmpty, !metUnreadable else { return }
        manifest.damaged += losses
        for known in shared.partitions.list {
            let end = max(known.tail.last?.entry.end ?? known.files.last?.record.end ?? known.start, known.start)
            guard known.lostEnd > end else { continue }
            manifest.losses.append(
                Manifest.Loss(
                    partition: known.partition, offsets: end..<known.lostEnd,
                    isCertain: known.doubtful.last?.upperBound != known.lostEnd))
        }
        if let failure = manifest.store(volume).failure { throw failure }
    }
}
