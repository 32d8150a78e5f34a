import Base
import RecordFormat

/// The upkeep of event ids: in files beside sealed segments, built again where they are damaged, forgotten behind every
/// horizon.
extension EmbeddedLog {
    func indexSealed() throws(EventLogError) {
        // Oldest first, and none before those ahead of it: a file on the disk stands for all that is older in memory.
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
        let known = sealed.prior?.entries()
        if !sealed.keepsIndex || (sealed.prior != nil && known == nil) {
            // What opening could not read of the segment may be readable now, and its ids with it.
            index = try identifiers(sealed.segment, before: .max)
            index.newestRecorded = max(index.newestRecorded, sealed.index.newestRecorded)
            index.merge(sealed.index.known)
        }
        if let prior = sealed.prior {
            index.merge(known ?? prior.salvaged())
        } else {
            index.merge(try stored(first))
        }
        return try writeIdentifiers(
            first..<sealed.index.nextSequence, index.newestRecorded, partitions: index.partitions, index.identifiers)
    }

    /// The segment holds more than opening could read of it: its ids are taken again before it moves.
    func writeIdentifiers(_ sealed: SealedSegment, through end: UInt64) throws(EventLogError) {
        let first = sealed.segment.firstSequence
        var index = try identifiers(sealed.segment, before: .max)
        index.merge(try stored(first))
        let file = try writeIdentifiers(
            first..<end, max(index.newestRecorded, sealed.index.newestRecorded), partitions: index.partitions,
            index.identifiers)
        sequencer.withLock { $0.identifiers.place(file) }
    }

    /// What a file that opening could not read holds: it is not replaced by one that may know less.
    private func stored(_ first: UInt64) throws(EventLogError) -> [IdentifierFile.Known] {
        let path = Segment.identifierPath(first)
        let (file, condition) = IdentifierFile.load(volume, path)
        if condition == .unreadable, !isGivenUp(path) {
            throw unreadableIdentifiers(path)
        }
        return file?.firstSequence == first ? file?.salvaged() ?? [] : []
    }

    private func unreadableIdentifiers(_ path: String) -> EventLogError {
        let error = EventLogError(
            "read-failed", "the ids in \(volume.path)/\(path) cannot be read; they are tried again", fault: .world)
        noteUnreadable(path, error)
        return error
    }

    /// Synced like content: once events are trimmed, their ids cannot be had from anywhere else.
    func writeIdentifiers(
        _ sequences: Range<UInt64>, _ newest: Int64, partitions: [TopicPartition], _ entries: [IdentifierFile.Entry]
    ) throws(EventLogError) -> IdentifierFile {
        let bytes = IdentifierFile.encode(
            firstSequence: sequences.lowerBound, endSequence: sequences.upperBound, newestRecorded: newest,
            partitions: partitions, entries: entries)
        return try store(bytes, Segment.identifierPath(sequences.lowerBound))
    }

