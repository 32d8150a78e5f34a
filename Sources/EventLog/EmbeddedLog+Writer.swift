import Base
import CPlatform
import Foundation
import RecordFormat

/// What only the writer thread touches.
struct WriterState {
    var segment: EmbeddedLog.Segment
    var segmentNumber: Int
    var index: SegmentIndexFile
    /// False for a segment with damage: it is scanned at every start, so that the damage is reported and nothing forgotten.
    var keepsIndex = true
    var previousHash: Digest
    var durableSequence: UInt64
    let mark: LogFile
    /// Bytes of the segment that are allocated on disk.
    var reserved: Int64 = 0
}

extension EmbeddedLog {
    /// Space is reserved in steps of this many bytes, so that most syncs change no file metadata.
    private static let reserveStep: Int64 = 16 << 20

    func writeLoop(_ box: Monitor<WriterState>) {
        while true {
            let group: [Ready]? =
                sequencer.wait { state in
                    var group: [Ready] = []
                    var size = 0
                    while size < EmbeddedLog.groupSize, let next = state.ready.removeValue(forKey: state.writeTicket) {
                        state.writeTicket += 1
                        size += next.frame.count
                        group.append(next)
                    }
                    if group.isEmpty, state.closing, state.writeTicket == state.nextTicket { return .some(nil) }
                    return group.isEmpty ? nil : .some(group)
                } ?? nil
            guard let group else { break }
            box.withLock { commit(group, &$0) }
        }
        box.withLock { finish(&$0) }
    }

    /// Writes one group, syncs once, shows it to readers and answers. Any failure stops the log for good: a failed sync
    /// may have dropped pages, and offsets beyond it are already assigned.
    private func commit(_ group: [Ready], _ writer: inout WriterState) {
        do throws(EventLogError) {
            let stopped = sequencer.withLock { $0.stopped }
            if let stopped { throw stopped }
            try write(group, &writer)
        } catch {
            stop(error, group)
            return
        }
        sequencer.update { state in state.pendingBytes -= group.reduce(0) { $0 + $1.cost } }
        for item in group { item.completion(.success(item.receipt)) }
    }

    private func stop(_ error: EventLogError, _ group: [Ready]) {
        let reason = EventLogError(
            "log-stopped",
            "the log takes no more events since a write failed; reads go on, start the node again after mending it",
            cause: error, fault: .world)
        var failed = group
        sequencer.update { state in
            if state.stopped == nil { state.stopped = reason }
            for (_, item) in state.ready.sorted(by: { $0.key < $1.key }) { failed.append(item) }
            state.ready.removeAll()
            state.writeTicket = state.nextTicket
            state.pendingBytes = 0
        }
        shared.update { if $0.stopped == nil { $0.stopped = reason } }
        for item in failed { item.completion(.failure(reason)) }
    }

    private func write(_ group: [Ready], _ writer: inout WriterState) throws(EventLogError) {
        var buffer: [UInt8] = []
        var entries: [(TopicPartition, BatchEntry)] = []
        let start = writer.segment.end
        var hash = writer.previousHash
        let now = options.wallClock().milliseconds
        for var item in group where !item.frame.isEmpty {
            let at = start + Int64(buffer.count)
            hash = LogFrame.seal(
                &item.frame, previousHash: hash, recordedTime: now, durableThrough: writer.durableSequence)
            let description = try item.frame.withRaw { raw throws(EventLogError) in try LogFrame.decode(raw) }
            for batch in description.batches {
                entries.append((batch.partition, try EmbeddedLog.entry(batch, item.frame, at, writer.segmentNumber)))
            }
            for identifier in item.identifiers {
                writer.index.identifiers.append(
                    (identifier.0, identifier.1, writer.index.number(of: identifier.partition), identifier.offset))
            }
            buffer.append(contentsOf: item.frame)
        }
        let last = group.last { !$0.frame.isEmpty }
        let end = last.map { $0.firstSequence + UInt64($0.eventCount) } ?? writer.durableSequence
        if !buffer.isEmpty {
            let needed = start + Int64(buffer.count)
            if needed > writer.reserved {
                let goal = needed + EmbeddedLog.reserveStep
                // A refusal only costs speed: the write below says whether there is room.
                if headrace_reserve(writer.segment.file.descriptor, off_t(start), off_t(goal - start)) == 0 {
                    writer.reserved = goal
                }
            }
            do throws(EventLogError) {
                try writer.segment.file.write(buffer, at: start)
                try writer.segment.file.sync()
            } catch {
                try? writer.segment.file.truncate(to: start)
                throw error
            }
        }
        writer.segment.end = start + Int64(buffer.count)
        writer.previousHash = hash
        writer.durableSequence = end
        try EmbeddedLog.writeMark(writer)
        for (partition, entry) in entries {
            writer.index.batches.append((writer.index.number(of: partition), entry))
        }
        publish(entries, writer, bytes: buffer.count)
        if writer.segment.end >= options.segmentSize { try roll(&writer) }
    }

