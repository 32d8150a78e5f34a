import Base
import RecordFormat

extension EmbeddedLog {
    package func read(
        _ partition: TopicPartition, from offset: Int64, maxBytes: Int
    ) throws(EventLogError) -> [RecordBatch] {
        let plan: (entries: [BatchEntry], files: [LogFile], missing: Range<Int64>?) = shared.withLock { state in
            guard let number = state.index.known(partition) else { return ([], [], nil) }
            let list = state.index.batches[number]
            var index = state.index.first(number, endingAfter: offset)
            guard index < list.count else { return ([], [], nil) }
            if list[index].baseOffset > offset { return ([], [], offset..<list[index].baseOffset) }
            var entries: [BatchEntry] = []
            var bytes = 0
            while index < list.count, entries.isEmpty || bytes + Int(list[index].size) <= maxBytes {
                if let last = entries.last, last.end != list[index].baseOffset { break }
                entries.append(list[index])
                bytes += Int(list[index].size)
                index += 1
            }
            return (entries, entries.map { state.segments[Int($0.segment)].file }, nil)
        }
        if let missing = plan.missing {
            throw EventLogError(
                "rot",
                "offsets \(missing.lowerBound)..<\(missing.upperBound) of \(partition) are lost to damage; the rest is readable",
                fault: .world)
        }
        var batches: [RecordBatch] = []
        batches.reserveCapacity(plan.entries.count)
        for (entry, file) in zip(plan.entries, plan.files) {
            batches.append(try decode(entry, file, partition))
        }
        return batches
    }

    private func decode(
        _ entry: BatchEntry, _ file: LogFile, _ partition: TopicPartition
    ) throws(EventLogError) -> RecordBatch {
        let bytes = try file.read(at: entry.fileOffset, count: Int(entry.size))
        do {
            let batch = try bytes.withRaw { raw throws(RecordFormatError) in try RecordBatch(raw) }
            guard batch.header.baseOffset == entry.baseOffset, batch.records.count == Int(entry.count) else {
                throw RecordFormatError("bad-batch", "another batch stands there", fault: .world)
            }
            return batch
        } catch {
            throw EventLogError(
                "rot",
                "offsets \(entry.baseOffset)..<\(entry.end) of \(partition) are damaged (\(file.path) at byte \(entry.fileOffset)); the rest is readable",
                cause: error, fault: .world)
        }
    }

    package func offsets(_ partition: TopicPartition) throws(EventLogError) -> Range<Int64> {
        shared.withLock { state in
            guard let number = state.index.known(partition), let first = state.index.batches[number].first else {
                return 0..<0
            }
            return first.baseOffset..<state.index.end(partition)
        }
    }

    package func offset(_ partition: TopicPartition, atOrAfter time: Instant) throws(EventLogError) -> Int64 {
        shared.withLock { state in
            guard let number = state.index.known(partition) else { return 0 }
            let found = state.index.batches[number].first { $0.maxTime >= time.milliseconds }
            return found?.baseOffset ?? state.index.end(partition)
        }
    }
}
