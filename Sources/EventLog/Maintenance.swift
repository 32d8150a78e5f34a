import Base
import CPlatform
import RecordFormat

/// What the upkeep of a log knows.
struct Maintenance: Sendable {
    var manifest: Manifest
    /// Sealed WAL segments that still stand as such, oldest first.
    var sealed: [SealedSegment]
    var closing = false
    var isWoken = false
    var failure: EventLogError?
    /// A file full of zeros that becomes the next WAL segment.
    var spare: (any LogFile)?
    var wantsSpare = false
    /// The sealed segment that the disk gives no bytes of, and since when.
    var unreadable: (segment: UInt64, time: Int64)?
    /// Indexes of partition files that were built again since the start; an index is looked at when it is first needed.
    var rebuiltIndexes: [String] = []
    /// Found while running; what opening found stands in its report.
    var lostIdentifiers: [LostIdentifiers] = []
    /// Set when nobody knows which manifest a crash would leave: then nothing is moved or removed until the next start.
    var stopped: EventLogError?
}

/// A WAL segment that gets no more frames.
struct SealedSegment: Sendable {
    let segment: EmbeddedLog.Segment
    var index: SegmentIndexFile
    let keepsIndex: Bool
    /// Ids of its first events, in a file from an earlier run.
    let prior: IdentifierFile?
    /// Index and ids are on disk.
    var isIndexed = false
    /// Ticket of the first append that stands behind it.
    let writtenTicket: Int
}

extension EmbeddedLog {
    func maintenanceLoop() {
        headrace_yield_to_others()
        // Ids of earlier runs have no filter yet.
        wakeMaintenance()
        while true {
            let isClosing = maintenance.wait(seconds: options.maintenanceInterval) { state -> Bool? in
                if state.closing { return true }
                let hasWork = state.isWoken || state.wantsSpare || (!state.sealed.isEmpty && state.failure == nil)
                state.isWoken = false
                return hasWork ? false : nil
            }
            if isClosing == true { return }
            do throws(EventLogError) {
                try maintain()
            } catch {
                // The log goes on as it is; the reason stands in the statistics, and the next interval tries again.
                maintenance.update { $0.failure = error }
            }
        }
    }

    func wakeMaintenance() { maintenance.update { $0.isWoken = true } }

    /// One pass of upkeep: writes indexes of sealed segments, moves them into partition files, gives up what retention
    /// lets go, compacts, and forgets ids behind every horizon. Runs by itself in the background; callers see it done.
    /// - Parameter compacts: compacts even where little would be won.
    package func maintain(compactsAll compacts: Bool = false) throws(EventLogError) {
        guard !options.readOnly else {
            throw EventLogError("read-only", "the log in \(volume.path) was opened for reading only")
        }
        // One step that fails does not keep the others from their work; the first failure is reported.
        var failure: EventLogError?
        func attempt(_ step: () throws(EventLogError) -> Void) {
            do throws(EventLogError) { try step() } catch { failure = failure ?? error }
        }
        upkeep.withLock { _ in
            attempt { () throws(EventLogError) in try prepareSpare() }
            attempt { () throws(EventLogError) in try rollOldSegment() }
            attempt { () throws(EventLogError) in try indexSealed() }
            filterIdentifiers()
            if let stopped = maintenance.withLock({ $0.stopped }) {
                // Nothing that would need a new manifest is begun.
                failure = failure ?? stopped
                maintenance.update { $0.failure = failure }
                return
            }
            // First what makes room.
            attempt { () throws(EventLogError) in try retain() }
            attempt { () throws(EventLogError) in
                // Never without its ids on disk: they may not be had from the partition files later.
                while !isClosing, let sealed = maintenance.withLock({ $0.sealed.first }), sealed.isIndexed {
                    try rewrite(sealed)
                    // Others may have been sealed meanwhile; their ids leave the memory first.
                    try indexSealed()
                    filterIdentifiers()
                }
            }
            attempt { () throws(EventLogError) in try retain() }
            attempt { () throws(EventLogError) in try rebuildDamagedIdentifiers() }
            attempt { () throws(EventLogError) in try compact(all: compacts) }
            attempt { () throws(EventLogError) in try forgetIdentifiers() }
            filterIdentifiers()
            let now = options.wallClock().milliseconds
            sequencer.withLock { $0.producers.expire(now: now) }
            attempt { () throws(EventLogError) in try writeMissingIndexes() }
            maintenance.update { $0.failure = failure }
        }
        if let failure { throw failure }
    }

    /// A log that closes breaks its upkeep off between two steps.
    var isClosing: Bool { maintenance.withLock { $0.closing } && options.hasThreads }

