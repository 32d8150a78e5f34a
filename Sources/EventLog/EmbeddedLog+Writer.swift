import Base
import Dispatch
import RecordFormat

/// What only the writer touches.
struct WriterState: Sendable {
    var segment: EmbeddedLog.Segment
    var index: SegmentIndexFile
    /// False for a segment with damage: it is scanned at every start, so that the damage is reported and nothing forgotten.
    var keepsIndex = true
    /// Ids of the segment that were in a file when it was opened.
    var prior: IdentifierFile?
    var previousHash: Digest
    /// Events below it are on disk, and written.
    var durableSequence: UInt64
    var writtenSequence: UInt64
    let mark: any LogFile
    /// Bytes of the segment that are allocated on disk.
    var reserved: Int64 = 0
    /// The upkeep knows that the segment will be full soon.
    var askedForSpare = false
    /// Bytes of this life: who comes to read, and notes that he was here, fills no segment.
    var written: Int64 = 0
    /// Written and not yet synced: what readers will see then.
    var unsynced: [(partition: TopicPartition, entry: BatchEntry)] = []
    var hasUnsynced = false
    var bytesSinceSync = 0
    /// When the oldest unsynced byte was written, in nanoseconds of uptime.
    var unsyncedSince: UInt64 = 0
    /// Recorded time of the segment's first frame, milliseconds since 1970.
    var oldestRecorded: Int64?
    /// Reused from group to group.
    var buffer: [UInt8] = []
}

extension EmbeddedLog {
    /// Space is reserved in steps of this many bytes, so that most syncs change no file metadata.
    private static let reserveStep: Int64 = 16 << 20

    private enum Work {
        case group([Ready])
        /// Nothing more comes for now; what was written relaxed goes to disk.
        case sync
        case end
    }

    func writeLoop() {
        while true {
            let hasUnsynced = writer.withLock { $0?.hasUnsynced ?? false }
            let work: Work =
                sequencer.wait(seconds: hasUnsynced ? options.relaxedDelay : nil) { state in
                    let group = EmbeddedLog.takeGroup(&state)
                    if !group.isEmpty { return .group(group) }
                    return state.closing && state.writeTicket == state.nextTicket ? .end : nil
                } ?? .sync
            switch work {
            case .group(let group):
                commit(group)
                awaitUpkeep()
            case .sync: commit([])
            case .end: return
            }
        }
    }

    /// Whoever appends faster than segments can be moved goes on at the pace of the upkeep: what waits behind the writer holds
    /// producers back. An upkeep that fails keeps nobody waiting; why it does stands in the statistics. Never called with
    /// the writer's lock, which the upkeep needs.
    private func awaitUpkeep() {
        let limit = options.waitingSegments
        _ = maintenance.wait { $0.sealed.count <= limit || $0.failure != nil || $0.closing ? true : nil }
    }

    /// One group commit of what is ready now; false when nothing was. For a log without threads.
    @discardableResult
    package func commitReady() -> Bool {
        let group = sequencer.withLock { EmbeddedLog.takeGroup(&$0) }
        let unsynced = writer.withLock { $0?.hasUnsynced ?? false }
        guard !group.isEmpty || unsynced else { return false }
        commit(group)
        return !group.isEmpty
    }

    private static func takeGroup(_ state: inout Sequencer) -> [Ready] {
        var group: [Ready] = []
        var size = 0
        while size < groupSize, let next = state.ready.removeValue(forKey: state.writeTicket) {
            state.writeTicket += 1
            size += next.frame.count
            group.append(next)
        }
        return group
    }

    /// Writes one group, syncs once, shows it to readers and answers. Any failure stops the log for good: a failed sync
    /// may have dropped pages, and offsets beyond it are already assigned.
    private func commit(_ group: [Ready]) {
        do throws(EventLogError) {
            let stopped = sequencer.withLock { $0.stopped }
            if let stopped { throw stopped }
            try writer.withLock { state throws(EventLogError) in
                // Taken out while it is changed, so that its arrays are not copied.
                guard var current = state.take() else {
                    throw EventLogError("log-stopped", "the log is closed", fault: .world)
                }
                defer { state = current }
                try write(group, &current)
            }
        } catch {
            stop(error, group)
            return
        }
        sequencer.update { state in state.pendingBytes -= group.reduce(0) { $0 + $1.cost } }
        for item in group { item.completion(nil) }
    }

