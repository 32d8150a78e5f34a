import Base
import RecordFormat

/// What walking the whole log from its files found.
package struct LogVerification: Sendable {
    /// Content that is not what a later hash says: rewritten after the fact, with valid checksums.
    package struct Rewritten: Sendable {
        package let file: String
        package let at: Int64
        package let sequences: Range<UInt64>
        /// Partition and offsets of every batch concerned.
        package let ranges: [(partition: TopicPartition, offsets: Range<Int64>)]
    }

    package var frames = 0
    package var events: UInt64 = 0
    package var bytes: Int64 = 0
    package var damaged: [DamagedRange] = []
    package var rewritten: [Rewritten] = []
    package var lostIdentifiers: [LostIdentifiers] = []
    /// Files that the disk gives no bytes of now: what they hold is neither proven nor lost.
    package var unreadable: [String] = []
    /// Derived files that are damaged and can be built again; a log that is written to does so.
    package var rebuildable: [String] = []
    /// Events whose content retention or compaction gave up; their place in the chain is proven all the same.
    package var released: UInt64 = 0
    package var head = Digest.zero
    /// The sequence behind the last frame of the chain.
    package var reached: UInt64 = 0
    /// One past the frame in which the subject stands.
    package var subjectEnd: UInt64?

    package var isIntact: Bool { damaged.isEmpty && rewritten.isEmpty && lostIdentifiers.isEmpty && unreadable.isEmpty }
}

extension Position {
    fileprivate func stands(in batch: LogFrame.Batch) -> Bool {
        batch.partition.topic == topic && batch.partition.partition == partition && offset >= batch.baseOffset
            && offset < batch.end
    }
}

extension EmbeddedLog {
    /// Reads everything from disk, checks checksums and the digest of every batch, and follows the hash chain from the
    /// first frame to the last.
    /// - Parameter subject: an event whose place in the global sequence the caller wants to know.
    package func verify(subject: Position? = nil) throws(EventLogError) -> LogVerification {
        // Nothing moves meanwhile.
        try upkeep.withLock { _ throws(EventLogError) in
            let manifest = maintenance.withLock { $0.manifest }
            let (segments, head, durable) = shared.withLock { ($0.segments, $0.lastHash, $0.durableSequence) }
            var run = Verification(
                subject: subject, manifest: manifest, reader: PartitionReader(cache: cache, manifest: manifest))
            for chain in manifest.chains { try run.check(chain, volume) }
            try run.checkIdentifiers(cache)
            try run.checkFiles(cache)
            for (index, segment) in segments.enumerated() {
                let end = index + 1 < segments.count ? segments[index + 1].firstSequence : durable
                try run.check(segment, endSequence: end)
            }
            let found = run.finish(head: head, durable: durable, lastFile: segments.last?.path ?? Segment.path(durable))
            for file in sequencer.withLock({ $0.identifiers.files })
            where found.rebuildable.contains(Segment.identifierPath(file.firstSequence)) { file.makeSuspect() }
            return found
        }
    }
}

/// One walk over a log.
private struct Verification {
    let subject: Position?
    let manifest: Manifest
    var reader: PartitionReader
    var result = LogVerification()
    private var hash: Digest
    private var previous: (frame: LogFrame.Description, file: String, at: Int64)?
    private var afterDamage = false
    private var stated: [TopicPartition: (baseOffset: Int64, isTrue: Bool)] = [:]

    init(subject: Position?, manifest: Manifest, reader: PartitionReader) {
        self.subject = subject
        self.manifest = manifest
        self.reader = reader
        hash = manifest.chainHash
        result.damaged = manifest.damaged
    }

    private mutating func blame(_ frame: LogFrame.Description, _ file: String, _ at: Int64) {
        let ranges = frame.batches.map { (partition: $0.partition, offsets: $0.baseOffset..<$0.end) }
        result.rewritten.append(
            LogVerification.Rewritten(
                file: file, at: at, sequences: frame.firstSequence..<frame.endSequence, ranges: ranges))
    }

