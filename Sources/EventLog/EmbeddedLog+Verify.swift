import Base
import RecordFormat

/// What walking the whole log from its files found.
package struct LogVerification: Sendable {
    /// A frame whose content is not what the next frame's hash says: rewritten after the fact, with a valid CRC.
    package struct Rewritten: Sendable {
        package let file: String
        package let at: Int64
        package let sequences: Range<UInt64>
        /// Partition and offsets of every batch in the frame.
        package let ranges: [(partition: TopicPartition, offsets: Range<Int64>)]
    }

    package var frames = 0
    package var events: UInt64 = 0
    package var bytes: Int64 = 0
    package var damaged: [DamagedRange] = []
    package var rewritten: [Rewritten] = []
    package var head = Digest.zero
    /// One past the frame in which the subject stands.
    package var subjectEnd: UInt64?

    package var isIntact: Bool { damaged.isEmpty && rewritten.isEmpty }
}

extension Position {
    fileprivate func stands(in batch: LogFrame.Batch) -> Bool {
        batch.partition.topic == topic && batch.partition.partition == partition && offset >= batch.baseOffset
            && offset < batch.baseOffset + Int64(batch.count)
    }
}

extension EmbeddedLog {
    /// Reads every frame from disk, checks its CRC and follows the hash chain from the first to the last.
    /// - Parameter subject: an event whose place in the global sequence the caller wants to know.
    package func verify(subject: Position? = nil) throws(EventLogError) -> LogVerification {
        let (segments, head) = shared.withLock { ($0.segments, $0.lastHash) }
        var result = LogVerification()
        var previous: (description: LogFrame.Description, file: String, at: Int64)?
        var hash = Digest.zero
        var afterDamage = false
        func blame(_ frame: (description: LogFrame.Description, file: String, at: Int64)) {
            let first = frame.description.firstSequence
            result.rewritten.append(
                LogVerification.Rewritten(
                    file: frame.file, at: frame.at, sequences: first..<first + UInt64(frame.description.eventCount),
                    ranges: frame.description.batches.map {
                        ($0.partition, $0.baseOffset..<$0.baseOffset + Int64($0.count))
                    }))
        }
        for segment in segments {
            var walker = FrameWalker(file: segment.file, offset: 0, end: segment.end)
            while let step = try walker.next() {
                switch step {
                case .frame(let description, let at, let bytes):
                    if description.previousHash != hash, !afterDamage {
                        // Before the first frame there is nothing; if it names something, that was taken away.
                        blame(previous ?? (description, segment.file.path, at))
                    }
                    if let subject, description.batches.contains(where: { subject.stands(in: $0) }) {
                        result.subjectEnd = description.firstSequence + UInt64(description.eventCount)
                    }
                    afterDamage = false
                    hash = Digest.of(bytes)
                    previous = (description, segment.file.path, at)
                    result.frames += 1
                    result.events += UInt64(description.eventCount)
                    result.bytes += Int64(description.size)
                case .damage(let from, let resume):
                    let start =
                        previous.map { $0.description.firstSequence + UInt64($0.description.eventCount) }
                        ?? segment.firstSequence
                    let end = resume?.description.firstSequence ?? start
                    result.damaged.append(
                        DamagedRange(
                            file: segment.file.path, from: from, to: resume?.at ?? segment.end,
                            sequences: start..<max(start, end)))
                    afterDamage = true
                    guard let resume else { walker.offset = segment.end; continue }
                    walker.offset = resume.at
                }
            }
        }
        if !afterDamage, hash != head, let previous { blame(previous) }
        result.head = hash
        return result
    }
}