    private func stop(_ error: EventLogError, _ group: [Ready]) {
        let reason =
            error.code == "log-stopped"
            ? error
            : EventLogError(
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
        shared.update { state in
            guard state.stopped == nil else { return }
            state.stopped = reason
            state.version += 1
        }
        writer.withLock { $0?.hasUnsynced = false }
        for item in failed { item.completion(reason) }
    }

    private func write(_ group: [Ready], _ state: inout WriterState) throws(EventLogError) {
        let start = state.segment.end
        state.buffer.removeAll(keepingCapacity: true)
        var hash = state.previousHash
        let now = options.wallClock().milliseconds
        for var item in group where !item.frame.isEmpty {
            hash = LogFrame.seal(
                &item.frame, previousHash: hash, recordedTime: now, durableThrough: state.durableSequence)
            EmbeddedLog.enter(item, at: start + Int64(state.buffer.count), now, &state)
            state.buffer.append(contentsOf: item.frame)
            state.writtenSequence = item.firstSequence + UInt64(item.eventCount)
        }
        if !state.buffer.isEmpty {
            let end = start + Int64(state.buffer.count)
            if end > state.reserved, state.segment.file.reserve(start..<end + EmbeddedLog.reserveStep) {
                state.reserved = end + EmbeddedLog.reserveStep
            }
            do throws(EventLogError) {
                try state.segment.file.write(state.buffer, at: start)
            } catch {
                try? state.segment.file.truncate(to: start)
                throw error
            }
            state.segment.end = end
            state.previousHash = hash
            if !state.hasUnsynced { state.unsyncedSince = DispatchTime.now().uptimeNanoseconds }
            state.hasUnsynced = true
            state.oldestRecorded = state.oldestRecorded ?? now
            state.bytesSinceSync += state.buffer.count
            state.written += Int64(state.buffer.count)
        }
        // Relaxed appends wait for a sync of others, but neither for long nor for many bytes.
        let waited = Double(DispatchTime.now().uptimeNanoseconds &- state.unsyncedSince) / 1e9
        guard
            group.isEmpty || group.contains(where: { $0.durability == .synced })
                || state.bytesSinceSync >= EmbeddedLog.groupSize
                || (options.hasThreads && waited >= options.relaxedDelay)
        else { return }
        try sync(&state)
        if !state.askedForSpare, state.segment.end > options.segmentSize / 4, state.written > options.segmentSize / 64 {
            state.askedForSpare = true
            maintenance.update { $0.wantsSpare = true }
        }
        if state.segment.end >= options.segmentSize { try roll(&state) }
    }

    /// Takes a frame's batches and ids into the index of its segment.
    private static func enter(_ item: Ready, at offset: Int64, _ now: Int64, _ state: inout WriterState) {
        for (partition, entry, producer) in item.batches {
            let placed = BatchEntry(
                baseOffset: entry.baseOffset, end: entry.end, maxTime: entry.maxTime,
                fileOffset: offset + entry.fileOffset, size: entry.size, count: entry.count)
            state.index.append(placed, partition, producer)
            state.unsynced.append((partition, placed))
        }
        for identifier in item.identifiers {
            state.index.identifiers.append(
                IdentifierFile.Entry(
                    hash: identifier.hash, partition: state.index.number(of: identifier.partition),
                    offset: identifier.offset))
        }
        state.index.newestRecorded = max(state.index.newestRecorded, now)
    }

    static func entry(
        _ batch: LogFrame.Batch, _ frame: [UInt8], _ at: Int64
    ) throws(EventLogError) -> BatchEntry {
        do {
            let header = try frame.withRaw { raw throws(RecordFormatError) in
                try RecordBatchHeader(UnsafeRawBufferPointer(rebasing: raw[batch.start..<batch.start + batch.size]))
            }
            return BatchEntry(
                baseOffset: batch.baseOffset, end: batch.end, maxTime: header.maxTimestamp,
                fileOffset: at + Int64(batch.start), size: Int32(batch.size), count: Int32(batch.count))
        } catch {
            throw EventLogError("bad-frame", "a batch in a frame is damaged", cause: error, fault: .world)
        }
    }

    /// Brings what was written to disk and shows it to readers.
    private func sync(_ state: inout WriterState) throws(EventLogError) {
        guard state.hasUnsynced else { return }
        try state.segment.file.sync()
        state.durableSequence = state.writtenSequence
        try EmbeddedLog.writeMark(state)
        let (entries, segment, bytes) = (state.unsynced, state.segment, state.bytesSinceSync)
        state.unsynced.removeAll(keepingCapacity: true)
        state.hasUnsynced = false
        state.bytesSinceSync = 0
        let (durable, hash) = (state.durableSequence, state.previousHash)
        let version = shared.update { shared in
            for (partition, entry) in entries {
                shared.partitions.append(entry, segment: segment.firstSequence, to: partition)
            }
            shared.segments[shared.segments.count - 1].end = segment.end
            shared.durableSequence = durable
            shared.lastHash = hash
            shared.version += 1
            shared.syncs += 1
            shared.bytesWritten += UInt64(bytes)
            return shared.version
        }
        hub.wake(entries.map(\.partition))
        hub.announce(version)
    }

    /// The mark says how far the log is known to be on disk, so that damage below it is told from a torn tail. It is not
    /// synced itself: after a crash of the process it is exact, after a crash of the machine it may lag.
    static func writeMark(_ state: WriterState) throws(EventLogError) {
        try state.mark.write(
            DurableMark(
                segment: state.segment.firstSequence, end: state.segment.end, sequence: state.durableSequence,
                hash: state.previousHash
            ).encoded(), at: 0)
    }

    /// Seals the segment and begins the next. The index and the ids of the sealed one are written in the background.
    private func roll(_ state: inout WriterState) throws(EventLogError) {
        try sealFile(&state)
        let (segment, reserved) = try nextSegment(firstSequence: state.durableSequence)
        let sealed = SealedSegment(
            segment: state.segment, index: state.index, keepsIndex: state.keepsIndex, prior: state.prior,
            writtenTicket: sequencer.withLock { $0.writeTicket })
        state.segment = segment
        state.reserved = reserved
        state.askedForSpare = false
        state.index = SegmentIndexFile()
        state.oldestRecorded = nil
        state.keepsIndex = true
        state.prior = nil
        shared.update { $0.segments.append(segment) }
        maintenance.update { $0.sealed.append(sealed) }
        try EmbeddedLog.writeMark(state)
    }

    /// Ends a segment that has stood open for long, so that a quiet log moves, and is trimmed, all the same.
    func rollOldSegment() throws(EventLogError) {
        let now = options.wallClock().milliseconds
        do throws(EventLogError) {
            try writer.withLock { state throws(EventLogError) in
                guard var current = state.take() else { return }
                defer { state = current }
                guard !current.hasUnsynced, let oldest = current.oldestRecorded, now - oldest > options.segmentAge,
                    sequencer.withLock({ $0.stopped == nil })
                else { return }
                try roll(&current)
            }
        } catch {
            stop(error, [])
            throw error
        }
    }

    /// Cuts the reserved space off, so that the file ends where its last frame does.
    private func sealFile(_ state: inout WriterState) throws(EventLogError) {
        try state.segment.file.truncate(to: state.segment.end)
        try state.segment.file.sync()
        state.index.coveredBytes = state.segment.end
        state.index.nextSequence = state.durableSequence
        state.index.lastHash = state.previousHash
    }

    /// Leaves the log so that opening it need not scan.
    func finish(_ state: inout WriterState) {
        guard sequencer.withLock({ $0.stopped == nil }) else { return }
        do throws(EventLogError) {
            if maintenance.withLock({ $0.spare != nil }) { try volume.remove(EmbeddedLog.spare) }
            try sync(&state)
            try sealFile(&state)
            try EmbeddedLog.writeMark(state)
            for sealed in maintenance.withLock({ $0.sealed }) where !sealed.isIndexed { _ = try writeIndex(sealed) }
            _ = try writeIndex(
                SealedSegment(
                    segment: state.segment, index: state.index, keepsIndex: state.keepsIndex, prior: state.prior,
                    writtenTicket: 0))
        } catch {
            // Derived files only: the next start scans instead.
        }
    }

    /// The spare file under its own name, or a new one.
    private func nextSegment(firstSequence: UInt64) throws(EventLogError) -> (Segment, reserved: Int64) {
        guard let spare = maintenance.withLock({ $0.spare }) else {
            return (try EmbeddedLog.createSegment(volume, firstSequence: firstSequence), 0)
        }
        try volume.rename(EmbeddedLog.spare, Segment.path(firstSequence))
        // Only now: upkeep that saw none would open the name, and fill with zeros what holds events by then.
        maintenance.withLock { $0.spare = nil }
        try volume.syncDirectory("")
        return (Segment(firstSequence: firstSequence, file: spare, end: 0), spare.size)
    }

    static func createSegment(_ volume: any LogVolume, firstSequence: UInt64) throws(EventLogError) -> Segment {
        let file = try volume.open(Segment.path(firstSequence), .createNew)
        try volume.syncDirectory("")
        return Segment(firstSequence: firstSequence, file: file, end: 0)
    }
}

/// How far the log is known to be on disk.
struct DurableMark: Sendable {
    static let path = "durable.mark"

