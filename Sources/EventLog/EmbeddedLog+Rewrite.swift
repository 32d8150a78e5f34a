import Base
import RecordFormat

extension EmbeddedLog {
    /// What walking a sealed segment gave.
    private struct Contents {
        var chain: ByteWriter
        var batches: [TopicPartition: [(entry: BatchEntry, recorded: Int64)]] = [:]
        var damaged: [DamagedRange] = []
        var lastSequence: UInt64
        /// Of the last frame: where it ends, and its place in the chain's bytes.
        var frameEnd: UInt64 = 0
        var lastEnvelope: Range<Int>?

        /// Where the segment ends. What opening could not read of it may be readable by now.
        func end(_ index: SegmentIndexFile) -> (sequence: UInt64, hash: Digest) {
            guard let lastEnvelope, frameEnd >= index.nextSequence else {
                return (index.nextSequence, index.lastHash)
            }
            return (
                frameEnd,
                chain.bytes.withUnsafeBytes { Digest.of(UnsafeRawBufferPointer(rebasing: $0[lastEnvelope])) }
            )
        }
    }

    /// Moves the oldest sealed WAL segment into partition files and a chain file. Until the manifest is replaced nothing
    /// has happened; from then on the segment is superfluous.
    func rewrite(_ sealed: SealedSegment) throws(EventLogError) {
        var manifest = maintenance.withLock { $0.manifest }
        let segment = sealed.segment
        var contents: Contents
        do {
            contents = try walk(sealed, &manifest)
            noteReadable(segment.path)
        } catch {
            noteUnreadable(segment.path, error)
            throw error
        }
        var written: UInt64 = 0
        for partition in contents.batches.keys.sorted() {
            let number = manifest.ensure(partition)
            written += try move(
                contents.batches[partition] ?? [], of: partition, from: segment, &manifest.partitions[number])
        }
        if !contents.damaged.isEmpty {
            // Offsets that were lost at the end of a partition are never given to another event.
            for known in shared.withLock({ $0.partitions.list })
            where known.lostEnd > 0 && known.tail.allSatisfy({ $0.segment <= segment.firstSequence }) {
                let number = manifest.ensure(known.partition)
                manifest.partitions[number].end = max(manifest.partitions[number].end, known.lostEnd)
            }
        }
        let end = contents.end(sealed.index)
        if end.sequence != sealed.index.nextSequence { try writeIdentifiers(sealed, through: end.sequence) }
        contents.chain.sealFromEight()
        let chain = Manifest.Chain(
            firstSequence: segment.firstSequence, endSequence: end.sequence,
            bytes: Int64(contents.chain.count))
        try volume.replace(chain.path, with: contents.chain.bytes, durable: true)
        manifest.chains.append(chain)
        manifest.damaged += contents.damaged
        (manifest.rewrittenThrough, manifest.rewrittenHash) = end
        manifest.producers.expire(now: options.wallClock().milliseconds)
        manifest.rewrittenBytes += UInt64(segment.end)
        manifest.maintenanceBytes += written + UInt64(contents.chain.count)
        try adopt(&manifest)
        show(manifest, without: segment)
        maintenance.update { state in
            state.sealed.removeAll { $0.segment.firstSequence == segment.firstSequence }
        }
        if contents.damaged.isEmpty {
            try volume.remove(segment.path)
        } else {
            // What is left of it may still be worth something to somebody.
            try volume.makeDirectory(EmbeddedLog.quarantine)
            try volume.rename(segment.path, EmbeddedLog.quarantine + "/" + segment.path)
        }
        try volume.remove(Segment.indexPath(segment.firstSequence))
    }

    /// Damaged WAL segments after everything readable in them has been moved.
    static let quarantine = "quarantine"