    /// Indexes that were rebuilt in memory are written beside their files again.
    private func writeMissingIndexes() throws(EventLogError) {
        let files = shared.withLock { state in state.partitions.list.flatMap(\.files) }
        for file in files {
            guard let index = file.rebuiltIndex else { continue }
            let path = PartitionFile.indexPath(file.path)
            try volume.replace(path, with: index, durable: false)
            file.indexWasWritten()
            maintenance.withLock { $0.rebuiltIndexes.append(path) }
        }
    }

    /// Name of the spare file; it counts for nothing until it is renamed.
    static let spare = "spare"

    /// Writes the next segment full of zeros ahead of its use. Appends then overwrite blocks that are there already, and a
    /// sync need not wait for the file system's journal, which would bring everybody else's data to disk with it.
    private func prepareSpare() throws(EventLogError) {
        let isWanted = maintenance.withLock { state in
            defer { state.wantsSpare = false }
            return state.wantsSpare && state.spare == nil && !state.closing
        }
        guard isWanted else { return }
        let file = try volume.open(EmbeddedLog.spare, .create)
        try file.truncate(to: 0)
        let zeros = [UInt8](repeating: 0, count: Int(min(options.segmentSize, 1 << 20)))
        do throws(EventLogError) {
            var offset: Int64 = 0
            while offset < options.segmentSize {
                try file.write(zeros, at: offset)
                offset += Int64(zeros.count)
            }
            try file.sync()
        } catch {
            // On a full disk the space belongs to events.
            try? volume.remove(EmbeddedLog.spare)
            throw error
        }
        maintenance.withLock { $0.spare = file }
    }

    /// Buckets of ids taken into the filter at once: appends wait for no longer than that.
    private static let filterBuckets = 512

    /// Takes files of ids into the filter that spares looking through them.
    private func filterIdentifiers() {
        for file in sequencer.withLock({ $0.identifiers.unfiltered }) {
            var bucket = 0
            while bucket < file.buckets {
                if isClosing { return }
                let next = min(bucket + EmbeddedLog.filterBuckets, file.buckets)
                // A damaged one is built again by this pass, and taken in by the next.
                guard let hashes = file.hashes(in: bucket..<next),
                    sequencer.withLock({ $0.identifiers.filter(hashes) })
                else { break }
                bucket = next
            }
            if bucket == file.buckets { sequencer.withLock { $0.identifiers.isFiltered(file) } }
        }
    }

    // MARK: Derived files of sealed segments

    private func indexSealed() throws(EventLogError) {
        for sealed in maintenance.withLock({ $0.sealed }) where !sealed.isIndexed {
            let file = try writeIndex(sealed)
            sequencer.withLock { $0.identifiers.adopt(file, written: sealed.writtenTicket, next: $0.nextTicket) }
            maintenance.withLock { state in
                guard
                    let place = state.sealed.firstIndex(where: {
                        $0.segment.firstSequence == sealed.segment.firstSequence
                    })
                else { return }
                state.sealed[place].isIndexed = true
                state.sealed[place].index.identifiers = []
            }
        }
    }

    /// Writes the index and the ids of a segment beside it; the ids as they can be looked up from then on.
    func writeIndex(_ sealed: SealedSegment) throws(EventLogError) -> IdentifierFile {
        let first = sealed.segment.firstSequence
        if sealed.keepsIndex {
            try volume.replace(Segment.indexPath(first), with: sealed.index.encoded(), durable: true)
        } else {
            try volume.remove(Segment.indexPath(first))
        }
        var index = sealed.index
        var entries = index.identifiers
        if let prior = sealed.prior {
            guard let known = prior.entries() else { return try rebuildIdentifiers(sealed) }
            entries =
                known.map {
                    IdentifierFile.Entry(hash: $0.hash, partition: index.number(of: $0.partition), offset: $0.offset)
                } + entries
        }
        return try writeIdentifiers(
            first..<index.nextSequence, index.newestRecorded, partitions: index.partitions, entries)
    }

    /// Synced like content: once events are trimmed, their ids cannot be had from anywhere else.
    func writeIdentifiers(
        _ sequences: Range<UInt64>, _ newest: Int64, partitions: [TopicPartition], _ entries: [IdentifierFile.Entry]
    ) throws(EventLogError) -> IdentifierFile {
        let path = Segment.identifierPath(sequences.lowerBound)
        let bytes = IdentifierFile.encode(
            firstSequence: sequences.lowerBound, endSequence: sequences.upperBound, newestRecorded: newest,
            partitions: partitions, entries: entries)
        try volume.replace(path, with: bytes, durable: true)
        guard let file = IdentifierFile(try volume.open(path, .read)) else {
            // The ids stay in memory, and the next pass writes them again.
            throw EventLogError(
                "read-failed", "the ids in \(volume.path)/\(path) were written and cannot be read", fault: .world)
        }
        return file
    }

