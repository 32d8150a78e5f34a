import Base
import RecordFormat

extension EmbeddedLog {
    /// Where to read next: known under the lock, read outside of it.
    private enum Place {
        case end
        case trimmed(Int64)
        case missing(Range<Int64>)
        case file(PartitionFile)
        case tail([(entry: BatchEntry, file: any LogFile)])
    }

    /// Times that a file may be replaced under a reader before it gives up.
    private static let attempts = 8

    package func read(
        _ partition: TopicPartition, from offset: Int64, maxBytes: Int
    ) throws(EventLogError) -> [RecordBatch] {
        for _ in 0..<EmbeddedLog.attempts {
            do {
                return try readOnce(partition, offset, maxBytes)
            } catch {
                // Compaction or retention may have put another file in its place meanwhile.
                guard error.code == "no-such-file", case .file(let file) = place(partition, offset, maxBytes) else {
                    throw error
                }
                guard (try? file.file()) != nil else { throw missing(file, error) }
            }
        }
        return try readOnce(partition, offset, maxBytes)
    }

    /// A file that the manifest names and nobody finds is damage like any other.
    private func missing(_ file: PartitionFile, _ error: EventLogError) -> EventLogError {
        guard error.code == "no-such-file" else { return error }
        return EventLogError(
            "rot",
            "offsets \(file.record.baseOffset)..<\(file.record.end) of \(file.partition) are lost: \(volume.path)/\(file.path) is gone; the rest is readable",
            cause: error, fault: .world)
    }

    private func readOnce(
        _ partition: TopicPartition, _ offset: Int64, _ maxBytes: Int
    ) throws(EventLogError) -> [RecordBatch] {
        switch place(partition, offset, maxBytes) {
        case .end: return []
        case .trimmed(let start):
            throw EventLogError(
                "trimmed", "offsets of \(partition) below \(start) were given up by retention; read from there",
                fault: .caller)
        case .missing(let range): throw lost(partition, range)
        case .tail(let entries):
            var batches: [RecordBatch] = []
            batches.reserveCapacity(entries.count)
            for (entry, file) in entries {
                guard let batch = try decode(entry, file, partition, behind: batches.count) else { break }
                batches.append(batch)
            }
            return batches
        case .file(let file):
            let entries = try file.entries()
            let first = entries.firstIndex(endingAfter: offset)
            guard first < entries.count else { throw lost(partition, offset..<file.record.end) }
            guard entries[first].baseOffset <= offset else { throw lost(partition, offset..<entries[first].baseOffset) }
            var batches: [RecordBatch] = []
            var bytes = 0
            for index in first..<entries.count {
                let entry = entries[index]
                if let last = batches.last {
                    guard bytes + Int(entry.size) <= maxBytes, last.header.lastOffset + 1 == entry.baseOffset else {
                        break
                    }
                }
                guard let batch = try decode(entry, try file.file(), partition, behind: batches.count) else { break }
                batches.append(batch)
                bytes += Int(entry.size)
            }
            return batches
        }
    }

    private func lost(_ partition: TopicPartition, _ range: Range<Int64>) -> EventLogError {
        EventLogError(
            "rot",
            "offsets \(range.lowerBound)..<\(range.upperBound) of \(partition) are lost to damage; the rest is readable, from offset \(range.upperBound) on",
            fault: .world)
    }

    private func place(_ partition: TopicPartition, _ offset: Int64, _ maxBytes: Int) -> Place {
        shared.withLock { state in
            guard let number = state.partitions.known(partition) else { return .end }
            let known = state.partitions[number]
            if offset < known.start { return .trimmed(known.start) }
            let file = known.fileIndex(endingAfter: offset)
            if file < known.files.count {
                let record = known.files[file].record
                return record.baseOffset <= offset ? .file(known.files[file]) : .missing(offset..<record.baseOffset)
            }
            var index = known.tailIndex(endingAfter: offset)
            guard index < known.tail.count else {
                return offset < known.lostEnd ? .missing(offset..<known.lostEnd) : .end
            }
            if known.tail[index].entry.baseOffset > offset {
                return .missing(offset..<known.tail[index].entry.baseOffset)
            }
            var entries: [(entry: BatchEntry, file: any LogFile)] = []
            var bytes = 0
            while index < known.tail.count {
                let next = known.tail[index]
                if let last = entries.last {
                    guard bytes + Int(next.entry.size) <= maxBytes, last.entry.end == next.entry.baseOffset else {
                        break
                    }
                }
                guard let segment = state.segments.last(where: { $0.firstSequence == next.segment }) else { break }
                entries.append((next.entry, segment.file))
                bytes += Int(next.entry.size)
                index += 1
            }
            return .tail(entries)
        }
    }