    private func walk(_ sealed: SealedSegment, _ manifest: inout Manifest) throws(EventLogError) -> Contents {
        let segment = sealed.segment
        var contents = Contents(
            chain: ChainFile.begin(firstSequence: segment.firstSequence), lastSequence: segment.firstSequence)
        var walker = FrameWalker(file: segment.file, offset: 0, end: segment.end)
        walker.refusesUnreadable = !isGivenUp(segment.path)
        while let step = try walker.next() {
            switch step {
            case .frame(let frame, let at, let bytes):
                let gap = contents.lastSequence..<max(contents.lastSequence, frame.firstSequence)
                if !gap.isEmpty, !manifest.damaged.contains(where: { $0.sequences == gap }) {
                    contents.damaged.append(
                        DamagedRange(
                            file: EmbeddedLog.quarantine + "/" + segment.path, from: at, to: at,
                            sequences: gap))
                }
                bytes.withUnsafeBytes {
                    let envelope = UnsafeRawBufferPointer(rebasing: $0[..<frame.envelopeSize])
                    contents.lastEnvelope = contents.chain.count..<contents.chain.count + envelope.count
                    contents.chain.append(envelope)
                }
                for batch in frame.batches {
                    contents.batches[batch.partition, default: []].append(
                        (try EmbeddedLog.entry(batch, bytes, at), frame.recordedTime))
                    manifest.producers.note(
                        batch.producer, count: batch.count, partition: batch.partition, offset: batch.baseOffset,
                        recordedTime: frame.recordedTime)
                }
                contents.lastSequence = frame.endSequence
                contents.frameEnd = frame.endSequence
            case .damage(let from, let resume):
                let to = resume?.at ?? segment.end
                let next = resume?.description.firstSequence ?? sealed.index.nextSequence
                contents.damaged.append(
                    DamagedRange(
                        file: EmbeddedLog.quarantine + "/" + segment.path, from: from, to: to,
                        sequences: contents.lastSequence..<max(contents.lastSequence, next)))
                contents.lastSequence = max(contents.lastSequence, next)
                walker.offset = to
            }
        }
        return contents
    }

    private func move(
        _ batches: [(entry: BatchEntry, recorded: Int64)], of partition: TopicPartition, from segment: Segment,
        _ record: inout Manifest.Partition
    ) throws(EventLogError) -> UInt64 {
        var appender = PartitionAppender(record, cache: cache, options: options)
        var lost = record.lost
        var next = record.end
        for (entry, recorded) in batches {
            if entry.baseOffset > next { lost.append(next..<entry.baseOffset) }
            let bytes = try segment.file.read(at: entry.fileOffset, count: Int(entry.size))
            let header: RecordBatchHeader
            do {
                header = try bytes.withRaw { raw throws(RecordFormatError) in try RecordBatchHeader(raw) }
            } catch {
                throw EventLogError(
                    "rot", "a batch of \(partition) at offset \(entry.baseOffset) is damaged", cause: error,
                    fault: .world)
            }
            try appender.append(bytes, header, recordedTime: recorded)
            next = entry.end
        }
        record = try appender.finish()
        record.lost = lost
        return appender.written
    }

    /// Shows readers the files of a manifest.
    /// - Parameter segment: a WAL segment whose batches now stand in them.
    func show(_ manifest: Manifest, without segment: Segment? = nil) {
        shared.update { state in
            for record in manifest.partitions {
                let number = state.partitions.number(of: record.partition)
                var files: [PartitionFile] = []
                for file in record.files {
                    if let known = state.partitions[number].files.first(where: { $0.record == file }) {
                        files.append(known)
                    } else {
                        files.append(PartitionFile(record.partition, file, cache))
                    }
                }
                state.partitions[number].files = files
                state.partitions[number].start = record.start
            }
            guard let segment else { return }
            for number in state.partitions.list.indices {
                let moved = state.partitions[number].tail.prefix { $0.segment == segment.firstSequence }.count
                if moved > 0 { state.partitions[number].tail.removeFirst(moved) }
            }
            state.segments.removeAll { $0.firstSequence == segment.firstSequence }
            state.damaged =
                manifest.damaged
                + state.damaged.filter { range in
                    !manifest.damaged.contains { $0.sequences == range.sequences }
                }
        }
    }
}