    /// The ids of a segment's events before a sequence, from the events themselves.
    private func identifiers(_ segment: Segment, before end: UInt64) throws(EventLogError) -> SegmentIndexFile {
        var walker = FrameWalker(file: segment.file, offset: 0, end: segment.end)
        // An id that is left out is an event that may come twice.
        walker.refusesUnreadable = !isGivenUp(segment)
        var index = SegmentIndexFile()
        do {
            while let step = try walker.next() {
                switch step {
                case .frame(let frame, _, let bytes):
                    guard frame.firstSequence < end else { return index }
                    for batch in frame.batches where batch.isDeduplicated {
                        try index.identify(batch, try EmbeddedLog.records(batch, bytes), frame.recordedTime)
                    }
                case .damage(_, let resume): walker.offset = resume?.at ?? segment.end
                }
            }
        } catch {
            noteUnreadable(segment, error)
            throw error
        }
        return index
    }

    private func rebuildIdentifiers(_ sealed: SealedSegment) throws(EventLogError) -> IdentifierFile {
        let index = try identifiers(sealed.segment, before: .max)
        return try writeIdentifiers(
            sealed.segment.firstSequence..<sealed.index.nextSequence, index.newestRecorded,
            partitions: index.partitions, index.identifiers)
    }

    static func records(_ batch: LogFrame.Batch, _ frame: [UInt8]) throws(EventLogError) -> RecordBatch {
        do {
            return try frame.withRaw { raw throws(RecordFormatError) in
                try RecordBatch(UnsafeRawBufferPointer(rebasing: raw[batch.start..<batch.start + batch.size]))
            }
        } catch {
            throw EventLogError("bad-frame", "a batch of \(batch.partition) is damaged", cause: error, fault: .world)
        }
    }

    /// A table of ids that turned out damaged is built again from what it was built from.
    private func rebuildDamagedIdentifiers() throws(EventLogError) {
        let files = sequencer.withLock { $0.identifiers.files }
        for file in files where file.isSuspect {
            let path = Segment.identifierPath(file.firstSequence)
            switch IdentifierFile.condition(volume, path) {
            case .unreadable:
                throw EventLogError(
                    "read-failed", "the ids in \(volume.path)/\(path) cannot be read; they are tried again",
                    fault: .world)
            case .whole:
                // What failed was a read, and it was for a moment.
                if let again = IdentifierFile(try volume.open(path, .read)) {
                    sequencer.withLock { $0.identifiers.place(again) }
                }
                continue
            case .damaged: break
            }
            let manifest = maintenance.withLock { $0.manifest }
            let built: IdentifierFile?
            if let chain = manifest.chains.first(where: { $0.firstSequence == file.firstSequence }) {
                let (rebuilt, lost) = try IdentifierRebuild(cache: cache, manifest: manifest).build(chain)
                built = rebuilt
                if let lost { maintenance.withLock { $0.lostIdentifiers.append(lost) } }
            } else if let sealed = maintenance.withLock({ state in
                state.sealed.first { $0.segment.firstSequence == file.firstSequence }
            }) {
                built = try rebuildIdentifiers(sealed)
            } else {
                built = try rebuildActiveIdentifiers(file)
            }
            if let built {
                sequencer.withLock { $0.identifiers.place(built) }
            } else {
                // Everything it was built from is trimmed: what it held cannot be known any more.
                sequencer.withLock { $0.identifiers.remove(file) }
                try volume.remove(path)
            }
        }
    }

    /// The file of the segment being written, left by an earlier run.
    private func rebuildActiveIdentifiers(_ file: IdentifierFile) throws(EventLogError) -> IdentifierFile? {
        let segment = shared.withLock { state in state.segments.first { $0.firstSequence == file.firstSequence } }
        guard let segment else { return nil }
        let index = try identifiers(segment, before: file.endSequence)
        let built = try writeIdentifiers(
            file.firstSequence..<file.endSequence, index.newestRecorded, partitions: index.partitions,
            index.identifiers)
        writer.withLock { if $0?.segment.firstSequence == file.firstSequence { $0?.prior = built } }
        return built
    }

    private func forgetIdentifiers() throws(EventLogError) {
        var horizon: Int64 = 0
        let layouts = topics
        // A topic that nobody has declared yet may ask for more than the others.
        let known = Set(layouts.map(\.name))
        guard shared.withLock({ $0.partitions.list.allSatisfy { known.contains($0.partition.topic) } }) else { return }
        for layout in layouts {
            switch layout.deduplication {
            case .never: break
            case .milliseconds(let time): horizon = max(horizon, time)
            case .forever: return
            }
        }
        let (cutoff, overflow) = options.wallClock().milliseconds.subtractingReportingOverflow(horizon)
        guard !overflow else { return }
        var manifest = maintenance.withLock { $0.manifest }
        let gone = sequencer.withLock { state in
            state.identifiers.forget(recordedBefore: cutoff)
        }.filter { $0.endSequence <= manifest.rewrittenThrough }
        guard let last = gone.last else { return }
        manifest.identifiersFrom = max(manifest.identifiersFrom, last.endSequence)
        try adopt(&manifest)
        for file in gone { try volume.remove(Segment.identifierPath(file.firstSequence)) }
    }

