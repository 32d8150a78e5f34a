import Base
import RecordFormat

/// What stands in a log's files, for people.
package struct LogInspection: Sendable {
    package struct Segment: Sendable {
        package let path: String
        package let firstSequence: UInt64
        package let bytes: Int64
    }

    package struct Partition: Sendable {
        package let partition: TopicPartition
        package let offsets: Range<Int64>
        package let files: Int
        package let bytes: Int64
        /// Batches that have not moved out of the WAL.
        package let waiting: Int
        package let compactedThrough: Int64
    }

    /// One append.
    package struct Frame: Sendable {
        package let at: Int64
        package let size: Int
        package let sequences: Range<UInt64>
        package let recordedTime: Int64
        package let principal: String
        package let batches: [(partition: TopicPartition, offsets: Range<Int64>)]
    }

    package let segments: [Segment]
    package let partitions: [Partition]
    package let chains: Int
    package let rewrittenThrough: UInt64
    package let pins: [Pin]
    package let recovery: RecoveryReport
    package let statistics: LogStatistics
}

extension EmbeddedLog {
    package func inspect() -> LogInspection {
        let (manifest, rebuilt) = maintenance.withLock { ($0.manifest, $0.rebuiltIndexes) }
        var recovery = recovery
        recovery.rebuiltIndexes += rebuilt
        let (segments, partitions) = shared.withLock { state in
            (
                state.segments.map {
                    LogInspection.Segment(path: $0.path, firstSequence: $0.firstSequence, bytes: $0.end)
                },
                state.partitions.list.map { known in
                    LogInspection.Partition(
                        partition: known.partition, offsets: known.start..<known.end, files: known.files.count,
                        bytes: known.files.reduce(0) { $0 + $1.record.bytes }, waiting: known.tail.count,
                        compactedThrough: manifest.index(of: known.partition).map {
                            manifest.partitions[$0].compactedThrough
                        } ?? 0)
                }
            )
        }
        return LogInspection(
            segments: segments, partitions: partitions.sorted { $0.partition < $1.partition },
            chains: manifest.chains.count, rewrittenThrough: manifest.rewrittenThrough, pins: manifest.pins,
            recovery: recovery, statistics: statistics)
    }

    /// The frames of a WAL segment, and the damage between them, from an offset of the file on.
    /// - Parameter limit: frames at most.
    package static func frames(
        of path: String, on volume: any LogVolume, from offset: Int64 = 0, limit: Int
    ) throws(EventLogError) -> (frames: [LogInspection.Frame], damaged: [Range<Int64>]) {
        guard path.hasSuffix(".wal") else {
            throw EventLogError("bad-file", "frames stand in WAL segments, whose names end in .wal; '\(path)' is none")
        }
        let file = try volume.open(path, .read)
        var walker = FrameWalker(file: file, offset: offset, end: file.size)
        var frames: [LogInspection.Frame] = []
        var damaged: [Range<Int64>] = []
        while frames.count < limit, let step = try walker.next() {
            switch step {
            case .frame(let frame, let at, _):
                frames.append(
                    LogInspection.Frame(
                        at: at, size: frame.size, sequences: frame.firstSequence..<frame.endSequence,
                        recordedTime: frame.recordedTime, principal: frame.principal,
                        batches: frame.batches.map { ($0.partition, $0.baseOffset..<$0.end) }))
            case .damage(let from, let resume?) where from == offset && offset > 0 && frames.isEmpty:
                // Asked for from the middle of a frame.
                walker.offset = resume.at
            case .damage(let from, nil) where try isReserved(file, from):
                walker.offset = walker.end
            case .damage(let from, let resume):
                damaged.append(from..<(resume?.at ?? walker.end))
                walker.offset = resume?.at ?? walker.end
            }
        }
        return (frames, damaged)
    }

    /// Whether nothing but zeros follows: space that was made ready for frames to come.
    private static func isReserved(_ file: any LogFile, _ from: Int64) throws(EventLogError) -> Bool {
        let step = 1 << 20
        for at in stride(from: from, to: file.size, by: Int64.Stride(step)) {
            guard try file.read(at: at, count: step).allSatisfy({ $0 == 0 }) else { return false }
        }
        return true
    }
}