    /// One more link of the chain.
    private mutating func follow(_ frame: LogFrame.Description, _ own: Digest, _ file: String, _ at: Int64) {
        let expected = previous?.frame.endSequence ?? manifest.chainStart
        if frame.firstSequence > expected {
            // What lies between was lost.
            let isTold = result.damaged.contains {
                $0.sequences.lowerBound <= expected && $0.sequences.upperBound >= frame.firstSequence
            }
            if !isTold, !afterDamage {
                result.damaged.append(
                    DamagedRange(file: file, from: at, to: at, sequences: expected..<frame.firstSequence))
            }
            afterDamage = true
        }
        if frame.previousHash != hash, !afterDamage {
            // Before the first frame there is nothing; if it names something, that was taken away.
            let culprit = previous ?? (frame, file, at)
            blame(culprit.frame, culprit.file, culprit.at)
        }
        if let subject, frame.batches.contains(where: { subject.stands(in: $0) }) {
            result.subjectEnd = frame.endSequence
        }
        afterDamage = false
        hash = own
        previous = (frame, file, at)
        result.frames += 1
        result.events += UInt64(frame.eventCount)
    }

    mutating func check(_ chain: Manifest.Chain, _ volume: any LogVolume) throws(EventLogError) {
        let envelopes: [ChainFile.Envelope]
        do {
            envelopes = try ChainFile.load(volume, chain)
        } catch {
            var damage = DamagedRange(
                file: chain.path, from: 0, to: chain.bytes, sequences: chain.firstSequence..<chain.endSequence)
            damage.isProofAlone = true
            result.damaged.append(damage)
            afterDamage = true
            return
        }
        result.bytes += chain.bytes
        for envelope in envelopes {
            follow(envelope.description, envelope.hash, chain.path, 0)
            for batch in envelope.description.batches { try check(batch, envelope.description) }
        }
    }

    /// Whether the records of a batch are still those that its envelope names.
    private mutating func check(_ batch: LogFrame.Batch, _ frame: LogFrame.Description) throws(EventLogError) {
        let range = batch.baseOffset..<batch.end
        guard !reader.isTrimmed(batch.partition, range) else {
            result.released += UInt64(batch.count)
            return
        }
        if let file = reader.file(batch.partition, batch.baseOffset), file.record.isCompacted {
            result.released += UInt64(batch.count)
            return
        }
        let known = reader.damaged.count
        let stored = try reader.batches(batch.partition, range)
        for new in reader.damaged[known...] {
            result.damaged.append(damage(new.path, new.partition, new.entry, frame.firstSequence..<frame.endSequence))
        }
        var builder = RecordBatchBuilder(baseOffset: batch.baseOffset)
        for records in stored {
            for index in records.indices(in: range) { builder.append(records, index) }
        }
        let digest = batch.isTimed ? builder.digest : builder.untimedDigest
        guard digest != batch.digest || !stored.allSatisfy({ states(its: $0, batch.partition) }) else { return }
        // Damage was reported already; anything else was changed with its checksum made good.
        let isUnreadable = reader.damaged.contains {
            $0.partition == batch.partition && ($0.entry.baseOffset..<$0.entry.end).overlaps(range)
        }
        let isLost = manifest.partitions.contains {
            $0.partition == batch.partition && $0.lost.contains { $0.overlaps(range) }
        }
        guard !isUnreadable, !isLost else { return }
        let file = reader.file(batch.partition, batch.baseOffset)
        if builder.count < batch.count {
            // Not changed but gone: without its index a file does not tell where a damaged batch stood.
            var damage = DamagedRange(
                file: file?.path ?? "", from: 0, to: 0, sequences: frame.firstSequence..<frame.endSequence)
            damage.lost = (batch.partition, range)
            return result.damaged.append(damage)
        }
        result.rewritten.append(
            LogVerification.Rewritten(
                file: file?.path ?? "", at: 0, sequences: frame.firstSequence..<frame.endSequence,
                ranges: [(batch.partition, range)]))
    }