    /// Makes a manifest the valid one.
    func adopt(_ manifest: inout Manifest) throws(EventLogError) {
        if let stopped = maintenance.withLock({ $0.stopped }) { throw stopped }
        let (isAdopted, failure) = manifest.store(volume)
        let stored = manifest
        if isAdopted { maintenance.withLock { $0.manifest = stored } }
        guard let failure else { return }
        guard isAdopted else { throw failure }
        let reason = EventLogError(
            "upkeep-stopped",
            "the manifest of \(volume.path) could not be brought to disk; appends and reads go on, moving and trimming wait for the next start",
            cause: failure, fault: .world)
        maintenance.withLock { $0.stopped = reason }
        show(stored)
        throw reason
    }
}

extension SegmentIndexFile {
    /// Takes the ids of a batch's events in.
    mutating func identify(
        _ batch: LogFrame.Batch, _ records: RecordBatch, _ recordedTime: Int64
    ) throws(EventLogError) {
        identify(batch.partition, records, batch.baseOffset..<batch.end)
        newestRecorded = max(newestRecorded, recordedTime)
    }

    /// Takes the ids of some of a batch's events in.
    mutating func identify(_ partition: TopicPartition, _ records: RecordBatch, _ range: Range<Int64>) {
        let seed = IdentifierTable.topicSeed(partition.topic)
        let number = number(of: partition)
        for record in records.indices(in: range) {
            let event = StoredEvent(batch: records, index: record)
            let hash = IdentifierTable.hash(topic: seed, source: event.header(EventHeader.source) ?? "", id: event.id)
            identifiers.append(IdentifierFile.Entry(hash: hash, partition: number, offset: event.offset))
        }
    }
}

/// Builds the ids of a rewritten segment again, from its chain file and the partition files.
struct IdentifierRebuild {
    let cache: FileCache
    let manifest: Manifest

    /// What was lost is nil where every event of the segment still stands. A file that only cannot be read now is left alone
    /// where what is built would know less.
    func build(
        _ chain: Manifest.Chain
    ) throws(EventLogError) -> (file: IdentifierFile?, lost: LostIdentifiers?) {
        var index = SegmentIndexFile()
        var reader = PartitionReader(cache: cache, manifest: manifest)
        for envelope in try ChainFile.load(cache.volume, chain) {
            for batch in envelope.description.batches where batch.isDeduplicated {
                // What is trimmed or damaged has no ids any more.
                for records in try reader.batches(batch.partition, batch.baseOffset..<batch.end) {
                    index.identify(batch.partition, records, batch.baseOffset..<batch.end)
                }
            }
            index.newestRecorded = max(index.newestRecorded, envelope.description.recordedTime)
        }
        let path = EmbeddedLog.Segment.identifierPath(chain.firstSequence)
        let bytes = IdentifierFile.encode(
            firstSequence: chain.firstSequence, endSequence: chain.endSequence, newestRecorded: index.newestRecorded,
            partitions: index.partitions, entries: index.identifiers)
        let lost = try lost(chain, known: index.identifiers.count)
        if lost != nil, IdentifierFile.condition(cache.volume, path) != .damaged {
            return (IdentifierFile(.bytes(bytes)), lost)
        }
        try cache.volume.replace(path, with: bytes, durable: false)
        return (IdentifierFile(try cache.volume.open(path, .read)), lost)
    }

    /// Segments of which everything was trimmed: their ids stand in their files alone, one behind the other.
    func gaps(_ names: [String]) -> [LostIdentifiers] {
        let end = manifest.chains.first?.firstSequence ?? manifest.rewrittenThrough
        var known = manifest.identifiersFrom
        var lost: [LostIdentifiers] = []
        func miss(_ through: UInt64) {
            guard through > known else { return }
            lost.append(
                LostIdentifiers(
                    file: EmbeddedLog.Segment.identifierPath(known), sequences: known..<through,
                    count: Int(through - known)))
        }
        for name in names.sorted() where name.hasSuffix(".ids") {
            guard let first = UInt64(name.dropLast(4)), first < end, first >= known,
                let file = (try? cache.volume.open(name, .read)).flatMap({ IdentifierFile($0) })
            else { continue }
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
