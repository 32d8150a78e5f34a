import Base
import RecordFormat

/// Builds the ids of a segment that has moved again, from its chain file and the partition files, and from what can still
/// be read of the old table: ids of events that were trimmed or compacted stand nowhere else.
struct IdentifierRebuild {
    let cache: FileCache
    let manifest: Manifest

    struct Built {
        let bytes: [UInt8]
        let count: Int
        /// nil where every event's id is known.
        let lost: LostIdentifiers?
        /// Something was missing only because the disk gave no bytes of it.
        let metUnreadable: Bool
    }

    /// - Parameters:
    ///   - chain: nil when everything of the segment was trimmed.
    ///   - old: the table as far as it can be read.
    ///   - stated: how many ids the file says it has; nil where its head cannot be read.
    func build(
        _ sequences: Range<UInt64>, _ chain: Manifest.Chain?, salvaging old: IdentifierFile?, stated: Int?
    ) -> Built {
        var index = SegmentIndexFile()
        index.newestRecorded = old?.newestRecorded ?? .min
        var reader = PartitionReader(cache: cache, manifest: manifest)
        var expected: Int?
        var metUnreadable = false
        if let chain {
            do throws(EventLogError) {
                expected = try identify(chain, &reader, &index)
            } catch {
                // Whatever it is but damage, it may be over another time.
                metUnreadable = !["rot", "no-such-file"].contains(error.code)
            }
        }
        index.merge(old?.salvaged() ?? [])
        // Without its chain nobody knows how many of the segment's events had ids that are looked up.
        let count = expected ?? stated ?? Int(sequences.count)
        let path = EmbeddedLog.Segment.identifierPath(sequences.lowerBound)
        let known = index.identifiers.count
        return Built(
            bytes: IdentifierFile.encode(
                firstSequence: sequences.lowerBound, endSequence: sequences.upperBound,
                newestRecorded: index.newestRecorded, partitions: index.partitions, entries: index.identifiers),
            count: known,
            lost: known < count ? LostIdentifiers(file: path, sequences: sequences, count: count - known) : nil,
            metUnreadable: metUnreadable || reader.metUnreadable)
    }

    /// Takes the ids of the segment's events in; how many there should be.
    private func identify(
        _ chain: Manifest.Chain, _ reader: inout PartitionReader, _ index: inout SegmentIndexFile
    ) throws(EventLogError) -> Int {
        var count = 0
        for envelope in try ChainFile.load(cache.volume, chain) {
            for batch in envelope.description.batches where batch.isDeduplicated {
                count += Int(batch.count)
                // What is trimmed or damaged has no ids any more.
                for records in try reader.batches(batch.partition, batch.baseOffset..<batch.end) {
                    index.identify(batch.partition, records, batch.baseOffset..<batch.end)
                }
            }
            index.newestRecorded = max(index.newestRecorded, envelope.description.recordedTime)
        }
        return count
    }

    /// Segments of which everything was trimmed: their ids stand in their files alone, one behind the other.
    /// - Returns: what no file covers; `isUnreadable` where a file is there and the disk gives no bytes of it.
    func gaps(_ names: [String]) -> [(lost: LostIdentifiers, isUnreadable: Bool)] {
        let end = manifest.chains.first?.firstSequence ?? manifest.rewrittenThrough
        var known = manifest.identifiersFrom
        var unreadable: UInt64?
        var lost: [(lost: LostIdentifiers, isUnreadable: Bool)] = []
        func miss(_ through: UInt64) {
            guard through > known else { return }
            lost.append(
                (
                    LostIdentifiers(
                        file: EmbeddedLog.Segment.identifierPath(known), sequences: known..<through,
                        count: Int(through - known)), unreadable == known
                ))
        }
        for name in names.sorted() where name.hasSuffix(".ids") {
            guard let first = UInt64(name.dropLast(4)), first < end, first >= known else { continue }
            let (file, condition) = IdentifierFile.load(cache.volume, name)
            guard let file else {
                if condition == .unreadable {
                    miss(first)
                    (known, unreadable) = (first, first)
                }
                continue
            }
            miss(first)
            known = max(known, file.endSequence)
        }
        miss(end)
        return lost
    }

    /// What a file with so many ids lacks: the chain says how many events its segment brought.
    func lost(_ chain: Manifest.Chain, known: Int) throws(EventLogError) -> LostIdentifiers? {
        var count = 0
        for envelope in try ChainFile.load(cache.volume, chain) {
            for batch in envelope.description.batches where batch.isDeduplicated { count += Int(batch.count) }
        }
        guard known < count else { return nil }
        return LostIdentifiers(
            file: EmbeddedLog.Segment.identifierPath(chain.firstSequence),
            sequences: chain.firstSequence..<chain.endSequence, count: count - known)
    }
}