    private func damage(
        _ path: String, _ partition: TopicPartition, _ entry: BatchEntry, _ sequences: Range<UInt64> = 0..<0
    ) -> DamagedRange {
        var range = DamagedRange(
            file: path, from: entry.fileOffset, to: entry.fileOffset + Int64(entry.size), sequences: sequences)
        range.lost = (partition, entry.baseOffset..<entry.end)
        return range
    }

    /// Whether a stored batch states its records' times; it holds many appends and is looked at once.
    private mutating func states(its batch: RecordBatch, _ partition: TopicPartition) -> Bool {
        if let known = stated[partition], known.baseOffset == batch.header.baseOffset { return known.isTrue }
        let isTrue = batch.statesItsTimes
        stated[partition] = (batch.header.baseOffset, isTrue)
        return isTrue
    }

    /// Whether every id is known that the log promises to know.
    mutating func checkIdentifiers(_ cache: FileCache) throws(EventLogError) {
        let rebuild = IdentifierRebuild(cache: cache, manifest: manifest)
        for chain in manifest.chains where chain.endSequence > manifest.identifiersFrom {
            let path = EmbeddedLog.Segment.identifierPath(chain.firstSequence)
            let file = IdentifierFile.load(cache.volume, path).file
            let condition = IdentifierFile.condition(cache.volume, path)
            if let file, condition == .whole {
                // A damaged chain is reported already.
                if let lost = try? rebuild.lost(chain, known: file.count) { result.lostIdentifiers.append(lost) }
                continue
            }
            let built = rebuild.build(
                chain.firstSequence..<chain.endSequence, chain, salvaging: file, stated: file?.count)
            guard let lost = built.lost else {
                result.rebuildable.append(path)
                continue
            }
            if condition == .unreadable || built.metUnreadable {
                result.unreadable.append(path)
            } else {
                result.lostIdentifiers.append(lost)
            }
        }
        for (lost, isUnreadable) in rebuild.gaps(try cache.volume.list()) {
            if isUnreadable { result.unreadable.append(lost.file) } else { result.lostIdentifiers.append(lost) }
        }
    }

    /// What the chain does not reach: compacted files, known by a digest of the whole file, and trimmed batches.
    mutating func checkFiles(_ cache: FileCache) throws(EventLogError) {
        for partition in manifest.partitions {
            for record in partition.files {
                result.bytes += record.bytes
                let file = PartitionFile(partition.partition, record, cache)
                if !file.hasIndex { result.rebuildable.append(PartitionFile.indexPath(file.path)) }
                do {
                    if record.isCompacted {
                        try checkCompacted(file)
                    } else if record.baseOffset < partition.start {
                        // What is trimmed and still there is no part of any batch that is checked otherwise.
                        _ = try findDamage(file, below: partition.start)
                    }
                } catch {
                    guard ["no-such-file", "read-failed"].contains(error.code) else { throw error }
                    result.damaged.append(
                        DamagedRange(file: file.path, from: 0, to: record.bytes, sequences: 0..<0))
                }
            }
        }
    }

    private mutating func checkCompacted(_ file: PartitionFile) throws(EventLogError) {
        let opened = try file.file()
        var stream = DigestStream()
        var offset: Int64 = 0
        while offset < file.record.bytes {
            let bytes = try opened.read(at: offset, count: Int(min(1 << 20, file.record.bytes - offset)))
            guard !bytes.isEmpty else { break }
            stream.update(bytes)
            offset += Int64(bytes.count)
        }
        guard offset < file.record.bytes || stream.finish() != file.record.digest else { return }
        guard try !findDamage(file, below: .max) else { return }
        result.rewritten.append(
            LogVerification.Rewritten(
                file: file.path, at: 0, sequences: 0..<0, ranges: [(file.partition, file.record.range)]))
    }