    static func entry(
        _ batch: LogFrame.Batch, _ frame: [UInt8], _ at: Int64, _ segment: Int
    ) throws(EventLogError) -> BatchEntry {
        do {
            let header = try frame.withRaw { raw throws(RecordFormatError) in
                try RecordBatchHeader(UnsafeRawBufferPointer(rebasing: raw[batch.start..<batch.start + batch.size]))
            }
            return BatchEntry(
                baseOffset: batch.baseOffset, count: Int32(batch.count), maxTime: header.maxTimestamp,
                segment: Int32(segment), fileOffset: at + Int64(batch.start), size: Int32(batch.size))
        } catch {
            throw EventLogError("bad-frame", "a batch in a frame is damaged", cause: error, fault: .world)
        }
    }

    private func publish(_ entries: [(TopicPartition, BatchEntry)], _ writer: WriterState, bytes: Int) {
        shared.update { state in
            for (partition, entry) in entries { state.index.append(entry, to: state.index.number(of: partition)) }
            state.segments[writer.segmentNumber].end = writer.segment.end
            state.durableSequence = writer.durableSequence
            state.lastHash = writer.previousHash
            state.version += 1
            state.syncs += bytes > 0 ? 1 : 0
            state.bytesWritten += UInt64(bytes)
            for continuation in state.followers.values { continuation.yield(state.version) }
        }
    }

    /// The mark says how far the log is known to be on disk, so that damage below it is told from a torn tail. It is not
    /// synced itself: after a crash of the process it is exact, after a crash of the machine it may lag.
    static func writeMark(_ writer: WriterState) throws(EventLogError) {
        var out = ByteWriter(capacity: 64)
        out.append(little: writer.segment.firstSequence)
        out.append(little: writer.segment.end)
        out.append(little: writer.durableSequence)
        out.append(writer.previousHash.bytes)
        out.append(little: out.bytes.withUnsafeBytes { headrace_crc32c(0, $0.baseAddress, $0.count) })
        try writer.mark.write(out.bytes, at: 0)
    }

    private func roll(_ writer: inout WriterState) throws(EventLogError) {
        try seal(&writer)
        let segment = try EmbeddedLog.createSegment(directory, firstSequence: writer.durableSequence)
        writer.segment = segment
        writer.segmentNumber += 1
        writer.reserved = 0
        writer.index = SegmentIndexFile()
        writer.keepsIndex = true
        shared.update { $0.segments.append(segment) }
        try EmbeddedLog.writeMark(writer)
    }

    /// Cuts the reserved space off and writes the segment's index beside it.
    private func seal(_ writer: inout WriterState) throws(EventLogError) {
        try writer.segment.file.truncate(to: writer.segment.end)
        try writer.segment.file.sync()
        writer.index.coveredBytes = writer.segment.end
        writer.index.nextSequence = writer.durableSequence
        writer.index.lastHash = writer.previousHash
        let path = EmbeddedLog.indexPath(writer.segment.file.path)
        guard writer.keepsIndex else {
            unlink(path)
            return
        }
        let temporary = path + ".tmp"
        do {
            try Data(writer.index.encoded()).write(to: URL(filePath: temporary))
            guard rename(temporary, path) == 0 else {
                throw EventLogError(
                    "write-failed", "cannot rename \(temporary): \(LogFile.reason(errno))", fault: .world)
            }
        } catch {
            // Only derived: without it the next start scans the segment.
            unlink(temporary)
        }
    }

    private func finish(_ writer: inout WriterState) {
        guard sequencer.withLock({ $0.stopped == nil }) else { return }
        try? seal(&writer)
        try? EmbeddedLog.writeMark(writer)
    }

    static func segmentPath(_ directory: String, _ firstSequence: UInt64) -> String {
        let digits = String(firstSequence)
        return directory + "/" + String(repeating: "0", count: 20 - digits.count) + digits + ".wal"
    }

    static func indexPath(_ segment: String) -> String { String(segment.dropLast(4)) + ".index" }

    static func createSegment(_ directory: String, firstSequence: UInt64) throws(EventLogError) -> Segment {
        let file = try LogFile(path: segmentPath(directory, firstSequence), create: true, exclusive: true)
        try LogFile.syncDirectory(directory)
        return Segment(firstSequence: firstSequence, file: file, end: 0)
    }
}