    private func store(_ bytes: [UInt8], _ path: String) throws(EventLogError) -> IdentifierFile {
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
        walker.refusesUnreadable = !isGivenUp(segment.path)
        var index = SegmentIndexFile()
        do {
            scan: while let step = try walker.next() {
                switch step {
                case .frame(let frame, _, let bytes):
                    guard frame.firstSequence < end else { break scan }
                    for batch in frame.batches where batch.isDeduplicated {
                        try index.identify(batch, try EmbeddedLog.records(batch, bytes), frame.recordedTime)
                    }
                case .damage(_, let resume): walker.offset = resume?.at ?? segment.end
                }
            }
        } catch {
            noteUnreadable(segment.path, error)
            throw error
        }
        noteReadable(segment.path)
        return index
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

    // MARK: Damaged files

    /// Files of ids that turned out damaged or unreadable are built again from what they were built from. One that cannot be
    /// mended yet does not keep the others waiting.
    func rebuildDamagedIdentifiers() throws(EventLogError) {
        var failure: EventLogError?
        for file in sequencer.withLock({ $0.identifiers.files }) where file.isSuspect {
            do throws(EventLogError) {
                try mend(file)
                noteReadable(Segment.identifierPath(file.firstSequence))
            } catch {
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
    }

    private func mend(_ file: IdentifierFile) throws(EventLogError) {
        let path = Segment.identifierPath(file.firstSequence)
        let condition = IdentifierFile.condition(volume, path)
        if condition == .whole, let again = IdentifierFile.load(volume, path).file,
            again.endSequence >= file.endSequence
        {
            // What failed was a read, and it was for a moment.
            sequencer.withLock { $0.identifiers.place(again) }
            maintenance.withLock { _ = $0.regainedIdentifiers.insert(path) }
            return
        }
        let sealed = maintenance.withLock { state in
            state.sealed.first { $0.segment.firstSequence == file.firstSequence }
        }
        if let sealed {
            var index = try identifiers(sealed.segment, before: .max)
            index.merge(file.salvaged())
            let built = try writeIdentifiers(
                file.firstSequence..<sealed.index.nextSequence, index.newestRecorded, partitions: index.partitions,
                index.identifiers)
            return sequencer.withLock { $0.identifiers.place(built) }
        }
        if let built = try rebuildActiveIdentifiers(file) {
            return sequencer.withLock { $0.identifiers.place(built) }
        }
        try rebuildMoved(file, condition)
    }

    /// The file of a segment that has moved, or of one of which everything was trimmed.
    private func rebuildMoved(
        _ file: IdentifierFile, _ condition: IdentifierFile.Condition
    ) throws(EventLogError) {
        let path = Segment.identifierPath(file.firstSequence)
        let manifest = maintenance.withLock { $0.manifest }
        let chain = manifest.chains.first { $0.firstSequence == file.firstSequence }
        // The table at hand may be what opening could make without the one on the disk.
        let stored = IdentifierFile.load(volume, path).file
        let rebuilt = IdentifierRebuild(cache: cache, manifest: manifest).build(
            file.firstSequence..<file.endSequence, chain, salvaging: stored ?? file, stated: stored?.count)
        if rebuilt.lost != nil, condition != .damaged || rebuilt.metUnreadable, !isGivenUp(path) {
            // Another time the disk may give what is missing.
            throw unreadableIdentifiers(path)
        }
        if rebuilt.count == 0, chain == nil {
            // Whatever it held cannot be known any more.
            sequencer.withLock { $0.identifiers.remove(file) }
            try volume.remove(path)
        } else {
            let built = try store(rebuilt.bytes, path)
            sequencer.withLock { $0.identifiers.place(built) }
        }
        maintenance.withLock { state in
            state.lostIdentifiers.removeAll { $0.file == path }
            if let lost = rebuilt.lost {
                state.lostIdentifiers.append(lost)
            } else {
                state.regainedIdentifiers.insert(path)
            }
        }
    }

    /// The file of the segment being written, left by an earlier run.
    private func rebuildActiveIdentifiers(_ file: IdentifierFile) throws(EventLogError) -> IdentifierFile? {
        let segment = shared.withLock { state in state.segments.first { $0.firstSequence == file.firstSequence } }
        guard let segment else { return nil }
        var index = try identifiers(segment, before: file.endSequence)
        index.merge(file.salvaged())
        let built = try writeIdentifiers(
            file.firstSequence..<file.endSequence, index.newestRecorded, partitions: index.partitions,
            index.identifiers)
        writer.withLock { if $0?.segment.firstSequence == file.firstSequence { $0?.prior = built } }
        return built
    }

    // MARK: What the disk gives no bytes of

    /// How long a file that the disk gives no bytes of is tried again before its place counts as lost, in milliseconds: a
    /// disk that is away for a moment must not cost what is on it.
    static let unreadablePatience: Int64 = 60_000
    /// And how often at least, however long the process was asleep.
    static let unreadableAttempts = 3

    func isGivenUp(_ path: String) -> Bool {
        guard let known = maintenance.withLock({ $0.unreadable[path] }) else { return false }
        return known.attempts >= EmbeddedLog.unreadableAttempts
            && options.uptime() >= known.since + EmbeddedLog.unreadablePatience
    }

    func noteUnreadable(_ path: String, _ error: EventLogError) {
        guard error.code == "read-failed" else { return }
        let now = options.uptime()
        maintenance.withLock { $0.unreadable[path, default: Unreadable(since: now, attempts: 0)].attempts += 1 }
    }

    /// It was away for a moment; the next time counts anew.
    func noteReadable(_ path: String) { maintenance.withLock { _ = $0.unreadable.removeValue(forKey: path) } }

    // MARK: Behind the horizon

    func forgetIdentifiers() throws(EventLogError) {
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

    /// Its ids with their partitions by name.
    var known: [IdentifierFile.Known] {
        identifiers.map { ($0.hash, partitions[Int($0.partition)], $0.offset) }
    }

    /// Takes ids in that another table knows and this one does not.
    mutating func merge(_ others: [IdentifierFile.Known]) {
        guard !others.isEmpty else { return }
        var known = Set(identifiers.map { IdentifierFile.Key($0.hash) })
        for other in others where known.insert(IdentifierFile.Key(other.hash)).inserted {
            identifiers.append(
                IdentifierFile.Entry(
                    hash: other.hash, partition: number(of: other.partition), offset: other.offset))
        }
    }
}