    /// Whether batches of a file that end at or below an offset are damaged.
    private mutating func findDamage(_ file: PartitionFile, below offset: Int64) throws(EventLogError) -> Bool {
        var found = false
        let opened = try file.file()
        var covered: Int64 = 0
        for entry in try file.entries() {
            if entry.fileOffset > covered {
                // Without its index, what is damaged here is no entry at all.
                found = true
                result.damaged.append(
                    DamagedRange(file: file.path, from: covered, to: entry.fileOffset, sequences: 0..<0))
            }
            covered = entry.fileOffset + Int64(entry.size)
            guard entry.end <= offset else { continue }
            let bytes = try opened.read(at: entry.fileOffset, count: Int(entry.size))
            let batch = try? bytes.withRaw { raw throws(RecordFormatError) in try RecordBatch(raw) }
            if let header = batch?.header, header.leaderEpoch == -1, header.baseOffset == entry.baseOffset { continue }
            found = true
            result.damaged.append(damage(file.path, file.partition, entry))
        }
        return found
    }

    /// - Parameter endSequence: what the segment should reach.
    mutating func check(_ segment: EmbeddedLog.Segment, endSequence: UInt64) throws(EventLogError) {
        var walker = FrameWalker(file: segment.file, offset: 0, end: segment.end)
        while let step = try walker.next() {
            switch step {
            case .frame(let frame, let at, let bytes):
                let own = bytes.withUnsafeBytes {
                    Digest.of(UnsafeRawBufferPointer(rebasing: $0[..<frame.envelopeSize]))
                }
                follow(frame, own, segment.path, at)
                result.bytes += Int64(frame.size)
                for batch in frame.batches {
                    if let records = try? EmbeddedLog.records(batch, bytes), records.isWhat(batch) { continue }
                    result.rewritten.append(
                        LogVerification.Rewritten(
                            file: segment.path, at: at, sequences: frame.firstSequence..<frame.endSequence,
                            ranges: [(batch.partition, batch.baseOffset..<batch.end)]))
                }
            case .damage(let from, let resume):
                let start = previous?.frame.endSequence ?? segment.firstSequence
                let end = resume?.description.firstSequence ?? endSequence
                result.damaged.append(
                    DamagedRange(
                        file: segment.path, from: from, to: resume?.at ?? segment.end,
                        sequences: start..<max(start, end)))
                afterDamage = true
                walker.offset = resume?.at ?? segment.end
            }
        }
    }

    /// - Parameter durable: events below it were once on the disk.
    mutating func finish(head: Digest, durable: UInt64, lastFile: String) -> LogVerification {
        let reached = previous?.frame.endSequence ?? manifest.rewrittenThrough
        result.reached = reached
        if reached < durable, !result.damaged.contains(where: { $0.sequences.upperBound >= durable }) {
            // Cut off where a frame ended, or gone as a whole: only the mark knows that there was more.
            result.damaged.append(DamagedRange(file: lastFile, from: 0, to: 0, sequences: reached..<durable))
            afterDamage = true
        }
        if !afterDamage, hash != head, let previous { blame(previous.frame, previous.file, previous.at) }
        result.head = hash
        return result
    }
}

extension RecordBatch {
    /// Whether the records, their times and who sent them are what an envelope says.
    fileprivate func isWhat(_ batch: LogFrame.Batch) -> Bool {
        let own = batch.isTimed ? RecordBatchLayout.digest(header.baseTimestamp, payload) : Digest.of(payload)
        return own == batch.digest && header.producer == batch.producer && statesItsTimes
    }

    /// Whether the newest time that its header names is that of its records, and nothing else gives them another. Lookups by
    /// time go by the header.
    fileprivate var statesItsTimes: Bool {
        guard header.attributes & ~(RecordBatchLayout.codecMask | RecordBatchLayout.deleteHorizonBit) == 0 else {
            return false
        }
        return records.isEmpty || header.maxTimestamp == records.lazy.map(\.timestamp).max()
    }
}