    /// First sequence of the segment, and where it ends.
    let segment: UInt64
    let end: Int64
    /// Events below it are on disk.
    let sequence: UInt64
    /// Of the last frame.
    let hash: Digest

    init(segment: UInt64, end: Int64, sequence: UInt64, hash: Digest) {
        self.segment = segment
        self.end = end
        self.sequence = sequence
        self.hash = hash
    }

    func encoded() -> [UInt8] {
        var out = ByteWriter(capacity: 64)
        out.append(little: UInt32(0x314B_5248))  // "HRK1"
        out.append(little: UInt32(0))
        out.append(little: segment)
        out.append(little: end)
        out.append(little: sequence)
        out.append(hash.bytes)
        out.sealFromEight()
        return out.bytes
    }

    init?(_ bytes: [UInt8]) {
        guard bytes.count >= 64 else { return nil }
        do throws(BaseError) {
            self = try Array(bytes.prefix(64)).withRaw { raw throws(BaseError) in
                var reader = try ByteReader(sealed: raw, magic: 0x314B_5248)
                let segment: UInt64 = try reader.little()
                let end: Int64 = try reader.little()
                let sequence: UInt64 = try reader.little()
                guard let hash = Digest(try reader.slice(Digest.byteCount)), end >= 0 else {
                    throw BaseError("bad-mark", "damaged", fault: .world)
                }
                return DurableMark(segment: segment, end: end, sequence: sequence, hash: hash)
            }
        } catch {
            return nil
        }
    }
}