    /// - Parameter behind: batches that were read before it: they are given, and whoever reads on from there is told.
    private func decode(
        _ entry: BatchEntry, _ file: any LogFile, _ partition: TopicPartition, behind count: Int
    ) throws(EventLogError) -> RecordBatch? {
        do {
            return try decode(entry, file, partition)
        } catch {
            guard count > 0, error.code == "rot" else { throw error }
            return nil
        }
    }

    func decode(
        _ entry: BatchEntry, _ file: any LogFile, _ partition: TopicPartition
    ) throws(EventLogError) -> RecordBatch {
        let bytes = try file.read(at: entry.fileOffset, count: Int(entry.size))
        do {
            let batch = try bytes.withRaw { raw throws(RecordFormatError) in try RecordBatch(raw) }
            guard batch.header.baseOffset == entry.baseOffset, batch.records.count == Int(entry.count),
                batch.header.lastOffset + 1 == entry.end, batch.header.leaderEpoch == -1
            else { throw RecordFormatError("bad-batch", "another batch stands there", fault: .world) }
            return batch
        } catch {
            noteRot(
                "\(file.path) at byte \(entry.fileOffset): offsets \(entry.baseOffset)..<\(entry.end) of \(partition)")
            throw EventLogError(
                "rot",
                "offsets \(entry.baseOffset)..<\(entry.end) of \(partition) are damaged (\(file.path) at byte \(entry.fileOffset)); the rest is readable, from offset \(entry.end) on",
                cause: error, fault: .world)
        }
    }

    package func endOfDoubt(_ partition: TopicPartition, _ offset: Int64) -> Int64? {
        shared.withLock { state in
            state.partitions[partition]?.doubtful.first { $0.contains(offset) }?.upperBound
        }
    }

    /// Damage that readers meet is remembered, so that people are told who do not read.
    private func noteRot(_ place: String) {
        maintenance.withLock { state in
            guard state.rotten.count < EmbeddedLog.rottenLimit, !state.rotten.contains(place) else { return }
            state.rotten.append(place)
        }
    }

    /// Damaged places that are remembered.
    private static let rottenLimit = 1000

    package func offsets(_ partition: TopicPartition) throws(EventLogError) -> Range<Int64> {
        shared.withLock { state in
            guard let number = state.partitions.known(partition) else { return 0..<0 }
            let known = state.partitions[number]
            return known.start..<known.end
        }
    }

    package func offset(_ partition: TopicPartition, atOrAfter time: Instant) throws(EventLogError) -> Int64 {
        for _ in 0..<EmbeddedLog.attempts {
            do {
                if let found = try search(partition, time.milliseconds) { return found }
            } catch {
                guard error.code == "no-such-file" else { throw error }
            }
        }
        throw EventLogError(
            "busy", "the files of \(partition) change faster than they can be searched; try again", fault: .world,
            retriable: true)
    }

    /// nil when batches moved from the WAL into a file meanwhile.
    private func search(_ partition: TopicPartition, _ wanted: Int64) throws(EventLogError) -> Int64? {
        guard let known = shared.withLock({ $0.partitions[partition] }) else { return 0 }
        for file in known.files where file.record.maxTime >= wanted {
            for entry in try file.entries() where entry.maxTime >= wanted && entry.end > known.start {
                let batch = try decode(entry, try file.file(), partition)
                if let found = EmbeddedLog.first(in: batch, from: known.start, atOrAfter: wanted) { return found }
            }
        }
        let moved = known.files.last?.record.end ?? 0
        var offset = max(moved, known.start)
        while true {
            let next: (entry: BatchEntry, file: any LogFile)?? = shared.withLock { state in
                guard let now = state.partitions[partition], now.files.last?.record.end ?? 0 == moved else {
                    return .none
                }
                guard
                    let found = now.tail[now.tailIndex(endingAfter: offset)...].first(where: {
                        $0.entry.maxTime >= wanted
                    }),
                    let segment = state.segments.first(where: { $0.firstSequence == found.segment })
                else { return .some(nil) }
                return .some((found.entry, segment.file))
            }
            guard let next else { return nil }
            guard let (entry, file) = next else { return known.end }
            let batch = try decode(entry, file, partition)
            if let found = EmbeddedLog.first(in: batch, from: known.start, atOrAfter: wanted) { return found }
            offset = entry.end
        }
    }

    private static func first(in batch: RecordBatch, from start: Int64, atOrAfter time: Int64) -> Int64? {
        batch.records.first { $0.timestamp >= time && $0.offset >= start }?.offset
    }
}
